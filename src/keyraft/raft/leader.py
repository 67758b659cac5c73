"""What a leader does with each message. It ignores a type that has no key here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from keyraft.raft import election, membership, reads, replication
from keyraft.raft.config import ReadOnlyOption
from keyraft.raft.errors import ProposalDroppedError
from keyraft.raft.progress import PROBE, REPLICATE, SNAPSHOT, Progress
from keyraft.raft.types import NO_NODE, Message, MessageType

if TYPE_CHECKING:
    from keyraft.raft.core import Raft

_TIMEOUT_NOW = MessageType.TIMEOUT_NOW.value


# --- messages about no single member --------------------------------------------------------------


def _on_beat(raft: Raft, message: Message) -> None:
    replication.broadcast_heartbeat(raft)


def _on_check_quorum(raft: Raft, message: Message) -> None:
    """Steps down unless a quorum was heard of since the last check (Raft thesis §6.2)."""
    if not raft.tracker.is_quorum_active():
        raft.logger.warn(f"{raft.id:x} stepped down to follower since quorum is not active")
        election.become_follower(raft, raft.term, NO_NODE)
    for _, progress in raft.tracker.others(raft.id):
        progress.recent_active = False


def check_may_propose(raft: Raft) -> None:
    """Raises ProposalDroppedError when this leader takes no proposals."""
    if raft.id not in raft.tracker.progress:
        # It was removed while it led.
        raise ProposalDroppedError
    if raft.lead_transferee:
        raft.logger.debug(
            f"{raft.id:x} [term {raft.term}] transfer leadership to {raft.lead_transferee:x} "
            "is in progress; dropping proposal"
        )
        raise ProposalDroppedError


def _on_propose(raft: Raft, message: Message) -> None:
    entries = message.entries
    if not entries:
        # DEVIATION: etcd's library panics on a peer's empty proposal.
        raise ProposalDroppedError
    check_may_propose(raft)
    entries = membership.check_proposed(raft, entries)
    if not replication.append_entries(raft, entries):
        raise ProposalDroppedError
    replication.broadcast_append(raft)


def propose_data(raft: Raft, datas: list[bytes]) -> None:
    """The same for normal entries of the member's own, without a message around them."""
    check_may_propose(raft)
    if not replication.append_data(raft, datas):
        raise ProposalDroppedError
    replication.broadcast_append(raft)


def _on_forget_leader(raft: Raft, message: Message) -> None:
    """A leader does not forget itself."""


# --- messages about the member that sent them -----------------------------------------------------


def _on_append_response(raft: Raft, message: Message, progress: Progress) -> None:
    progress.recent_active = True
    if message.reject:
        _on_rejection(raft, message, progress)
        return
    index = message.index
    if index > raft.log.last_index():
        # DEVIATION: etcd's library believes it, and panics when it looks for the next entry.
        raft.logger.error(
            f"{raft.id:x} invalid MsgAppResp from {message.from_:x} for index {index} "
            "behind the end of the log"
        )
        return
    if not progress.maybe_update(index) and not (
        progress.match == index and progress.state == PROBE
    ):
        return
    from_ = message.from_
    if progress.state == PROBE:
        progress.become_replicate()
    elif progress.state == SNAPSHOT:
        # The member may have applied a snapshot that came from elsewhere. It will do if this
        # leader's log continues from there.
        if progress.match + 1 >= raft.log.first_index():
            raft.logger.debug(
                f"{raft.id:x} recovered from needing snapshot, resumed sending replication "
                f"messages to {from_:x} [{progress}]"
            )
            progress.become_probe()
            progress.become_replicate()
    else:
        progress.inflights.free_to(index)
    if replication.maybe_commit(raft):
        reads.release_pending(raft)
        replication.broadcast_append(raft)
    elif from_ != raft.id and progress.can_bump_commit(raft.log.committed):
        replication.send_append(raft, from_, progress)
    if from_ == raft.id:
        return
    # The window may have room again: fill it, but send no empty appends.
    while replication.send_append(raft, from_, progress, even_if_empty=False):
        pass
    if from_ == raft.lead_transferee and progress.match == raft.log.last_index():
        raft.logger.info(f"{raft.id:x} sent MsgTimeoutNow to {from_:x} after received MsgAppResp")
        raft.send(Message(_TIMEOUT_NOW, to=from_))


def _on_rejection(raft: Raft, message: Message, progress: Progress) -> None:
    """Goes back to where the logs may meet, skipping whole terms by the follower's hint (§3.5).

    The follower names its last possible (index, term). No entry of the leader's with a later term
    can be in the follower's log at or before that index, so the search goes on before them.
    """
    from_ = message.from_
    raft.logger.debug(
        f"{raft.id:x} received MsgAppResp(rejected, hint: (index {message.reject_hint}, "
        f"term {message.log_term})) from {from_:x} for index {message.index}"
    )
    probe = message.reject_hint
    if message.log_term > 0:
        probe, _ = raft.log.find_conflict_by_term(probe, message.log_term)
    if progress.maybe_decrease_to(message.index, probe):
        raft.logger.debug(f"{raft.id:x} decreased progress of {from_:x} to [{progress}]")
        if progress.state == REPLICATE:
            progress.become_probe()
        replication.send_append(raft, from_, progress)


def _on_heartbeat_response(raft: Raft, message: Message, progress: Progress) -> None:
    progress.recent_active = True
    progress.flow_paused = False
    # With a full window the append is empty, and gets replication going if everything in flight
    # was lost; a member in PROBE needs one even when nothing is missing.
    if progress.match < raft.log.last_index() or progress.state == PROBE:
        replication.send_append(raft, message.from_, progress)
    if raft.read_only_option == ReadOnlyOption.SAFE and message.context:
        reads.on_heartbeat_ack(raft, message)


def _on_snapshot_status(raft: Raft, message: Message, progress: Progress) -> None:
    if progress.state != SNAPSHOT:
        return
    if message.reject:
        # The snapshot never arrived: probe from the last index that matched, not from behind the
        # snapshot.
        progress.pending_snapshot = 0
    progress.become_probe()
    raft.logger.debug(
        f"{raft.id:x} snapshot {'failed' if message.reject else 'succeeded'}, "
        f"resumed sending replication messages to {message.from_:x} [{progress}]"
    )
    # The next append waits for the member's answer, or for a heartbeat's.
    progress.flow_paused = True


def _on_unreachable(raft: Raft, message: Message, progress: Progress) -> None:
    if progress.state == REPLICATE:
        # The appends that were sent ahead are probably lost.
        progress.become_probe()
    raft.logger.debug(
        f"{raft.id:x} failed to send message to {message.from_:x} "
        f"because it is unreachable [{progress}]"
    )


def _on_transfer_leader(raft: Raft, message: Message, progress: Progress) -> None:
    """Brings the member up to date, then tells it to campaign at once (Raft thesis §3.10)."""
    logger = raft.logger
    if progress.is_learner:
        logger.debug(f"{raft.id:x} is learner. Ignored transferring leadership")
        return
    to = message.from_
    if raft.lead_transferee:
        if raft.lead_transferee == to:
            logger.info(
                f"{raft.id:x} [term {raft.term}] transfer leadership to {to:x} is in progress, "
                f"ignores request to same node {to:x}"
            )
            return
        former = raft.lead_transferee
        raft.lead_transferee = NO_NODE
        logger.info(
            f"{raft.id:x} [term {raft.term}] abort previous transferring leadership to {former:x}"
        )
    if to == raft.id:
        logger.debug(f"{raft.id:x} is already leader. Ignored transferring leadership to self")
        return
    logger.info(f"{raft.id:x} [term {raft.term}] starts to transfer leadership to {to:x}")
    # It must be done within an election timeout, or is given up.
    raft.election_elapsed = 0
    raft.lead_transferee = to
    if progress.match == raft.log.last_index():
        raft.send(Message(_TIMEOUT_NOW, to=to))
        logger.info(
            f"{raft.id:x} sends MsgTimeoutNow to {to:x} immediately "
            f"as {to:x} already has up-to-date log"
        )
    else:
        replication.send_append(raft, to, progress)


_GENERAL: dict[int, Callable[[Raft, Message], None]] = {
    MessageType.BEAT.value: _on_beat,
    MessageType.CHECK_QUORUM.value: _on_check_quorum,
    MessageType.PROP.value: _on_propose,
    MessageType.READ_INDEX.value: reads.on_request,
    MessageType.FORGET_LEADER.value: _on_forget_leader,
}
_OF_MEMBER: dict[int, Callable[[Raft, Message, Progress], None]] = {
    MessageType.APP_RESP.value: _on_append_response,
    MessageType.HEARTBEAT_RESP.value: _on_heartbeat_response,
    MessageType.SNAP_STATUS.value: _on_snapshot_status,
    MessageType.UNREACHABLE.value: _on_unreachable,
    MessageType.TRANSFER_LEADER.value: _on_transfer_leader,
}


def step(raft: Raft, message: Message) -> None:
    """One message of this term, or a local one; raises ProposalDroppedError."""
    general = _GENERAL.get(message.type)
    if general is not None:
        general(raft, message)
        return
    progress = raft.tracker.progress.get(message.from_)
    if progress is None:
        raft.logger.debug(f"{raft.id:x} no progress available for {message.from_:x}")
        return
    handler = _OF_MEMBER.get(message.type)
    if handler is not None:
        handler(raft, message, progress)
