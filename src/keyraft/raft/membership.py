"""Changes of the configuration: checked when proposed, applied, and left when joint.

A configuration takes effect when its entry is applied, and only one change may be on its way from
proposal to application (Raft thesis §4.1; etcd-io/raft departs from the thesis here, where a
configuration takes effect when it is appended).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.raft import codec, election, replication
from keyraft.raft.confchange import Changer, Result
from keyraft.raft.describe import describe_conf_change
from keyraft.raft.errors import FatalError, ProposalDroppedError
from keyraft.raft.limits import MEMBERS_MAX
from keyraft.raft.progress import Progress
from keyraft.raft.state import StateType
from keyraft.raft.tracker import TrackerConfig
from keyraft.raft.types import (
    NO_NODE,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    is_local_target,
)

if TYPE_CHECKING:
    from keyraft.raft.core import Raft

_PROP = MessageType.PROP.value


def decode_change(entry: Entry) -> ConfChangeV2 | None:
    """The change that an entry carries, None for a normal entry; raises CodecError."""
    if entry.type == EntryType.CONF_CHANGE:
        return codec.decode_conf_change(entry.data).as_v2()
    if entry.type == EntryType.CONF_CHANGE_V2:
        return codec.decode_conf_change_v2(entry.data)
    return None


def check_proposed(raft: Raft, entries: list[Entry]) -> list[Entry]:
    """The entries with every change that cannot be made now replaced by an empty entry.

    Raises ProposalDroppedError for bytes that are no change.
    """
    for position, entry in enumerate(entries):
        if not entry.type:
            continue
        change = readable_change(entry)
        if change is None:
            # DEVIATION: etcd's leader panics on a proposal that is no configuration change; one
            # that it could not apply would stop every member once committed.
            raise ProposalDroppedError
        problem = _problem(raft, change)
        if problem and not raft.disable_conf_change_validation:
            raft.logger.info(
                f"{raft.id:x} ignoring conf change {describe_conf_change(change)} "
                f"at config {raft.tracker.config}: {problem}"
            )
            entries = [*entries[:position], Entry(), *entries[position + 1 :]]
        else:
            raft.pending_conf_index = raft.log.last_index() + position + 1
    return entries


def readable_change(entry: Entry) -> ConfChangeV2 | None:
    """The change that an entry other than a normal one carries, None when no member can make it.

    Empty data is a change only in the V2 form: it leaves a joint configuration.
    """
    try:
        change = decode_change(entry)
    except codec.CodecError:
        return None
    if change is None or not (entry.data or entry.type == EntryType.CONF_CHANGE_V2):
        return None
    if change.transition > ConfChangeTransition.JOINT_EXPLICIT:
        return None
    for single in change.changes:
        if single.type > ConfChangeType.ADD_LEARNER_NODE or is_local_target(single.node_id):
            return None
    return change


def _problem(raft: Raft, change: ConfChangeV2) -> str:
    """Why the change cannot be proposed now; empty when it can."""
    is_joint = raft.tracker.config.is_joint()
    if raft.pending_conf_index > raft.log.applied:
        return (
            f"possible unapplied conf change at index {raft.pending_conf_index} "
            f"(applied to {raft.log.applied})"
        )
    if is_joint and change.changes:
        return "must transition out of joint config first"
    if not is_joint and not change.changes:
        return "not in joint state; refusing empty conf change"
    if len(raft.tracker.progress) + len(change.changes) > MEMBERS_MAX:
        return f"a cluster has at most {MEMBERS_MAX} members"
    return ""


def apply(raft: Raft, change: ConfChangeV2, index: int = 0) -> ConfState:
    """Makes the change that was committed; raises ConfChangeError when it cannot be made.

    `index` is the index of its entry, if the caller knows it. A change that is older than the
    snapshot from which the configuration was restored is in the configuration already, and is left
    out.
    """
    if 0 < index <= raft.conf_snapshot_index:
        return raft.tracker.config.conf_state()
    changer = Changer(raft.tracker, raft.log.last_index())
    result: Result
    if change.leaves_joint():
        result = changer.leave_joint()
    elif change.enters_joint():
        result = changer.enter_joint(change.auto_leave(), change.changes)
    else:
        result = changer.simple(change.changes)
    return switch_to(raft, *result)


def switch_to(raft: Raft, config: TrackerConfig, progress: dict[int, Progress]) -> ConfState:
    """From now on this configuration holds; the leader acts on what that changes."""
    tracker = raft.tracker
    tracker.switch_to(config, progress)
    raft.logger.info(f"{raft.id:x} switched to configuration {config}")
    conf_state = config.conf_state()
    own = progress.get(raft.id)
    raft.is_learner = own is not None and own.is_learner
    if (own is None or raft.is_learner) and raft.state == StateType.LEADER:
        if raft.step_down_on_removal:
            election.become_follower(raft, raft.term, NO_NODE)
        return conf_state
    if raft.state != StateType.LEADER or not conf_state.voters:
        return conf_state
    if replication.maybe_commit(raft):
        # The new quorum may be smaller than the old one.
        replication.broadcast_append(raft)
    else:
        for node_id, pr in tracker.others(raft.id):
            replication.send_append(raft, node_id, pr, even_if_empty=False)
    if raft.lead_transferee and raft.lead_transferee not in config.voters.ids():
        raft.lead_transferee = NO_NODE
    return conf_state


def applied_to(raft: Raft, index: int) -> None:
    """Everything up to `index` is applied; a leader proposes to leave a joint configuration.

    Tried again at each call, because the proposal is dropped while leadership is transferred.
    """
    log = raft.log
    log.applied_to(max(index, log.applied))
    config = raft.tracker.config
    if not (
        config.auto_leave
        and log.applied >= raft.pending_conf_index
        and raft.state == StateType.LEADER
    ):
        return
    try:
        raft.step(Message(_PROP, entries=[Entry(type=EntryType.CONF_CHANGE_V2.value)]))
    except ProposalDroppedError as error:
        raft.logger.debug(
            "not initiating automatic transition out of joint configuration "
            f"{raft.tracker.config}: {error}"
        )
    else:
        raft.logger.info(
            f"initiating automatic transition out of joint configuration {raft.tracker.config}"
        )


def restore_from(raft: Raft, state: ConfState, result: Result) -> None:
    """Takes over the configuration worked out from `state`, which it must agree with."""
    switched = switch_to(raft, *result)
    if not state.is_equivalent(switched):
        raise FatalError(f"ConfStates not equivalent after sorting:\n{state}\n{switched}")
