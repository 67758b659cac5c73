"""How much is stored under which prefix: one walk over the rows, in steps (docs/USAGE.md).

Invariants: `total` is the sum of `groups` and `others`; a step ends after about `STEP_ROWS` rows, each
4 KiB of a value counted as one more.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from ..base.invariants import hold
from .backend import KEY
from .index import Entry
from .read import VALUE_SHIFT
from .revision import first_key
from .wire import stored_key

if TYPE_CHECKING:
    from .store import Store

STEP_ROWS: Final = 200
GROUPS_MAX: Final = 4_096
_ROW_BYTES: Final = 17  # of a row's name; a tombstone's has one more
_RECORD: Final = Struct(">qI")
_NUMBERS: Final = Struct(">qxq")


class PrefixRows:
    """What the walk has seen of one prefix."""

    __slots__ = ("bytes", "history_bytes", "keys", "recent", "revisions")

    def __init__(self) -> None:
        self.keys = 0
        self.bytes = 0
        self.history_bytes = 0
        self.revisions = 0
        self.recent = 0
        """Revisions written since the walk began."""

    @property
    def size(self) -> int:
        """All bytes."""
        return self.bytes + self.history_bytes

    def add(self, other: PrefixRows) -> None:
        """Adds what is counted in another."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def group_of(key: bytes, depth: int) -> bytes:
    """The key up to its `depth`th slash, or to its last; a leading slash is not counted."""
    at = 1 if key[:1] == b"/" else 0
    end = at
    for _ in range(depth):
        found = key.find(b"/", end)
        if found < 0:
            break
        end = found + 1
    return key[:end]


class UsageWalk:
    """One walk; `step` until `done`, then once more for what was written meanwhile."""

    __slots__ = (
        "_at",
        "_depth",
        "_lives",
        "_prefix",
        "_store",
        "begun_at",
        "groups",
        "others",
        "until",
    )

    def __init__(self, store: Store, prefix: bytes, depth: int) -> None:
        self._store = store
        self._prefix = prefix
        self._depth = depth
        self._begin()

    def _begin(self) -> None:
        self.groups: dict[bytes, PrefixRows] = {}
        self.others = PrefixRows()
        self._at = b""
        self._lives = self._store.lives
        self.begun_at = self.until = self._store.revision

    def go_on(self) -> None:
        """From now on up to the present revision."""
        self.until = self._store.revision

    def step(self) -> bool:
        """Looks at some rows; whether all up to `until` have been seen."""
        store = self._store
        if store.lives != self._lives:  # a leader's database has replaced all of it
            self._begin()
        left, rows = STEP_ROWS, 0
        entries, prefix, begun_at = store.index.entries, self._prefix, self.begun_at
        at = self._at
        for row, stored in store.backend.range(KEY, at, first_key(self.until + 1), STEP_ROWS):
            at = row + b"\0"
            rows += 1
            size = len(stored)
            left -= 1 + (size >> VALUE_SHIFT)
            key = stored_key(stored)
            if key.startswith(prefix):
                group = self._group(key)
                main, sub = _NUMBERS.unpack_from(row)
                group.revisions += 1
                if main > begun_at:
                    group.recent += 1
                if len(row) == _ROW_BYTES and is_present(entries.get(key), main, sub):
                    group.keys += 1
                    group.bytes += size + _ROW_BYTES
                else:
                    group.history_bytes += size + len(row)
            if left <= 0:
                self._at = at
                return False
        self._at = at
        return rows < STEP_ROWS

    def _group(self, key: bytes) -> PrefixRows:
        name = group_of(key, self._depth)
        group = self.groups.get(name)
        if group is None:
            if len(self.groups) >= GROUPS_MAX:
                self._fold()
            group = self.groups[name] = PrefixRows()
        return group

    def _fold(self) -> None:
        """Puts the smaller half together."""
        ordered = sorted(self.groups, key=lambda name: self.groups[name].size)
        for name in ordered[: len(ordered) // 2]:
            self.others.add(self.groups.pop(name))

    def largest(self, top: int) -> tuple[list[tuple[bytes, PrefixRows]], PrefixRows, PrefixRows]:
        """The largest `top` prefixes, all others together, and the total."""
        ordered = sorted(self.groups.items(), key=lambda item: (-item[1].size, item[0]))
        others, total = PrefixRows(), PrefixRows()
        others.add(self.others)
        for _, group in ordered[top:]:
            others.add(group)
        total.add(others)
        for _, group in ordered[:top]:
            total.add(group)
        return ordered[:top], others, total

    def check(self) -> None:
        """The bounds; raises InvariantError."""
        hold(len(self.groups) <= GROUPS_MAX, "prefixes are bounded", len(self.groups))


def is_present(entry: Entry | None, main: int, sub: int) -> bool:
    """Whether the row of this revision is what its key is now."""
    if entry is None:
        return False
    if isinstance(entry, int):
        return entry == main and not sub
    return bytes(entry[-_RECORD.size :]) == _RECORD.pack(main, sub << 1)
