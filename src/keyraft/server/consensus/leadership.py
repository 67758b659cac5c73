"""Who leads, in which term and since when: the one place where this is stored and changed.

Three callers change it: the Raft loop (`follow`), apply after a leader's first entry
(`first_applied`), and the membership when voters or the version change (`standing`). All attributes
are set before any callback runs, so callbacks see a consistent state. Attributes are plain because
every request reads one of them; no other code writes them (checked by
`tests/server/test_leadership.py`).

It may be older than what this member's Raft knows. `RaftLoop.leads` asks Raft itself, and must be
used where a deposed leader could do harm.

Invariants (`check`):
- `leading` exactly if `leader` is this member;
- `alone` only if `confirmed`, `confirmed` only if `leading`;
- `in_service` exactly if there is a leader, and this member is a voter, knows the version and is not
  fenced;
- `term` never falls and is never above Raft's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keyraft.base.clock import Loop
from keyraft.base.invariants import hold
from keyraft.base.log import Logger
from keyraft.raft import SoftState, StateType
from keyraft.server.counters import Counters


class Leadership:
    """Changed by the Raft loop, apply and the membership of one member, on its loop."""

    __slots__ = (
        "_counters",
        "_logger",
        "_loop",
        "_own",
        "_serves",
        "alone",
        "confirmed",
        "fenced",
        "in_service",
        "leader",
        "leading",
        "on_confirmed",
        "on_deposed",
        "on_leader",
        "since_s",
        "sole_voter",
        "term",
    )

    def __init__(self, own: int, term: int, loop: Loop, logger: Logger, counters: Counters) -> None:
        """`own` is this member's id, `term` the one that its log ends in."""
        self._own = own
        self._loop = loop
        self._logger = logger
        self._counters = counters
        self.sole_voter = False  # this member alone votes
        self._serves = False
        self.leader = 0  # its id; 0: no known leader
        self.term = term  # of the leader, or of the entries that are applied, if that is later
        self.since_s = 0.0  # when `leader` became known, in loop time; kept while nobody leads
        self.leading = False  # this member leads
        self.confirmed = False  # it has applied an entry of its term, too
        self.alone = False  # confirmed, and the only voter since then: it may read at any moment
        self.fenced = False  # its keys are wrong: nobody is served
        self.in_service = False  # calls need no more checks: voter, with leader and version
        # Called in this order; `on_leader` gets the previous leader (0: none).
        self.on_leader: Sequence[Callable[[int], None]] = ()  # the leader has changed
        self.on_deposed: Sequence[Callable[[], None]] = ()  # this member no longer leads
        self.on_confirmed: Sequence[Callable[[], None]] = ()  # `confirmed`, once for each term

    def follow(self, soft: SoftState, term: int) -> None:
        """Raft's leader or role has changed, in `term`."""
        before, led = self.leader, self.leading
        self.leader = leader = soft.lead
        self.leading = leading = soft.state is StateType.LEADER
        self.term = term
        if not leading:
            self.confirmed = self.alone = False
        self.in_service = leader != 0 and self._serves and not self.fenced
        if leader != before:
            if leader:
                self._counters.leader_changes_seen += 1
                self.since_s = self._loop.time()
            self._say(before)
            if leader:
                for told in self.on_leader:
                    told(before)
        if led and not leading:
            for deposed in self.on_deposed:
                deposed()

    def first_applied(self, term: int, leads: bool) -> None:
        """The first entry of the leader of `term` is applied; `leads`: Raft says that it is this
        member.

        The member may have been deposed and elected again unnoticed. Then only the term is new, and
        leases may have been renewed elsewhere.
        """
        self.term = max(self.term, term)
        if not (leads and self.leading):
            return
        self.confirmed = True
        self.alone = self.sole_voter
        for confirmed in self.on_confirmed:
            confirmed()

    def standing(self, sole_voter: bool, serves: bool) -> None:
        """From the membership: whether this member is the only voter, and whether it votes and the
        cluster's version is known.

        A member that became the only voter may read at once only from its next term on. The removed
        members may have answered for entries that are committed and not yet applied here.
        """
        self.sole_voter = sole_voter
        self._serves = serves
        self.alone = self.alone and sole_voter
        self.in_service = self.leader != 0 and serves and not self.fenced

    def fence(self, fenced: bool) -> None:
        """Whether this member serves nobody, because its keys are wrong."""
        self.fenced = fenced
        self.in_service = self.leader != 0 and self._serves and not fenced

    def check(self, raft_term: int) -> None:
        """The invariants at the head of this module; `raft_term` is what Raft itself counts."""
        own, leader = self._own, self.leader
        hold(self.leading == (leader == own), "leading: the leader is this member", leader, own)
        hold(self.leading or not self.confirmed, "only a leader is confirmed", leader)
        hold(self.confirmed or not self.alone, "alone only behind an entry of its term", leader)
        hold(self.sole_voter or not self.alone, "alone only without other voters", leader)
        serves = leader != 0 and self._serves and not self.fenced
        hold(self.in_service == serves, "in service: a leader, a vote, a version", leader, serves)
        hold(self.term <= raft_term, "no term that Raft has not reached", self.term, raft_term)

    def _say(self, before: int) -> None:
        """Logs the change in the words of etcd's Raft node."""
        own, term, leader = self._own, self.term, self.leader
        if not before:
            text = f"raft.node: {own:x} elected leader {leader:x} at term {term}"
        elif not leader:
            text = f"raft.node: {own:x} lost leader {before:x} at term {term}"
        else:
            text = f"raft.node: {own:x} changed leader from {before:x} to {leader:x} at term {term}"
        self._logger.info(text)
