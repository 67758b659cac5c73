"""The active configuration, and the progress and votes of everybody in it.

Invariants: a learner is no voter, in neither half; a member of `learners_next` is a voter of the
outgoing half that becomes a learner when the joint configuration is left (Raft thesis §4.2.1,
§4.3); everybody has a Progress; auto_leave is only set in a joint configuration.
"""

from __future__ import annotations

from collections.abc import Iterator

from keyraft.raft.progress import Inflights, Progress
from keyraft.raft.quorum import JointConfig, VoteResult, format_ids
from keyraft.raft.types import ConfState


class TrackerConfig:
    """Who votes and who listens."""

    __slots__ = ("auto_leave", "learners", "learners_next", "voters")

    def __init__(self) -> None:
        self.voters = JointConfig()
        self.auto_leave = False
        self.learners: set[int] = set()
        self.learners_next: set[int] = set()

    def is_joint(self) -> bool:
        """Whether two majorities are needed."""
        return bool(self.voters.outgoing)

    def copy(self) -> TrackerConfig:
        """One that shares nothing with this one."""
        other = TrackerConfig()
        other.voters = self.voters.copy()
        other.auto_leave = self.auto_leave
        other.learners = set(self.learners)
        other.learners_next = set(self.learners_next)
        return other

    def conf_state(self) -> ConfState:
        """The same as snapshots carry it, ids ascending."""
        return ConfState(
            voters=sorted(self.voters.incoming),
            learners=sorted(self.learners),
            voters_outgoing=sorted(self.voters.outgoing),
            learners_next=sorted(self.learners_next),
            auto_leave=self.auto_leave,
        )

    def __str__(self) -> str:
        text = f"voters={self.voters}"
        if self.learners:
            text += f" learners={format_ids(self.learners)}"
        if self.learners_next:
            text += f" learners_next={format_ids(self.learners_next)}"
        if self.auto_leave:
            text += " autoleave"
        return text


class ProgressTracker:
    """The configuration with what the leader knows of each member."""

    __slots__ = (
        "config",
        "inflight_bytes_max",
        "inflight_messages_max",
        "order",
        "progress",
        "votes",
    )

    def __init__(self, inflight_messages_max: int, inflight_bytes_max: int = 0) -> None:
        self.inflight_messages_max = inflight_messages_max
        self.inflight_bytes_max = inflight_bytes_max
        self.config = TrackerConfig()
        self.progress: dict[int, Progress] = {}
        self.order: list[int] = []  # the ids of `progress`, ascending
        self.votes: dict[int, bool] = {}

    def switch_to(self, config: TrackerConfig, progress: dict[int, Progress]) -> None:
        """From now on this configuration holds."""
        self.config = config
        self.progress = progress
        self.order = sorted(progress)

    def new_inflights(self) -> Inflights:
        """An empty window of the configured size."""
        return Inflights(self.inflight_messages_max, self.inflight_bytes_max)

    def others(self, own_id: int) -> Iterator[tuple[int, Progress]]:
        """Everybody but `own_id`, by ascending id."""
        for node_id in self.order:
            if node_id != own_id:
                yield node_id, self.progress[node_id]

    def is_only_voter(self, node_id: int) -> bool:
        """Whether this member decides alone."""
        voters = self.config.voters
        return len(voters.incoming) == 1 and not voters.outgoing and node_id in voters.incoming

    def acked(self, node_id: int) -> int | None:
        """How far a member's log is known to match."""
        progress = self.progress.get(node_id)
        return None if progress is None else progress.match

    def committed(self) -> int:
        """The largest index that a quorum holds."""
        return self.config.voters.committed(self.acked)

    def is_quorum_active(self) -> bool:
        """Whether a quorum was heard of lately."""
        votes = {
            node_id: progress.recent_active
            for node_id, progress in self.progress.items()
            if not progress.is_learner
        }
        return self.config.voters.vote_result(votes) == VoteResult.WON

    def reset_votes(self) -> None:
        """A new election."""
        self.votes = {}

    def record_vote(self, node_id: int, granted: bool) -> None:
        """The first answer of a member counts."""
        self.votes.setdefault(node_id, granted)

    def tally_votes(self) -> tuple[int, int, VoteResult]:
        """Votes granted, votes refused, and how the election stands."""
        granted = refused = 0
        for node_id, progress in self.progress.items():
            if not progress.is_learner:
                vote = self.votes.get(node_id)
                if vote:
                    granted += 1
                elif vote is not None:
                    refused += 1
        return granted, refused, self.config.voters.vote_result(self.votes)


def format_progress(progress: dict[int, Progress]) -> str:
    """One line a member, by ascending id."""
    return "".join(f"{node_id}: {progress[node_id]}\n" for node_id in sorted(progress))
