"""Who leads: the one value that everybody reads, and the one place where it changes.

The Raft loop tells it of every change (`follow`), apply of a leader's first entry (`first_applied`),
the membership of who votes (`standing`). All of the value has changed before anybody is told, so
whoever is told finds a whole one. Readers read its attributes, which are plain because every
request reads one of them; nobody else writes them (`tests/server/test_leadership.py` looks).

It says what this member has been told, which may be behind what its Raft knows by then:
`RaftLoop.leads` asks Raft itself, and is what counts where a former leader could do harm.

Invariants (`check`):
- `leading` exactly if `leader` is this member;
- `alone` only if `confirmed`, `confirmed` only if `leading`;
- `in_service` exactly if there is a leader and the membership lets this member serve;
- `term` never falls and is none that Raft has not reached.
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
        "_sole_voter",
        "alone",
        "confirmed",
        "in_service",
        "leader",
        "leading",
        "on_confirmed",
        "on_deposed",
        "on_leader",
        "since_s",
        "term",
    )

    def __init__(self, own: int, term: int, loop: Loop, logger: Logger, counters: Counters) -> None:
        """`own` is this member's id, `term` the one that its log ends in."""
        self._own = own
        self._loop = loop
        self._logger = logger
        self._counters = counters
        self._sole_voter = False
        self._serves = False
        self.leader = 0  # its id; 0: nobody is known to lead
        self.term = term  # of the leader, or of the entries that are applied, if that is later
        self.since_s = 0.0  # when `leader` became known, in loop time; kept while nobody leads
        self.leading = False  # this member leads
        self.confirmed = False  # it does, and has applied an entry of its term: all before is known
        self.alone = False  # confirmed, and since then the only voter: it may read at any moment
        self.in_service = False  # a call needs no closer look: voter, leader and version are there
        # Told in this order; `on_leader` gets who led before (0: nobody).
        self.on_leader: Sequence[Callable[[int], None]] = ()  # somebody else leads than before
        self.on_deposed: Sequence[Callable[[], None]] = ()  # this member leads no longer
        self.on_confirmed: Sequence[Callable[[], None]] = ()  # `confirmed`, once for each term

    def follow(self, soft: SoftState, term: int) -> None:
        """Raft has another leader or role, in `term`."""
        before, led = self.leader, self.leading
        self.leader = leader = soft.lead
        self.leading = leading = soft.state is StateType.LEADER
        self.term = term
        if not leading:
            self.confirmed = self.alone = False
        self.in_service = leader != 0 and self._serves
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
        """The first entry of a leader of `term` is applied; `leads`: Raft says that it is ours.

        The member may have been deposed and elected again without having been told: then only the
        term is new to it, and leases have been renewed elsewhere.
        """
        self.term = max(self.term, term)
        if not (leads and self.leading):
            return
        self.confirmed = True
        self.alone = self._sole_voter
        for confirmed in self.on_confirmed:
            confirmed()

    def standing(self, sole_voter: bool, serves: bool) -> None:
        """What the membership says: this member is the only voter; it votes, and the cluster's
        version is known.

        One that was left alone reads at once only from its next term on: those who are gone may
        have answered for entries that it has committed and not yet handed out.
        """
        self._sole_voter = sole_voter
        self._serves = serves
        self.alone = self.alone and sole_voter
        self.in_service = self.leader != 0 and serves

    def check(self, raft_term: int) -> None:
        """The invariants at the head of this module; `raft_term` is what Raft itself counts."""
        own, leader = self._own, self.leader
        hold(self.leading == (leader == own), "leading: the leader is this member", leader, own)
        hold(self.leading or not self.confirmed, "only a leader is confirmed", leader)
        hold(self.confirmed or not self.alone, "alone only behind an entry of its term", leader)
        hold(self._sole_voter or not self.alone, "alone only without other voters", leader)
        serves = leader != 0 and self._serves
        hold(self.in_service == serves, "in service: a leader, a vote, a version", leader, serves)
        hold(self.term <= raft_term, "no term that Raft has not reached", self.term, raft_term)

    def _say(self, before: int) -> None:
        """In the words of etcd's Raft node."""
        own, term, leader = self._own, self.term, self.leader
        if not before:
            text = f"raft.node: {own:x} elected leader {leader:x} at term {term}"
        elif not leader:
            text = f"raft.node: {own:x} lost leader {before:x} at term {term}"
        else:
            text = f"raft.node: {own:x} changed leader from {before:x} to {leader:x} at term {term}"
        self._logger.info(text)
