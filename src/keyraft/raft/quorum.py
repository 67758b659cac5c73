"""Majorities, alone and joint: what index is committed, and how a vote stands.

A joint configuration decides only what both of its majorities decide (Raft thesis §4.3). An empty
majority agrees to everything, so that a joint configuration whose one half is empty behaves like
the other half alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import IntEnum
from typing import Final

from keyraft.base.ids import UINT64_MAX

EVERYTHING: Final = UINT64_MAX  # the committed index of an empty majority

# The index a voter has acknowledged, or None when nothing is known of it.
AckedIndex = Callable[[int], int | None]


class VoteResult(IntEnum):
    PENDING = 1
    LOST = 2
    WON = 3

    def __str__(self) -> str:
        return f"Vote{self.name.capitalize()}"


def majority_committed(voters: Collection[int], acked: AckedIndex) -> int:
    """The largest index that more than half of the voters have acknowledged."""
    count = len(voters)
    if not count:
        return EVERYTHING
    indexes = sorted([acked(voter) or 0 for voter in voters])
    return indexes[count - (count // 2 + 1)]


def majority_vote(voters: Collection[int], votes: Mapping[int, bool]) -> VoteResult:
    """Whether more than half said yes, can still do so, or cannot any more."""
    if not voters:
        return VoteResult.WON
    granted = missing = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote is None:
            missing += 1
        elif vote:
            granted += 1
    needed = len(voters) // 2 + 1
    if granted >= needed:
        return VoteResult.WON
    if granted + missing >= needed:
        return VoteResult.PENDING
    return VoteResult.LOST


def format_ids(ids: Collection[int]) -> str:
    """The ids in hexadecimal, ascending: `(1 2 a)`."""
    return f"({' '.join(f'{node_id:x}' for node_id in sorted(ids))})"


class JointConfig:
    """The voters of a configuration; `outgoing` is empty unless a change is under way."""

    __slots__ = ("incoming", "outgoing")

    def __init__(self, incoming: Collection[int] = (), outgoing: Collection[int] = ()) -> None:
        self.incoming = set(incoming)
        self.outgoing = set(outgoing)

    def __str__(self) -> str:
        if self.outgoing:
            return f"{format_ids(self.incoming)}&&{format_ids(self.outgoing)}"
        return format_ids(self.incoming)

    def ids(self) -> set[int]:
        """Everybody who votes in either half."""
        return self.incoming | self.outgoing

    def copy(self) -> JointConfig:
        """One that shares nothing with this one."""
        return JointConfig(self.incoming, self.outgoing)

    def committed(self, acked: AckedIndex) -> int:
        """The largest index that both majorities have acknowledged."""
        index = majority_committed(self.incoming, acked)
        if self.outgoing:
            return min(index, majority_committed(self.outgoing, acked))
        return index

    def vote_result(self, votes: Mapping[int, bool]) -> VoteResult:
        """Won when both halves won, lost as soon as one lost."""
        first = majority_vote(self.incoming, votes)
        second = majority_vote(self.outgoing, votes)
        if first == second:
            return first
        if VoteResult.LOST in (first, second):
            return VoteResult.LOST
        return VoteResult.PENDING
