"""Roles, and what a member tells of itself that is not on disk."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

CAMPAIGN_TRANSFER: Final = b"CampaignTransfer"  # context of votes that override a lease (§3.10)


class StateType(IntEnum):
    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    PRE_CANDIDATE = 3

    def __str__(self) -> str:
        return _NAMES[self]


_NAMES = {
    StateType.FOLLOWER: "StateFollower",
    StateType.CANDIDATE: "StateCandidate",
    StateType.LEADER: "StateLeader",
    StateType.PRE_CANDIDATE: "StatePreCandidate",
}


class SoftState:
    """Who leads and what this member is: worth knowing, not worth a disk write."""

    __slots__ = ("lead", "state")

    def __init__(self, lead: int, state: StateType) -> None:
        self.lead = lead
        self.state = state

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SoftState) and (
            (self.lead, self.state) == (other.lead, other.state)
        )

    def __repr__(self) -> str:
        return f"SoftState(lead={self.lead:x}, state={self.state})"

    __hash__ = None  # type: ignore[assignment]
