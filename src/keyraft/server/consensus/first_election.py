"""Shortens the first election timeout of a starting member (`--initial-election-tick-advance`).

A member that starts knows no leader, and would wait a whole election timeout before it asks for
votes: in a cluster of several regions that may be minutes. So once the members that it needs for a
quorum are connected, all but two ticks of that time are passed at once. The two that are left let
the heartbeat of a leader come (etcd `adjustTicks`).

DEVIATION: the original passes the ticks when two others are connected, whatever the cluster's size,
and although a leader is known already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyraft.server.member import Member

LOOK_S: Final = 0.05
WAIT_S: Final = 5.0  # then it is no start any more
LEFT_TICKS: Final = 2


def hasten_first_election(member: Member) -> None:
    """Begins to look; the member has just been started."""
    if member.settings.election_ticks > LEFT_TICKS:
        _look(member, member.loop.time() + WAIT_S)


def _look(member: Member, end_s: float) -> None:
    if member.stopped or member.leadership.leader or member.loop.time() > end_s:
        return
    others = [voter for voter in member.membership.state.voters if _is_active(member, voter)]
    if not others or len(others) + 1 < len(member.membership.state.voters) // 2 + 1:
        member.loop.call_later(LOOK_S, _look, member, end_s)
        return
    ticks = member.settings.election_ticks - LEFT_TICKS
    member.logger.info(
        "initialized peer connections; fast-forwarding election ticks",
        local_member_id=f"{member.settings.member_id:x}",
        forward_ticks=ticks,
        election_ticks=member.settings.election_ticks,
        active_remote_members=len(others),
    )
    for _ in range(ticks):
        member.raft.tick()


def _is_active(member: Member, voter: int) -> bool:
    own = member.settings.member_id
    return voter != own and member.network.active_since(voter) is not None
