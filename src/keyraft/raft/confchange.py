"""From one configuration to the next: simple changes, and into and out of joint consensus.

A simple change alters at most one voter, so that old and new majorities overlap (Raft thesis
§4.1). Everything else goes through a joint configuration that needs both majorities (§4.3):

    (1 2 3)  --enter_joint: +4 -1-->  (2 3 4)&&(1 2 3)  --leave_joint-->  (2 3 4)

A voter that is to become a learner stays a voter of the outgoing half until that is left, and
waits in `learners_next`. The current configuration is never altered: each function returns a new
one with its progress, or raises ConfChangeError.
"""

from __future__ import annotations

from collections.abc import Iterable

from keyraft.raft.errors import ConfChangeError
from keyraft.raft.progress import Progress
from keyraft.raft.tracker import ProgressTracker, TrackerConfig
from keyraft.raft.types import ConfChangeSingle, ConfChangeType, ConfState

Result = tuple[TrackerConfig, dict[int, Progress]]


class Changer:
    """Works out the configuration that follows the tracker's; `last_index` is the log's last."""

    __slots__ = ("last_index", "tracker")

    def __init__(self, tracker: ProgressTracker, last_index: int) -> None:
        self.tracker = tracker
        self.last_index = last_index

    def enter_joint(self, auto_leave: bool, changes: Iterable[ConfChangeSingle]) -> Result:
        """The changes on the incoming half, the present voters as the outgoing one."""
        config, progress = self._copy()
        if config.is_joint():
            raise ConfChangeError("config is already joint")
        if not config.voters.incoming:
            raise ConfChangeError("can't make a zero-voter config joint")
        config.voters.outgoing = set(config.voters.incoming)
        self._apply(config, progress, changes)
        config.auto_leave = auto_leave
        return _checked(config, progress)

    def leave_joint(self) -> Result:
        """The incoming half alone; who was waiting to become a learner is one now."""
        config, progress = self._copy()
        if not config.is_joint():
            raise ConfChangeError("can't leave a non-joint config")
        for node_id in config.learners_next:
            config.learners.add(node_id)
            progress[node_id].is_learner = True
        config.learners_next = set()
        for node_id in config.voters.outgoing:
            if node_id not in config.voters.incoming and node_id not in config.learners:
                del progress[node_id]
        config.voters.outgoing = set()
        config.auto_leave = False
        return _checked(config, progress)

    def simple(self, changes: Iterable[ConfChangeSingle]) -> Result:
        """Changes that alter at most one voter between them."""
        config, progress = self._copy()
        if config.is_joint():
            raise ConfChangeError("can't apply simple config change in joint config")
        self._apply(config, progress, changes)
        before = self.tracker.config.voters.incoming
        if len(before ^ config.voters.incoming) > 1:
            raise ConfChangeError("more than one voter changed without entering joint config")
        return _checked(config, progress)

    def _copy(self) -> Result:
        config = self.tracker.config.copy()
        progress = {node_id: pr.copy() for node_id, pr in self.tracker.progress.items()}
        return _checked(config, progress)

    def _apply(
        self,
        config: TrackerConfig,
        progress: dict[int, Progress],
        changes: Iterable[ConfChangeSingle],
    ) -> None:
        for change in changes:
            node_id = change.node_id
            if not node_id:
                # The application cancelled this change after it was committed: it cleared the id.
                continue
            if change.type == ConfChangeType.ADD_NODE:
                self._make_voter(config, progress, node_id)
            elif change.type == ConfChangeType.ADD_LEARNER_NODE:
                self._make_learner(config, progress, node_id)
            elif change.type == ConfChangeType.REMOVE_NODE:
                _remove(config, progress, node_id)
            elif change.type != ConfChangeType.UPDATE_NODE:
                raise ConfChangeError(f"unexpected conf type {change.type}")
        if not config.voters.incoming:
            raise ConfChangeError("removed all voters")

    def _make_voter(
        self, config: TrackerConfig, progress: dict[int, Progress], node_id: int
    ) -> None:
        pr = progress.get(node_id)
        config.voters.incoming.add(node_id)
        if pr is None:
            progress[node_id] = self._new_progress(is_learner=False)
            return
        pr.is_learner = False
        config.learners.discard(node_id)
        config.learners_next.discard(node_id)

    def _make_learner(
        self, config: TrackerConfig, progress: dict[int, Progress], node_id: int
    ) -> None:
        pr = progress.get(node_id)
        if pr is None:
            config.learners.add(node_id)
            progress[node_id] = self._new_progress(is_learner=True)
            return
        if pr.is_learner:
            return
        _remove(config, progress, node_id)
        progress[node_id] = pr
        if node_id in config.voters.outgoing:
            config.learners_next.add(node_id)
        else:
            pr.is_learner = True
            config.learners.add(node_id)

    def _new_progress(self, is_learner: bool) -> Progress:
        # The leader probes the new member from the end of its own log. The member counts as active;
        # otherwise the next quorum check could depose the leader before the member had time to
        # answer.
        return Progress(
            match=0,
            next=max(self.last_index, 1),
            inflights=self.tracker.new_inflights(),
            is_learner=is_learner,
            recent_active=True,
        )


def _remove(config: TrackerConfig, progress: dict[int, Progress], node_id: int) -> None:
    if node_id not in progress:
        return
    config.voters.incoming.discard(node_id)
    config.learners.discard(node_id)
    config.learners_next.discard(node_id)
    if node_id not in config.voters.outgoing:
        del progress[node_id]


def check_config(config: TrackerConfig, progress: dict[int, Progress]) -> None:
    """Raises ConfChangeError when configuration and progress contradict each other.

    The empty configuration is allowed: it is what a member starts from.
    """
    for ids in (config.voters.ids(), config.learners, config.learners_next):
        for node_id in sorted(ids):
            if node_id not in progress:
                raise ConfChangeError(f"no progress for {node_id}")
    for node_id in sorted(config.learners_next):
        if node_id not in config.voters.outgoing:
            raise ConfChangeError(f"{node_id} is in LearnersNext, but not Voters[1]")
        if progress[node_id].is_learner:
            raise ConfChangeError(f"{node_id} is in LearnersNext, but is already marked as learner")
    for node_id in sorted(config.learners):
        if node_id in config.voters.outgoing:
            raise ConfChangeError(f"{node_id} is in Learners and Voters[1]")
        if node_id in config.voters.incoming:
            raise ConfChangeError(f"{node_id} is in Learners and Voters[0]")
        if not progress[node_id].is_learner:
            raise ConfChangeError(f"{node_id} is in Learners, but is not marked as learner")
    if not config.is_joint():
        if config.learners_next:
            raise ConfChangeError("cfg.LearnersNext must be nil when not joint")
        if config.auto_leave:
            raise ConfChangeError("AutoLeave must be false when not joint")


def _checked(config: TrackerConfig, progress: dict[int, Progress]) -> Result:
    check_config(config, progress)
    return config, progress


def restore(tracker: ProgressTracker, last_index: int, state: ConfState) -> Result:
    """The configuration that `state` describes, worked out from an empty tracker.

    The outgoing voters are added one by one, then the joint configuration is entered with the
    changes that lead to the incoming half; without outgoing voters each change is a simple one.
    """
    add, remove = ConfChangeType.ADD_NODE, ConfChangeType.REMOVE_NODE
    learner = ConfChangeType.ADD_LEARNER_NODE
    outgoing = [ConfChangeSingle(add, node_id) for node_id in state.voters_outgoing]
    incoming = [ConfChangeSingle(remove, node_id) for node_id in state.voters_outgoing]
    incoming += [ConfChangeSingle(add, node_id) for node_id in state.voters]
    incoming += [ConfChangeSingle(learner, node_id) for node_id in state.learners]
    incoming += [ConfChangeSingle(learner, node_id) for node_id in state.learners_next]

    scratch = ProgressTracker(tracker.inflight_messages_max, tracker.inflight_bytes_max)

    for change in outgoing or incoming:
        scratch.switch_to(*Changer(scratch, last_index).simple([change]))
    if outgoing:
        scratch.switch_to(*Changer(scratch, last_index).enter_joint(state.auto_leave, incoming))
    return scratch.config, scratch.progress
