"""What one user may do, worked out of its roles, and what was found out about its leases."""

from __future__ import annotations

from typing import Final, TypeVar

from keyraft.auth.ranges import Ranges

REMEMBERED_LEASES_MAX: Final = 4_096  # of one user

T = TypeVar("T")


def _anything(_: bytes) -> bool:
    """Root's answer."""
    return True


class Grants:
    """Until users or roles change."""

    __slots__ = ("is_root", "looked", "may_read", "may_write", "read", "refused", "write")

    def __init__(self, is_root: bool, read: Ranges, write: Ranges) -> None:
        self.is_root = is_root
        self.read = read
        self.write = write
        self.may_read = _anything if is_root else read.has  # of one key
        self.may_write = _anything if is_root else write.has
        # Of leases with many keys, by their number and whether it was to write: how many of the
        # keys attached so far it may reach all of; and one key that it may not.
        self.looked: dict[tuple[int, bool], int] = {}
        self.refused: dict[tuple[int, bool], bytes] = {}

    def remember(self, where: dict[tuple[int, bool], T], place: tuple[int, bool], what: T) -> None:
        """Notes what was found about a lease."""
        if len(where) >= REMEMBERED_LEASES_MAX:
            where.clear()
        where[place] = what

    def same(self, other: Grants) -> bool:
        """Whether both allow the same."""
        return (
            self.is_root == other.is_root
            and self.read.same(other.read)
            and self.write.same(other.write)
        )
