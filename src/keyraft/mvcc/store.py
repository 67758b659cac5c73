"""The multi-version store: one revision per transaction, every revision readable until compacted.

Requests come in as the bytes that the client sent, responses go out as the bytes behind the
header; the header's revision is `revision` after the call. KeyValues of bucket `key` are sent as
they are stored.

Invariants:
- `revision` never falls; it starts at 1 and grows by one with each transaction that changed
  something. `compact_revision` is -1 or at most `revision`, and never falls.
- Every record of the key index has its row in bucket `key`, in the same batch.
- A transaction that is refused has changed nothing: everything is checked before the first write.
- One thread calls. A transaction is one call, or one generator of steps; between two of its steps
  nothing else is written, and reads are of the revision before it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from struct import Struct
from typing import Final

from ..base.errors import (
    CompactedError,
    EmptyKeyError,
    FutureRevisionError,
    KeyNotFoundError,
    LeaseNotFoundError,
)
from ..base.invariants import Checks, hold
from ..base.varints import LOW, VARINTS
from ..proto import rpc_pb2
from . import changes, invariants, read, txn
from .backend import (
    KEY,
    META,
    META_FINISHED_COMPACT,
    META_SCHEDULED_COMPACT,
    Backend,
    missing_row,
)
from .checkpoint import Checkpoint
from .compactions import COMPACTION_BATCH_ROWS, COMPACTION_SLEEP_S, Compactions
from .events import Revisions, read_portion
from .hash import HashKVJob, HashStorage, hash_kv
from .hooks import Event, Listener, NoLeases, StoreLessor, joined, parted
from .index import Item
from .range_stream import range_stream
from .restore import Restored, restore
from .revision import row_key, tombstone_key
from .steps import finished
from .wire import (
    KV_HEADS,
    TWO,
    deleted_key_value,
    field,
    key_value,
    parsed,
    plain_put,
    plain_range,
    varint,
)

_ROW: Final = Struct(">QcQ")
_RECORD: Final = Struct(">qI")


class Store:
    """See the module.

    `listener` is None, the only listener, or all listeners as one; `lives` counts the databases
    from which the store was built. Reads that were pinned in an earlier database can continue from
    revision `readable_from` on.
    """

    __slots__ = (
        "_events",
        "_rows_unread",
        "_sub",
        "backend",
        "compact_revision",
        "compactions",
        "deletes",
        "hashes",
        "index",
        "key_leases",
        "lessor",
        "listener",
        "lives",
        "put_bytes",
        "puts",
        "ranges",
        "readable_from",
        "revision",
        "slice_keys",
        "txns",
    )

    def __init__(
        self,
        backend: Backend,
        lessor: StoreLessor | None = None,
        compaction_batch_rows: int = COMPACTION_BATCH_ROWS,
        compaction_sleep_s: float = COMPACTION_SLEEP_S,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Rebuilds everything from `backend`; a compaction cut short is scheduled again.

        `checkpoint` spares reading the rows it covers. Leases must have been restored into
        `lessor` before. Raises BackendError on damage.
        """
        self.compactions = Compactions(self, compaction_batch_rows, compaction_sleep_s)
        self.lessor: StoreLessor = NoLeases() if lessor is None else lessor
        self.listener: Listener | None = None
        self.slice_keys = read.SLICE_KEYS  # keys that one step looks at
        self.lives = 0
        # Since the start, for metrics.
        self.puts = 0
        self.put_bytes = 0
        self.deletes = 0
        self.ranges = 0
        self.txns = 0
        restored = restore(backend, checkpoint)
        self.reset(backend, restored)
        for key, lease in restored.key_leases.items():
            self.lessor.attach(lease, key)

    def reset(self, backend: Backend, restored: Restored) -> None:
        """Replaces all state by that of another database (a snapshot of the leader), which was read
        before, when the lessor got the keys of its leases.

        Reads under way continue if the new database has their revision, too.
        """
        self.backend = backend
        self.lives += 1
        self.revision = restored.revision
        self.compact_revision = restored.finished
        self.readable_from = max(restored.finished, restored.scheduled)
        self.index = restored.index
        self.key_leases = restored.key_leases
        self.hashes = HashStorage()
        self.compactions.reset()
        self._sub = 0
        self._events: list[Event] = []
        # Rows up to here may name leases that do not exist, and that `key_leases` does not hold.
        self._rows_unread = restored.revision if restored.no_leases else 0
        if restored.scheduled > max(restored.finished, 0):
            self.compactions.schedule(restored.scheduled, whole=False)
            self.compact_revision = restored.scheduled

    # --- requests ---------------------------------------------------------------------------

    def range(self, request: bytes) -> bytes:
        """RangeResponse without its header. Raises CompactedError, FutureRevisionError."""
        key = plain_range(request)
        if key is not None:
            return self.get(key)
        self.ranges += 1
        return read.run(self, parsed(rpc_pb2.RangeRequest, request), self.revision)

    def get(self, key: bytes) -> bytes:
        """`range` of one key as it is now."""
        self.ranges += 1
        if self._sub:
            return read.run(self, rpc_pb2.RangeRequest(key=key), self.revision)
        entry = self.index.entries.get(key)
        if entry is None:
            return b""
        if isinstance(entry, int):
            row = _ROW.pack(entry, b"_", 0)
        else:
            main, mark = _RECORD.unpack_from(entry, len(entry) - 12)
            if mark & 1:
                return b""
            row = _ROW.pack(main, b"_", mark >> 1)
        stored = self.backend.get(KEY, row)
        if stored is None:
            raise missing_row(row)
        size = len(stored)
        if size < 16384:
            return KV_HEADS[size] + stored + b"\x20\x01"
        return b"\x12" + varint(size) + stored + b"\x20\x01"

    def range_steps(self, request: rpc_pb2.RangeRequest) -> Generator[None, None, bytes]:
        """`range` in steps: each `next` works for about a millisecond; the value is the answer.

        Reads the revision that was current at the first step, whatever is written or compacted
        meanwhile. Close the generator if the answer is no longer wanted.
        """
        self.ranges += 1
        return read.steps(self, request, self.revision, self.compact_revision)

    def range_stream(
        self, request: rpc_pb2.RangeRequest, header: Callable[[int], bytes], target_bytes: int
    ) -> Generator[bytes, None, None]:
        """RangeStreamResponses of about `target_bytes`; b"" in between: call again later."""
        return range_stream(self, request, header, target_bytes)

    def put(self, request: bytes, end: int = 0) -> bytes:
        """PutResponse without its header; raises LeaseNotFoundError, KeyNotFoundError.

        `end`: what `plain_put` says of it, or 0."""
        end = end or plain_put(request)
        if not end:
            return self.put_message(parsed(rpc_pb2.PutRequest, request))
        key = request[2:end]
        main = self.revision + 1
        created, version = self.index.put(key, main, 0)
        # `varint` written out for revisions of three and four bytes.
        number = LOW[main & 16383] + VARINTS[main >> 14] if 16383 < main < TWO else varint(main)
        if version == 1:
            stored = b"".join(
                (
                    request[:end],
                    b"\x10",
                    number,
                    b"\x18",
                    number,
                    b"\x20\x01\x2a",
                    request[end + 1 :],
                )
            )
        else:
            stored = b"".join(
                (
                    request[:end],
                    b"\x10",
                    LOW[created & 16383] + VARINTS[created >> 14]
                    if 16383 < created < TWO
                    else varint(created),
                    b"\x18",
                    number,
                    b"\x20",
                    VARINTS[version] if version < 16384 else varint(version),
                    b"\x2a",
                    request[end + 1 :],
                )
            )
        self.backend.put(KEY, _ROW.pack(main, b"_", 0), stored)
        self.puts += 1
        self.put_bytes += len(stored)
        if self.key_leases:
            self._lease(key, 0)
        self.revision = main
        if self.listener is not None:
            self.listener(main, [(key, stored, False)])
        return b""

    def listen(self, listener: Listener) -> None:
        """Adds a listener, behind the present ones, until `leave`. It may be called at any time:
        the listener gets all events of a transaction under way, and none of one whose events are
        being delivered in portions.
        """
        self.listener = joined(self.listener, listener)

    def leave(self, listener: Listener) -> None:
        """Removes a listener.

        It still gets the rest of a transaction that is delivered in portions.
        """
        self.listener = parted(self.listener, listener)

    def put_message(self, request: rpc_pb2.PutRequest) -> bytes:
        """`put` of a parsed request."""
        self.check_put(request)
        body = self.do_put(request)
        self.end()
        return body

    def delete_range(self, request: bytes) -> bytes:
        """DeleteRangeResponse without its header."""
        return finished(self.delete_range_steps(request))

    def txn(self, request: bytes) -> bytes:
        """TxnResponse without its header. Raises what its operations raise, before any write."""
        return finished(self.txn_steps(request))

    def delete_keys(self, keys: Iterable[bytes]) -> int:
        """Deletes those of `keys` that exist in one transaction; how many (lease revocation)."""
        return finished(self.delete_keys_steps(keys))

    # The same in steps of about a millisecond; small ones take one step. The value is the answer.
    # Between the steps of a write nothing else may write, and all its steps must be done.

    def delete_range_steps(self, request: bytes) -> Generator[None, None, bytes]:
        """`delete_range` in steps."""
        return changes.delete_range_steps(self, parsed(rpc_pb2.DeleteRangeRequest, request))

    def txn_steps(self, request: bytes) -> Generator[None, None, bytes]:
        """`txn` in steps."""
        return txn.steps(self, parsed(rpc_pb2.TxnRequest, request))

    def read_txn_steps(self, request: rpc_pb2.TxnRequest) -> Generator[None, None, bytes]:
        """One that only reads (`txn.is_read_only`), of the revision of its first step. It may be
        closed when its answer is no longer wanted."""
        return txn.read_steps(self, request)

    def delete_keys_steps(self, keys: Iterable[bytes]) -> Generator[None, None, int]:
        """`delete_keys` in steps."""
        return changes.delete_keys_steps(self, keys)

    def compact(self, revision: int, done: Callable[[], None] | None = None) -> None:
        """Compacts at `revision`; `done` is called when the rows are deleted.

        Rows are deleted in slices (`compactions.step`); after a restart that begins again. Raises
        CompactedError, FutureRevisionError.
        """
        if revision <= self.compact_revision:
            raise CompactedError
        if revision > self.revision:
            raise FutureRevisionError
        get = self.backend.get
        whole = get(META, META_SCHEDULED_COMPACT) == get(META, META_FINISHED_COMPACT)
        self.backend.put(META, META_SCHEDULED_COMPACT, row_key(revision, 0))
        self.compactions.schedule(revision, whole, done)
        self.compact_revision = revision

    def hash_kv(self, revision: int) -> HashKVJob:
        """HashKV at `revision` (0: now), carried out in slices. Raises as `range` does."""
        return hash_kv(self, revision)

    # --- reads for others -------------------------------------------------------------------

    def kv_at(self, key: bytes, revision: int) -> bytes | None:
        """The KeyValue of `key` as a read at `revision` sees it; None if there was none or it
        is compacted away (what prev_kv of an event needs)."""
        found = self.index.get(key, revision)
        if found is None or revision < self.compact_revision:
            return None
        return self.backend.get(KEY, row_key(found[0], found[1]))

    def row(self, main: int, sub: int) -> bytes:
        """The stored KeyValue of a put; raises BackendError if it is lost."""
        key = row_key(main, sub)
        stored = self.backend.get(KEY, key)
        if stored is None:
            raise missing_row(key)
        return stored

    def rows(self, items: Sequence[Item]) -> list[bytes]:
        """The stored KeyValues of many puts; raises BackendError if one is lost."""
        pack = _ROW.pack
        keys = [pack(item[1], b"_", item[2]) for item in items]
        found = self.backend.get_all(KEY, keys)
        if None in found:
            raise missing_row(keys[found.index(None)])
        return found  # type: ignore[return-value]  # none is missing

    def events(self, at: bytes, rows: int) -> tuple[Revisions, bytes]:
        """Events from row `at` on (`revision.first_key`), about `rows` rows of them, and the row
        to go on from; it is empty when all were read.

        Rows older than the compact revision may be missing: the caller checks that first.
        """
        return read_portion(self.backend, at, self.revision, rows)

    def lease_at(self, key: bytes, main: int, sub: int) -> int:
        """The lease that `key` is on as of the put (main, sub)."""
        if main > self._rows_unread:
            entry = self.index.entries.get(key)
            if isinstance(entry, int):
                return self.key_leases.get(key, 0)
            if entry is not None:
                last, mark = _RECORD.unpack_from(entry, len(entry) - 12)
                if last == main and mark == sub << 1:
                    return self.key_leases.get(key, 0)
        return read.parse_stored(self.row(main, sub)).lease

    # --- one transaction, change by change --------------------------------------------------

    def check_put(self, request: rpc_pb2.PutRequest) -> None:
        """The checks of a put, in etcd's order.

        The key is never empty, whoever proposed the entry.
        """
        if not request.key:
            raise EmptyKeyError
        if request.lease and not self.lessor.exists(request.lease):
            raise LeaseNotFoundError
        if (request.ignore_value or request.ignore_lease) and not self.index.alive(request.key):
            raise KeyNotFoundError

    def do_put(self, request: rpc_pb2.PutRequest) -> bytes:
        """Puts within the transaction that `end` ends; the response without its header."""
        key, value, lease = request.key, request.value, request.lease
        body = b""
        if request.prev_kv or request.ignore_value or request.ignore_lease:
            # None only if the same transaction deleted the key by a range "to the end of the
            # keyspace", which no check counts as touching it twice. DEVIATION: etcd then crashes;
            # here no value is taken over.
            before = self.latest(key)
            if before is not None:
                if request.prev_kv:
                    body = field(b"\x12", before)
                if request.ignore_value or request.ignore_lease:
                    old = read.parse_stored(before)
                    if request.ignore_value:
                        value = old.value
                    if request.ignore_lease:
                        lease = old.lease
        self.put_key(key, value, lease)
        return body

    def put_key(self, key: bytes, value: bytes, lease: int = 0) -> None:
        """One put of the transaction that `end` ends."""
        main = self.revision + 1
        sub = self._sub
        created, version = self.index.put(key, main, sub)
        stored = key_value(key, created, main, version, value, lease)
        self.backend.put(KEY, _ROW.pack(main, b"_", sub), stored)
        self.puts += 1
        self.put_bytes += len(stored)
        self._sub = sub + 1
        if lease or self.key_leases:
            self._lease(key, lease)
        if self.listener is not None:
            self._events.append((key, stored, False))

    def end(self) -> None:
        """Ends the transaction: its changes become one revision, if there are any."""
        if not self._sub:
            return
        if self._sub > 1:
            self.txns += 1
        self._sub = 0
        self.revision += 1
        if self._events:
            events, self._events = self._events, []
            if self.listener is not None:
                self.listener(self.revision, events)

    def end_at_once(self, events_max: int) -> bool:
        """`end`.

        Returns False without delivering events if they are too many for one call, or not all known
        because there was no listener at first.
        """
        if self._sub > events_max or (len(self._events) < self._sub and self.listener is not None):
            self._events = []
            self.end()
            return False
        self.end()
        return True

    @property
    def pending_revision(self) -> int:
        """The revision that a read inside the transaction sees as current."""
        return self.revision + 1 if self._sub else self.revision

    def latest(self, key: bytes) -> bytes | None:
        """The KeyValue of `key` now, changes of the running transaction included."""
        found = self.index.get(key, self.revision + 1)
        return None if found is None else self.row(found[0], found[1])

    def delete_key(self, key: bytes) -> None:
        """Deletes a key that is alive, within the transaction that `end` ends."""
        main = self.revision + 1
        sub = self._sub
        self.index.delete(key, main, sub)
        self.backend.put(KEY, tombstone_key(main, sub), field(b"\x0a", key))
        self.deletes += 1
        self._sub = sub + 1
        if self.key_leases:
            self._lease(key, 0)
        if self.listener is not None:
            self._events.append((key, deleted_key_value(key, main), True))

    def _lease(self, key: bytes, lease: int) -> None:
        old = self.key_leases.get(key, 0)
        if old == lease:
            return
        if old:
            self.lessor.detach(old, key)
        if lease:
            self.key_leases[key] = lease
            self.lessor.attach(lease, key)
        else:
            del self.key_leases[key]

    # --- health -----------------------------------------------------------------------------

    def check(self, attached: invariants.Attached = invariants.anywhere) -> None:
        """All facts of `invariants.py`, between two transactions; slow."""
        hold(not self._sub and not self._events, "no transaction is under way", self._sub)
        invariants.whole_store(self, attached)

    def check_steps(self, attached: invariants.Attached = invariants.anywhere) -> Checks:
        """The same in steps, also amid a transaction; see `invariants.store_steps`."""
        return invariants.store_steps(self, attached)

    def statistics(self) -> dict[str, int]:
        """Sizes for metrics and tests."""
        return {
            "revision": self.revision,
            "compact_revision": self.compact_revision,
            "keys": len(self.index.live),
            "dead_keys": len(self.index.dead),
            "leased_keys": len(self.key_leases),
            "compactions": len(self.compactions),
            "pins": self.compactions.pins,
        }
