"""Limits by prefix: what is under each, and whether a request fits (docs/LIMITS.md).

Invariants: while a walk is at key K, everything below K is counted and everything from K on is not, so
an event counts exactly if its key is below K; once it has ended, all count. `used` of a counted limit
is the sum over its keys of the stored sizes.

Owned by the member's loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from keyraft.base.codes import RESOURCE_EXHAUSTED
from keyraft.base.errors import RawError
from keyraft.base.gotext import quote
from keyraft.base.invariants import hold
from keyraft.base.limits import PREFIX_LIMITS
from keyraft.mvcc import Event

if TYPE_CHECKING:
    from keyraft.mvcc import Store

LIMITS_END: Final = b"\0keyraft/limit0"  # behind the last key that may keep a limit
LIMITS_MAX: Final = 256
NUMBER_MAX: Final = 1 << 62
PENDING_S: Final = 5.0  # how long something let in counts that has not come
PUT_BYTES: Final = 42  # of a row, beside key and value: its name and the numbers in it
ROW_BYTES: Final = 17
STEP_KEYS: Final = 200
_NAMES: Final = ("bytes", "keys", "writes_per_second")


class MalformedLimitError(ValueError):
    """A value that is no limit."""


def parse_limit(value: bytes) -> dict[str, float]:
    """The limits in a stored value; raises MalformedLimitError."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        raise MalformedLimitError("it is no JSON") from None
    if not isinstance(found, dict) or not found or not found.keys() <= set(_NAMES):
        raise MalformedLimitError(f"it is no object with some of {', '.join(_NAMES)}")
    for name, number in found.items():
        whole = type(number) is int
        if not (whole or (type(number) is float and name == "writes_per_second")):
            raise MalformedLimitError(f"{name} is no number")
        if not 0 <= number <= NUMBER_MAX:
            raise MalformedLimitError(f"{name} is out of range")
    return found


class Limit:
    """One limit and what is known of its prefix. None: not limited."""

    __slots__ = (
        "at",
        "bytes_max",
        "keys_max",
        "level",
        "level_s",
        "pending_bytes",
        "pending_keys",
        "pending_s",
        "pending_writes",
        "prefix",
        "rate",
        "refused",
        "used_bytes",
        "used_keys",
    )

    def __init__(self, prefix: bytes, wanted: dict[str, Any], now_s: float) -> None:
        self.prefix = prefix
        self.refused = 0
        self.change(wanted, now_s)
        self.recount()
        self.pending_s = now_s
        self.pending_bytes = self.pending_keys = self.pending_writes = 0

    def change(self, wanted: dict[str, Any], now_s: float) -> None:
        """Other numbers for the same prefix."""
        self.bytes_max: int | None = wanted.get("bytes")
        self.keys_max: int | None = wanted.get("keys")
        self.rate: float | None = wanted.get("writes_per_second")
        self.level = self.burst
        self.level_s = now_s

    def recount(self) -> None:
        """Counts from the first key on."""
        self.at: bytes | None = self.prefix
        """Where the walk is; None: it has ended."""
        self.used_bytes = self.used_keys = 0

    @property
    def burst(self) -> float:
        """What the bucket holds."""
        return max(self.rate or 0.0, 1.0) if self.rate else 0.0

    def refill(self, now_s: float) -> None:
        """The bucket at this time; what never came is forgotten."""
        if self.rate:
            self.level = min(self.level + self.rate * (now_s - self.level_s), self.burst)
        self.level_s = now_s
        if now_s >= self.pending_s + PENDING_S:
            self.pending_bytes = self.pending_keys = self.pending_writes = 0

    def check(self, size: int, keys: int, now_s: float) -> str:
        """Why a request that adds so much does not fit, or ""."""
        self.refill(now_s)
        if self.rate is not None and self.level - self.pending_writes < 1.0:
            return f"{self.rate:g} writes per second"
        if self.at is not None:
            return ""
        if size > 0 and self.bytes_max is not None:
            if self.used_bytes + self.pending_bytes + size > self.bytes_max:
                return f"{self.bytes_max} bytes"
        if keys > 0 and self.keys_max is not None:
            if self.used_keys + self.pending_keys + keys > self.keys_max:
                return f"{self.keys_max} keys"
        return ""

    def let_in(self, size: int, keys: int, writes: int, now_s: float) -> None:
        """A request was proposed."""
        self.pending_s = now_s
        self.pending_bytes += max(size, 0)
        self.pending_keys += max(keys, 0)
        self.pending_writes += writes

    def applied(self, key: bytes, size: int, keys: int, now_s: float) -> None:
        """One write of the log: by how much it has made the prefix larger."""
        self.refill(now_s)
        self.level = max(self.level - 1.0, -self.burst)
        self.pending_bytes = max(self.pending_bytes - max(size, 0), 0)
        self.pending_keys = max(self.pending_keys - max(keys, 0), 0)
        self.pending_writes = max(self.pending_writes - 1, 0)
        if self.at is None or key < self.at:
            self.used_bytes += size
            self.used_keys += keys


class PrefixLimits:
    """All limits of one member."""

    def __init__(self, store: Store, clock: Callable[[], float], warn: Callable[..., None]) -> None:
        self._store = store
        self._clock = clock
        self._warn = warn
        self._seen: tuple[tuple[bytes, int], ...] = ()
        self._lives = store.lives
        self._sizes: dict[bytes, int] = {}  # of keys written in the revision that is being told
        self._telling = False
        self._prefixes: tuple[bytes, ...] = ()
        self.limits: list[Limit] = []

    def look(self) -> bool:
        """Reads the limits if they have changed; whether there are any."""
        store = self._store
        items = store.index.find(
            store.index.live.slice(PREFIX_LIMITS, LIMITS_END, LIMITS_MAX), store.revision
        )
        seen = tuple((item[0], item[1]) for item in items)
        if store.lives != self._lives:
            self._lives = store.lives
            self._telling = False
            for limit in self.limits:
                limit.recount()
            self._seen = ((b"", 0),)
        if seen != self._seen:
            self._seen = seen
            self._read([(key, main, sub) for key, main, sub, _, _ in items])
        return bool(self.limits)

    def _read(self, items: list[tuple[bytes, int, int]]) -> None:
        known = {limit.prefix: limit for limit in self.limits}
        now_s = self._clock()
        before = bool(self.limits)
        self.limits = []
        for key, main, sub in items:
            prefix = key[len(PREFIX_LIMITS) :]
            try:
                wanted = parse_limit(self._value(main, sub))
            except MalformedLimitError as error:
                self._warn("a limit is not understood", prefix=quote(prefix), error=str(error))
                continue
            limit = known.get(prefix)
            if limit is None:
                limit = Limit(prefix, wanted, now_s)
            else:
                limit.change(wanted, now_s)
            self.limits.append(limit)
        self._prefixes = tuple(limit.prefix for limit in self.limits)
        if self.limits and not before:
            self._store.listen(self._listen)
        elif before and not self.limits:
            self._store.leave(self._listen)
            self._telling = False

    def _value(self, main: int, sub: int) -> bytes:
        from keyraft.proto import mvcc_pb2

        return mvcc_pb2.KeyValue.FromString(self._store.row(main, sub)).value

    # --- what requests ask ----------------------------------------------------------------------

    def admit(self, branches: Iterable[list[tuple[bytes, int]]]) -> None:
        """Lets in a request with these puts, key and size of each, in one branch or another.

        Raises RawError.
        """
        now_s = self._clock()
        needed: dict[Limit, tuple[int, int, int]] = {}
        for puts in branches:
            for limit, (size, keys, writes) in self._needed(puts).items():
                most = needed.get(limit, (0, 0, 0))
                needed[limit] = (max(size, most[0]), max(keys, most[1]), max(writes, most[2]))
        for limit, (size, keys, _) in needed.items():
            why = limit.check(size, keys, now_s)
            if why:
                limit.refused += 1
                text = f"etcdserver: limit of prefix {quote(limit.prefix)} is reached: {why}"
                raise RawError(RESOURCE_EXHAUSTED, text)
        for limit, (size, keys, writes) in needed.items():
            limit.let_in(size, keys, writes, now_s)

    def _needed(self, puts: list[tuple[bytes, int]]) -> dict[Limit, tuple[int, int, int]]:
        found: dict[Limit, tuple[int, int, int]] = {}
        for key, size in puts:
            if not key.startswith(self._prefixes) or key.startswith(PREFIX_LIMITS):
                continue
            before = self._size_at(key, self._store.revision)
            for limit in self.limits:
                if key.startswith(limit.prefix):
                    most = found.get(limit, (0, 0, 0))
                    more = (size + PUT_BYTES - before, 0 if before else 1, 1)
                    found[limit] = (most[0] + more[0], most[1] + more[1], most[2] + 1)
        return found

    # --- what the log tells ---------------------------------------------------------------------

    def _listen(self, revision: int, events: list[Event], more: bool = False) -> None:
        self._telling = more
        prefixes, sizes = self._prefixes, self._sizes
        now_s = self._clock()
        for key, stored, deleted in events:
            if not key.startswith(prefixes) or key.startswith(PREFIX_LIMITS):
                continue
            before = sizes.get(key)
            if before is None:
                before = self._size_at(key, revision - 1)
            after = 0 if deleted else len(stored) + ROW_BYTES
            sizes[key] = after
            keys = (after > 0) - (before > 0)
            for limit in self.limits:
                if key.startswith(limit.prefix):
                    limit.applied(key, after - before, keys, now_s)
        if not more:
            sizes.clear()

    def _size_at(self, key: bytes, revision: int) -> int:
        """The size of what the key was at a revision; 0 if it was not there."""
        found = self._store.index.get(key, revision)
        return 0 if found is None else len(self._store.row(found[0], found[1])) + ROW_BYTES

    # --- counting what is there -----------------------------------------------------------------

    def step(self) -> bool:
        """Counts some keys of a limit that is not counted; whether all are."""
        if self._telling:
            return False
        store = self._store
        for limit in self.limits:
            if limit.at is None:
                continue
            # A transaction under way may have deleted keys that its events have yet to tell of.
            keys = store.index.first_keys(limit.at, _end_of(limit.prefix), STEP_KEYS)
            for key, main, sub, _, _ in store.index.find(keys, store.revision):
                if not key.startswith(PREFIX_LIMITS):
                    limit.used_bytes += len(store.row(main, sub)) + ROW_BYTES
                    limit.used_keys += 1
            limit.at = keys[-1] + b"\0" if len(keys) == STEP_KEYS else None
            return False
        return True

    def check(self) -> None:
        """The invariant of those that are counted; slow."""
        store = self._store
        for limit in self.limits:
            if limit.at is None:
                keys = store.index.keys(limit.prefix, _end_of(limit.prefix), True)
                there = store.index.find(keys, store.revision)
                rows = [
                    len(store.row(main, sub)) + ROW_BYTES
                    for key, main, sub, _, _ in there
                    if not key.startswith(PREFIX_LIMITS)
                ]
                hold(
                    len(rows) == limit.used_keys, "keys are counted", limit.prefix, limit.used_keys
                )
                hold(sum(rows) == limit.used_bytes, "bytes are counted", limit.prefix)


def _end_of(prefix: bytes) -> bytes | None:
    """The first key behind those with the prefix; None: there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else None
