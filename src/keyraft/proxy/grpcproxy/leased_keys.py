"""The keys that this proxy owns under `--experimental-leasing-prefix`, and their values.

The owner of a key K is who has put the leasing key PREFIX+K, with its lease. Whoever writes K by the
protocol makes sure, in the transaction that writes, that nobody owns it but the writer. So the owner
knows K's value without asking, as long as its lease lives.

An entry is used only while the lease lives by the clock of when it was last renewed, while no write
of this proxy's own to the key is under way, and within a second of the last answer of the cluster to
somebody without credentials (who may read it is the cluster's to say).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from keyraft.proto import mvcc_pb2, rpc_pb2

OWNED_MAX: Final = 10_000
OWNED_BYTES_MAX: Final = 64 << 20
BACKOFF_S: Final = (
    2.0  # after another has wanted a key, before it is taken again (etcd `revokeBackoff`)
)
FRESH_S: Final = 1.0

Range = tuple[bytes, bytes]


def holds(written: Range, key: bytes) -> bool:
    """Whether a key lies in a range; an empty end is one key, zero everything behind."""
    start, end = written
    if not end:
        return key == start
    return start <= key and (end == b"\0" or key < end)


class Owned:
    """One key; `created` is the revision of its leasing key."""

    __slots__ = ("created", "kv", "revision")

    def __init__(self, created: int, answer: rpc_pb2.RangeResponse, revision: int) -> None:
        self.created = created
        self.revision = revision
        self.kv: mvcc_pb2.KeyValue | None = answer.kvs[0] if answer.kvs else None

    @property
    def size(self) -> int:
        """Bytes, about."""
        return 400 + (0 if self.kv is None else len(self.kv.key) + len(self.kv.value))


class LeasedKeys:
    """What is owned, wanted and written. Owned by the loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._owned: dict[bytes, Owned] = {}
        self._bytes = 0
        self._away: dict[bytes, float] = {}  # keys that were given up, and when
        self._asking: dict[
            bytes, int
        ] = {}  # being taken; the last revision at which another wanted it
        self._writing: Counter[bytes] = Counter()
        self._wide: Counter[Range] = Counter()  # ranges that are being deleted
        self._answered_s = float("-inf")
        self.header = rpc_pb2.ResponseHeader()

    def __len__(self) -> int:
        return len(self._owned)

    def answered(self, header: rpc_pb2.ResponseHeader, anonymous: bool) -> None:
        """The cluster has answered somebody."""
        if header.revision >= self.header.revision:
            self.header = header
        if anonymous:
            self._answered_s = self._clock()

    @property
    def fresh(self) -> bool:
        """Whether it did so lately."""
        return self._clock() - self._answered_s < FRESH_S

    # --- reading --------------------------------------------------------------------------------

    def get(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse | None:
        """The answer to a read of one key, if it is known."""
        entry = self._owned.get(request.key)
        if entry is None or self.written(request.key):
            return None
        answer = rpc_pb2.RangeResponse(header=self.header)
        kv = entry.kv
        if kv is None:
            return answer
        answer.count = 1
        if (
            request.count_only
            or request.min_mod_revision > kv.mod_revision
            or request.min_create_revision > kv.create_revision
            or 0 < request.max_mod_revision < kv.mod_revision
            or 0 < request.max_create_revision < kv.create_revision
        ):
            return answer
        answer.kvs.append(kv)
        if request.keys_only:
            answer.kvs[0].ClearField("value")
        return answer

    # --- taking ---------------------------------------------------------------------------------

    def may_take(self, key: bytes) -> bool:
        """Whether to try to become the owner."""
        if key in self._owned or key in self._asking or self.written(key):
            return False
        if len(self._owned) + len(self._asking) >= OWNED_MAX or self._bytes >= OWNED_BYTES_MAX:
            return False
        since_s = self._away.get(key)
        return since_s is None or self._clock() - since_s > BACKOFF_S

    def ask(self, key: bytes) -> None:
        """The transaction that takes it is sent."""
        self._asking[key] = 0

    def taken(self, key: bytes, entry: Owned | None) -> None:
        """It has ended; None: the key is another's, or nobody knows."""
        wanted = self._asking.pop(key, 0)
        if entry is not None and wanted <= entry.revision:
            self._owned[key] = entry
            self._bytes += entry.size

    def asking(self, written: Iterable[Range]) -> bool:
        """Whether a key of these is being taken."""
        if not self._asking:
            return False
        return any(
            any(holds((start, end), key) for key in self._asking) if end else start in self._asking
            for start, end in written
        )

    # --- giving up ------------------------------------------------------------------------------

    def wanted(self, key: bytes, revision: int) -> None:
        """Another wants the key, or its leasing key is gone."""
        if key in self._asking:
            self._asking[key] = max(self._asking[key], revision)
        entry = self._owned.get(key)
        if entry is not None and entry.created < revision:
            self.drop(key)

    def drop(self, key: bytes) -> None:
        """Forgets a key."""
        entry = self._owned.pop(key, None)
        if entry is None:
            return
        self._bytes -= entry.size
        if len(self._away) >= OWNED_MAX:
            now = self._clock()
            self._away = {k: s for k, s in self._away.items() if now - s <= BACKOFF_S}
            if len(self._away) >= OWNED_MAX:
                self._away.clear()
        self._away[key] = self._clock()

    def clear(self) -> None:
        """The lease is gone."""
        self._owned.clear()
        self._bytes = 0
        for key in self._asking:
            self._asking[key] = 1 << 62

    # --- writing --------------------------------------------------------------------------------

    def written(self, key: bytes) -> bool:
        """Whether a write that may change the key is under way."""
        return key in self._writing or any(holds(one, key) for one in self._wide)

    def begin(self, ranges: Iterable[Range]) -> None:
        """A write begins."""
        for start, end in ranges:
            if end:
                self._wide[start, end] += 1
            else:
                self._writing[start] += 1

    def end(self, ranges: Iterable[Range]) -> None:
        """It has ended."""
        for start, end in ranges:
            if end:
                self._wide[start, end] -= 1
                if not self._wide[start, end]:
                    del self._wide[start, end]
            else:
                self._writing[start] -= 1
                if not self._writing[start]:
                    del self._writing[start]

    def created(self, key: bytes) -> int:
        """The revision of the leasing key that is owned, or 0."""
        entry = self._owned.get(key)
        return 0 if entry is None else entry.created

    def update(self, key: bytes, answer: rpc_pb2.RangeResponse, revision: int) -> bool:
        """What a write left; whether it may be kept."""
        entry = self._owned.get(key)
        if entry is None or revision <= entry.revision:
            return True
        new = Owned(entry.created, answer, revision)
        if new.kv is not None and new.kv.lease:
            return False  # the key will go by itself some day
        self._bytes += new.size - entry.size
        self._owned[key] = new
        return True

    def within(self, ranges: Iterable[Range]) -> list[bytes]:
        """The owned keys of ranges of more than one key."""
        wide = [one for one in ranges if one[1]]
        return [key for key in self._owned if any(holds(one, key) for one in wide)] if wide else []

    def check(self) -> None:
        """The invariants, for tests."""
        assert self._bytes == sum(entry.size for entry in self._owned.values()), self._bytes
        assert not self._owned.keys() & self._asking.keys(), "taken twice"
        assert all(entry.kv is None or not entry.kv.lease for entry in self._owned.values())
