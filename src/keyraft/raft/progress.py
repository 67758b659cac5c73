"""What the leader knows of one member's log, and how it may send to it.

    PROBE      one append at a time, until an answer shows where the logs meet
    REPLICATE  appends are sent ahead of their acknowledgements, within the in-flight window
    SNAPSHOT   nothing is sent until a snapshot has arrived

    PROBE --answer that matches--> REPLICATE --rejection, unreachable--> PROBE
    PROBE, REPLICATE --entries compacted away--> SNAPSHOT --applied--> PROBE --> REPLICATE

Invariants: 0 <= match < next; match never falls while the member leads; a window is never
overfilled. On entering SNAPSHOT next is pending_snapshot + 1 (a late rejection may lower it while
nothing is sent). Source: etcd-io/raft `tracker`; Raft thesis §3.5, §10.2.1.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from keyraft.raft.errors import FatalError


class ProgressState(IntEnum):
    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2

    def __str__(self) -> str:
        return f"State{self.name.capitalize()}"


PROBE = ProgressState.PROBE
REPLICATE = ProgressState.REPLICATE
SNAPSHOT = ProgressState.SNAPSHOT


class Inflights:
    """The appends sent and not yet acknowledged: at most `messages_max`, about `bytes_max`.

    `bytes_max` 0 means no limit. It is soft: the message that crosses it is still let through.
    """

    __slots__ = ("_messages", "bytes", "bytes_max", "messages_max")

    def __init__(self, messages_max: int, bytes_max: int = 0) -> None:
        self.messages_max = messages_max
        self.bytes_max = bytes_max
        self.bytes = 0
        self._messages: deque[tuple[int, int]] = deque()  # (last index, payload bytes)

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, index: int, size: int) -> None:
        """One more message is under way; its last entry is `index`. Indexes only rise."""
        assert not self.full(), f"{len(self._messages)} of {self.messages_max} in flight"
        self._messages.append((index, size))
        self.bytes += size

    def free_to(self, index: int) -> None:
        """Everything up to `index` has arrived."""
        messages = self._messages
        while messages and messages[0][0] <= index:
            self.bytes -= messages.popleft()[1]

    def full(self) -> bool:
        """Whether no further message may be sent."""
        return len(self._messages) >= self.messages_max or (0 < self.bytes_max <= self.bytes)

    def reset(self) -> None:
        """Nothing is under way any more."""
        self._messages.clear()
        self.bytes = 0

    def copy(self) -> Inflights:
        """One that shares nothing with this one."""
        other = Inflights(self.messages_max, self.bytes_max)
        other.bytes = self.bytes
        other._messages = self._messages.copy()
        return other


class Progress:
    """One member as the leader sees it; meaningful on a leader only."""

    __slots__ = (
        "flow_paused",
        "inflights",
        "is_learner",
        "match",
        "next",
        "pending_snapshot",
        "recent_active",
        "sent_commit",
        "state",
    )

    def __init__(
        self,
        match: int,
        next: int,
        inflights: Inflights,
        is_learner: bool = False,
        recent_active: bool = False,
    ) -> None:
        self.match = match  # its log is known to equal the leader's up to here
        self.next = next  # the next index to send
        self.sent_commit = 0  # highest commit index on its way to it
        self.state = PROBE
        self.pending_snapshot = 0  # index of the snapshot on its way, in SNAPSHOT
        self.recent_active = recent_active  # heard of since the last quorum check
        self.flow_paused = False  # wait for an answer (or a heartbeat's) before the next append
        self.inflights = inflights
        self.is_learner = is_learner

    def copy(self) -> Progress:
        """A copy that shares the in-flight window."""
        other = Progress(self.match, self.next, self.inflights, self.is_learner, self.recent_active)
        other.sent_commit = self.sent_commit
        other.state = self.state
        other.pending_snapshot = self.pending_snapshot
        other.flow_paused = self.flow_paused
        return other

    def _enter(self, state: ProgressState) -> None:
        self.flow_paused = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.reset()

    def become_probe(self) -> None:
        """Ask again where the logs meet; after a snapshot, from behind it."""
        # A snapshot that was on its way counts as arrived. A caller who knows that it did not has
        # cleared pending_snapshot before.
        pending = self.pending_snapshot if self.state == SNAPSHOT else 0
        self._enter(PROBE)
        self.next = max(self.match, pending) + 1
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        """Send ahead from what matches."""
        self._enter(REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """A snapshot at `index` is on its way."""
        self._enter(SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def sent_entries(self, count: int, size: int) -> None:
        """An append with `count` entries of `size` payload bytes was sent."""
        if self.state == REPLICATE:
            if count:
                self.next += count
                self.inflights.add(self.next - 1, size)
            # With a full window this message serves as a probe: no other goes out before an answer.
            self.flow_paused = self.inflights.full()
        elif self.state == PROBE:
            if count:
                self.flow_paused = True
        else:
            raise FatalError(f"sending append in unhandled state {self.state}")

    def can_bump_commit(self, index: int) -> bool:
        """Whether telling it of commit index `index` can move its commit forward."""
        return index > self.sent_commit and self.sent_commit < self.next - 1

    def maybe_update(self, index: int) -> bool:
        """It acknowledges `index`; False when that is no news."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.flow_paused = False
        return True

    def maybe_decrease_to(self, rejected: int, hint: int) -> bool:
        """It rejected an append behind `rejected` and hints at `hint`; False when that is stale."""
        if self.state == REPLICATE:
            if rejected <= self.match:
                return False
            self.next = self.match + 1
            self.sent_commit = min(self.sent_commit, self.next - 1)
            return True
        # Only one append is out in the other states, so any other index is an old answer.
        if self.next - 1 != rejected:
            return False
        self.next = max(min(rejected, hint + 1), self.match + 1)
        self.sent_commit = min(self.sent_commit, self.next - 1)
        self.flow_paused = False
        return True

    def is_paused(self) -> bool:
        """Whether no append may be sent now."""
        return self.flow_paused or self.state == SNAPSHOT

    def __str__(self) -> str:
        parts = [f"{self.state} match={self.match} next={self.next}"]
        if self.is_learner:
            parts.append("learner")
        if self.is_paused():
            parts.append("paused")
        if self.pending_snapshot:
            parts.append(f"pendingSnap={self.pending_snapshot}")
        if not self.recent_active:
            parts.append("inactive")
        count = len(self.inflights)
        if count:
            parts.append(f"inflight={count}{'[full]' if self.inflights.full() else ''}")
        return " ".join(parts)
