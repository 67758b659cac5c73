"""Which revisions each key has: the index that every read and write goes through.

A key has a sequence of generations: puts, closed by a tombstone, then the next generation. All but
the last generation are closed; a key is alive while the last one has a revision. Compaction at C
keeps, of the first generation that reaches to C or beyond, the newest revision up to C and all
later ones (etcd `mvcc/key_index.go`).

A million keys must not be a million containers that the garbage collector walks. So the entry of a
key is one flat object:

- an `int` m: created by the first change of transaction m and not touched since; or
- packed bytes (a `bytearray` once long, so that a hot key's growth is not quadratic):

      offset  size  meaning (big endian)
      0       8     create revision of the first generation kept here (0: unknown, compacted)
      8       8     version of the first revision kept here
      16      4     number of the record at which the last generation starts
      20      12 n  n records, ascending: main (8), sub << 1 | is a tombstone (4)

Invariants: records ascend; a record is a tombstone exactly if the next one starts a generation;
the start is 0 or follows the last tombstone; start == n exactly if the key is dead; `live` holds
the keys that are alive, `dead` the others, together all of `entries`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from keyraft.base.invariants import AT_ONCE, CHECK_SLICE, Checks, hold, whole

from .order import FRESH_KEYS_MAX, SortedKeys

Entry = int | bytes | bytearray

_HEAD: Final = Struct(">qqI")
_RECORD: Final = Struct(">qI")
_ONE: Final = Struct(">qqIqI")
_TWO: Final = Struct(">qqIqIqI")
_START: Final = Struct(">I")
_HEAD_BYTES: Final = 20
_RECORD_BYTES: Final = 12
_FLAT_BYTES_MAX: Final = 512  # longer entries grow in place
_START_OFFSET: Final = 16

Found = tuple[int, int, int, int]
"""(main, sub, create revision, version) of the revision that a read sees."""

Item = tuple[bytes, int, int, int, int]
"""(key, main, sub, create revision, version)."""


def _record(entry: bytes | bytearray, number: int) -> tuple[int, int]:
    pair: tuple[int, int] = _RECORD.unpack_from(entry, _HEAD_BYTES + _RECORD_BYTES * number)
    return pair


def _newest_until(entry: bytes | bytearray, low: int, high: int, main: int) -> int:
    """The last record in [low, high) that is not after `main`, or low - 1."""
    while low < high:
        middle = (low + high) // 2
        if _record(entry, middle)[0] <= main:
            low = middle + 1
        else:
            high = middle
    return low - 1


def _generation_start(entry: bytes | bytearray, number: int, last_start: int) -> int:
    """The record at which the generation of record `number` starts."""
    if number >= last_start:
        return last_start
    while number and not _record(entry, number - 1)[1] & 1:
        number -= 1
    return number


def find(entry: Entry, at: int) -> Found | None:
    """The revision of the key that a read at `at` sees; None if the key does not exist then."""
    if isinstance(entry, int):
        return (entry, 0, entry, 1) if entry <= at else None
    count = (len(entry) - _HEAD_BYTES) // _RECORD_BYTES
    main, mark = _record(entry, count - 1)
    number = count - 1
    if main > at:
        number = _newest_until(entry, 0, count - 1, at)
        if number < 0:
            return None
        main, mark = _record(entry, number)
    if mark & 1:
        return None
    created, version, last_start = _HEAD.unpack_from(entry)
    start = _generation_start(entry, number, last_start)
    if start:
        created, version = _record(entry, start)[0], 1
    return main, mark >> 1, created, version + number - start


def compacted(entry: Entry, at: int) -> Entry | None:
    """The entry after compaction at `at`; None when nothing of the key is left."""
    if isinstance(entry, int):
        return entry
    count = (len(entry) - _HEAD_BYTES) // _RECORD_BYTES
    main, mark = _record(entry, 0)
    if main > at or (main == at and mark & 1):
        return entry
    if not mark & 1 and (count == 1 or _record(entry, 1)[0] > at):
        return _shrunk(entry)
    created, version, last_start = _HEAD.unpack_from(entry)
    start, end = kept_generation(entry, count, last_start, at)
    if start == count:
        return None
    first = max(_newest_until(entry, start, end, at), start)
    if start:
        created, version = _record(entry, start)[0], 1
    version += first - start
    return _shrunk(
        _HEAD.pack(created, version, max(last_start - first, 0))
        + entry[_HEAD_BYTES + _RECORD_BYTES * first :]
    )


def kept_generation(
    entry: bytes | bytearray, count: int, last_start: int, at: int
) -> tuple[int, int]:
    """Records [start, end) of the first generation that is open or closed at `at` or later."""
    start = 0
    number = 0
    while number < last_start:
        main, mark = _record(entry, number)
        number += 1
        if mark & 1:
            if main >= at:
                return start, number
            start = number
    return start, count


def _shrunk(entry: bytes | bytearray) -> Entry:
    """The most compact form of the same entry."""
    if len(entry) == _HEAD_BYTES + _RECORD_BYTES:
        created, version, start, main, mark = _ONE.unpack(entry)
        if version == 1 and start == 0 and mark == 0 and created == main:
            return int(main)
    if len(entry) <= _FLAT_BYTES_MAX and type(entry) is bytearray:
        return bytes(entry)
    return entry


def kept_for_hash(entry: Entry, at: int) -> tuple[int, int] | None:
    """The revision up to `at` that a compaction at `at` would keep, tombstones left out.

    Hashes need exactly etcd's choice (`keep` in `key_index.go`), which differs from `find` when
    one transaction deletes a key and creates it again.
    """
    if isinstance(entry, int):
        return (entry, 0) if entry <= at else None
    count = (len(entry) - _HEAD_BYTES) // _RECORD_BYTES
    last_start: int = _START.unpack_from(entry, _START_OFFSET)[0]
    start, end = kept_generation(entry, count, last_start, at)
    number = _newest_until(entry, start, end, at)
    if number < start:
        return None
    main, mark = _record(entry, number)
    return None if mark & 1 else (main, mark >> 1)


def kept_for_compaction(entry: Entry, at: int) -> bool:
    """Whether a compaction at `at` keeps a revision up to `at` of the key, tombstones included."""
    if isinstance(entry, int):
        return entry <= at
    rest = compacted(entry, at)
    if rest is None:
        return False
    return (rest if isinstance(rest, int) else _record(rest, 0)[0]) <= at


def holds(entry: Entry, main: int, sub: int, tombstone: bool, until: int) -> bool:
    """Whether the revision is among the first records, those up to `until`."""
    if isinstance(entry, int):
        return entry == main and not sub and not tombstone
    wanted = (main, sub << 1 | tombstone)
    for number in range((len(entry) - _HEAD_BYTES) // _RECORD_BYTES):
        record = _record(entry, number)
        if record == wanted:
            return True
        if record[0] > until:
            return False
    return False


def restored(
    entry: Entry | None, main: int, sub: int, tombstone: bool, created: int, version: int
) -> Entry | None:
    """The entry after one more stored row; rows come in ascending order.

    The first row met of a key carries its create revision and version, because those before it may
    be compacted away. A tombstone of a dead key changes nothing (etcd logs that and goes on).
    """
    if entry is None:
        if tombstone:
            return _ONE.pack(0, 1, 1, main, sub << 1 | 1)
        if created == main and version == 1 and not sub:
            return main
        return _ONE.pack(created, version, 0, main, sub << 1)
    if isinstance(entry, int):
        if tombstone:
            return _TWO.pack(entry, 1, 2, entry, 0, main, sub << 1 | 1)
        return _TWO.pack(entry, 1, 0, entry, 0, main, sub << 1)
    record = _RECORD.pack(main, sub << 1 | tombstone)
    if not tombstone:
        if len(entry) > _FLAT_BYTES_MAX and isinstance(entry, bytes):
            entry = bytearray(entry)
        entry += record
        return entry
    if entry[-1] & 1:
        return entry
    start = _START.pack((len(entry) - _HEAD_BYTES) // _RECORD_BYTES + 1)
    return entry[:_START_OFFSET] + start + entry[_HEAD_BYTES:] + record


def is_alive(entry: Entry) -> bool:
    """Whether the key exists now."""
    return isinstance(entry, int) or not entry[-1] & 1


class KeyIndex:
    """All keys with their revisions, and the keys in order."""

    __slots__ = ("dead", "entries", "live")

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.live = SortedKeys()
        self.dead = SortedKeys()

    def put(self, key: bytes, main: int, sub: int) -> tuple[int, int]:
        """Adds a revision; returns the key's create revision and its new version."""
        entries = self.entries
        entry = entries.get(key)
        if entry is None:
            entries[key] = _ONE.pack(main, 1, 0, main, sub << 1) if sub else main
            fresh = self.live.fresh
            fresh.append(key)
            if len(fresh) >= FRESH_KEYS_MAX:
                self.live.settle()
            return main, 1
        if isinstance(entry, int):
            entries[key] = _TWO.pack(entry, 1, 0, entry, 0, main, sub << 1)
            return entry, 2
        created, version, start = _HEAD.unpack_from(entry)
        size = len(entry)
        count = (size - _HEAD_BYTES) // _RECORD_BYTES
        if not start:
            version += count
        elif start == count:
            self.dead.remove(key)
            self.live.add(key)
            created, version = main, 1
        else:
            created, version = _record(entry, start)[0], count - start + 1
        if size > _FLAT_BYTES_MAX:
            self._append(key, entry, main, sub << 1)
        else:
            entries[key] = entry + _RECORD.pack(main, sub << 1)
        return created, version

    def _append(self, key: bytes, entry: bytes | bytearray, main: int, mark: int) -> None:
        if len(entry) > _FLAT_BYTES_MAX:
            if type(entry) is bytes:
                self.entries[key] = entry = bytearray(entry)
            entry += _RECORD.pack(main, mark)
        else:
            self.entries[key] = entry + _RECORD.pack(main, mark)

    def delete(self, key: bytes, main: int, sub: int) -> None:
        """Closes the generation of a key that is alive."""
        entry = self.entries[key]
        if isinstance(entry, int):
            self.entries[key] = _TWO.pack(entry, 1, 2, entry, 0, main, sub << 1 | 1)
        else:
            count = (len(entry) - _HEAD_BYTES) // _RECORD_BYTES
            assert _START.unpack_from(entry, _START_OFFSET)[0] < count, (key, "is dead already")
            self._append(key, entry, main, sub << 1 | 1)
            grown = self.entries[key]
            assert not isinstance(grown, int)
            start = _START.pack(count + 1)
            if isinstance(grown, bytearray):
                grown[_START_OFFSET:_HEAD_BYTES] = start
            else:
                self.entries[key] = grown[:_START_OFFSET] + start + grown[_HEAD_BYTES:]
        self.live.remove(key)
        self.dead.add(key)

    def get(self, key: bytes, at: int) -> Found | None:
        """What a read at revision `at` sees of `key`."""
        entry = self.entries.get(key)
        return None if entry is None else find(entry, at)

    def find(self, keys: list[bytes], at: int) -> list[Item]:
        """What a read at revision `at` sees of those of `keys` that exist then."""
        known = self.entries.get
        out: list[Item] = []
        for key in keys:
            entry = known(key)
            if isinstance(entry, int):
                if entry <= at:
                    out.append((key, entry, 0, entry, 1))
            elif entry is not None:
                found = find(entry, at)
                if found is not None:
                    out.append((key, *found))
        return out

    def compact(self, key: bytes, at: int) -> Entry | None:
        """Compacts one key at `at`; what is left of it, None if nothing."""
        entry = self.entries.get(key)
        if entry is None or isinstance(entry, int):
            return entry
        rest = compacted(entry, at)
        if rest is None:
            del self.entries[key]
            self.dead.remove(key)
        elif rest is not entry:
            self.entries[key] = rest
        return rest

    def alive(self, key: bytes) -> bool:
        """Whether the key exists now."""
        entry = self.entries.get(key)
        return entry is not None and is_alive(entry)

    def keys(self, start: bytes, end: bytes | None, with_dead: bool) -> list[bytes]:
        """Keys of [start, end) in order, those that are dead now only if asked for."""
        keys = self.live.slice(start, end)
        if with_dead and len(self.dead):
            keys += self.dead.slice(start, end)
            keys.sort()
        return keys

    def first_keys(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """The first `limit` keys of [start, end) in order, dead ones among them."""
        keys = self.live.slice(start, end, limit)
        if len(self.dead):
            keys += self.dead.slice(start, end, limit)
            keys.sort()
            del keys[limit:]
        return keys

    def check(self) -> None:
        """The invariants of the module; raises InvariantError."""
        self.live.check()
        self.dead.check()
        whole(self.check_steps(AT_ONCE))

    def check_steps(self, size: int = CHECK_SLICE) -> Checks:
        """The same in steps of `size` keys, but for the inside of `live` and `dead`."""
        for keys, is_live in ((self.live, True), (self.dead, False)):
            more, at = True, b""
            while more:
                live, dead, entries = len(self.live), len(self.dead), len(self.entries)
                hold(live + dead == entries, "live and dead keys are all", live, dead, entries)
                part = keys.slice(at, None, size)
                more = len(part) == size
                for key in part:
                    hold(key >= at, "keys ascend", at, key)
                    entry = self.entries.get(key)
                    hold(entry is not None, "a key in order has an entry", key)
                    if entry is not None:
                        hold(is_alive(entry) == is_live, "live or dead", key, is_live)
                        if not isinstance(entry, int):
                            _check(key, entry)
                    at = key + b"\0"
                yield


def _check(key: bytes, entry: bytes | bytearray) -> None:
    count = (len(entry) - _HEAD_BYTES) // _RECORD_BYTES
    _, _, start = _HEAD.unpack_from(entry)
    records = [_record(entry, n) for n in range(count)]
    hold(bool(records), "an entry has records", key)
    hold(records == sorted(set(records)), "records ascend", key, records)
    tombs = [n for n, (_, mark) in enumerate(records) if mark & 1]
    hold(start == (tombs[-1] + 1 if tombs else 0), "start of a generation", key, start, tombs)
