"""Linearizable reads: one read index round for all that are requested in a turn.

A read at index r may be answered once everything up to r is applied. r is the commit index of a
leader that has then confirmed its leadership (Raft thesis §6.4, ReadIndex). A sole voter is its own
quorum: its commit index is the read index, once it has committed an entry of its own term.
Otherwise one round is in flight at a time; readers that come meanwhile share the next one. A round
is asked for again every 500 ms and fails with the request timeout, or when the leader changes (etcd
`server/etcdserver/read/read.go`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from keyraft.base.clock import Loop
from keyraft.base.errors import (
    EtcdError,
    LeaderChangedError,
    RequestTimeoutError,
)
from keyraft.base.invariants import hold
from keyraft.base.log import Logger
from keyraft.server.counters import Counters

RETRY_S: Final = 0.5  # etcd `readIndexRetryTime`
ANSWERS_PER_TURN: Final = 500  # about 10 ms

ReadDone = Callable[[EtcdError | None], None]


class ReadSource(Protocol):
    """How a round uses the member's Raft."""

    def send_read_index(self, context: bytes) -> None:
        """Starts a round; its answer comes back through `ReadIndex.confirmed`."""

    def next_id(self) -> int:
        """A request id of this member."""


class ReadIndex:
    """Readers that wait for agreement, then for apply. Owned by the member's loop."""

    def __init__(
        self,
        loop: Loop,
        source: ReadSource,
        counters: Counters,
        logger: Logger,
        timeout_s: float,
    ) -> None:
        self._loop = loop
        self._source = source
        self._counters = counters
        self._logger = logger
        self._timeout_s = timeout_s
        self._next: list[ReadDone] = []
        self._round: list[ReadDone] = []
        self._contexts: set[bytes] = set()
        self._last_id = 0
        self._sent_s = 0.0
        self._started_s = 0.0
        self._scheduled = False
        self._applying: deque[tuple[int, list[ReadDone]]] = deque()
        self._answers: deque[tuple[list[ReadDone], EtcdError | None]] = deque()
        self._answered = 0  # so many of the first list are answered

    def __len__(self) -> int:
        waiting = len(self._next) + len(self._round) + sum(len(w[1]) for w in self._applying)
        return waiting + sum(len(readers) for readers, _ in self._answers) - self._answered

    def _answer(self, readers: list[ReadDone], error: EtcdError | None) -> None:
        """Answers all, in order and ANSWERS_PER_TURN at once: thousands may have waited."""
        if not readers:
            return
        self._answers.append((readers, error))
        if len(self._answers) == 1:
            self._answer_some()

    def _answer_some(self) -> None:
        left = ANSWERS_PER_TURN
        while self._answers and left:
            readers, error = self._answers[0]
            first = self._answered
            stop = self._answered = min(first + left, len(readers))
            left -= stop - first
            for done in readers[first:stop]:
                done(error)
            if self._answers and stop == len(readers):
                self._answers.popleft()
                self._answered = 0
        if self._answers:
            self._loop.call_soon(self._answer_some)

    def request(self, done: ReadDone) -> None:
        """`done` is called once, when a read may be answered or has failed."""
        self._next.append(done)
        if not self._scheduled and not self._round:
            self._scheduled = True
            self._loop.call_soon(self._start)

    def wait_applied(self, index: int, done: ReadDone) -> None:
        """Waits only for apply to reach `index`; the index is agreed already."""
        waiting = self._applying
        if waiting and waiting[-1][0] == index:
            waiting[-1][1].append(done)
        elif waiting and waiting[-1][0] > index:
            # Indexes only grow, but a late round may confirm an older one: waiting a little
            # longer than needed is still linearizable.
            waiting[-1][1].append(done)
        else:
            waiting.append((index, [done]))

    def applied(self, index: int) -> None:
        """Everything up to `index` is applied."""
        waiting = self._applying
        while waiting and waiting[0][0] <= index:
            self._answer(waiting.popleft()[1], None)

    def _start(self) -> None:
        self._scheduled = False
        if self._round or not self._next:
            return
        self._round, self._next = self._next, []
        self._contexts.clear()
        self._started_s = self._loop.time()
        self._send()

    def _send(self) -> None:
        self._last_id = self._source.next_id()
        context = self._last_id.to_bytes(8, "big")
        self._contexts.add(context)
        self._sent_s = self._loop.time()
        self._source.send_read_index(context)

    def confirmed(self, context: bytes, index: int, applied_index: int) -> None:
        """The round with `context` is agreed at `index`."""
        if context not in self._contexts:
            self._counters.slow_read_indexes += 1
            self._logger.warn(
                "ignored out-of-date read index response; local node read indexes queueing up "
                "and waiting to be in sync with leader",
                received_request_id=int.from_bytes(context[:8], "big"),
            )
            return
        readers, self._round = self._round, []
        self._contexts.clear()
        if index <= applied_index:
            self._answer(readers, None)
        else:
            for done in readers:
                self.wait_applied(index, done)
        self._continue()

    def first_commit_in_term(self) -> None:
        """The leader could not answer before; asks again at once."""
        if self._round:
            self._logger.info("first commit in current term: resending ReadIndex request")
            self._send()

    def leader_changed(self, before: int) -> None:
        """The answer may be lost with the previous leader, so the round is asked for again."""
        if self._round and not before:
            self._send()
        elif self._round:
            self._counters.read_indexes_failed += 1
            self._fail_round(LeaderChangedError())

    def tick(self, now_s: float) -> None:
        """Retries and times out; called with every Raft tick."""
        if not self._round:
            return
        if now_s - self._started_s >= self._timeout_s:
            self._counters.slow_read_indexes += 1
            self._logger.warn(
                "timed out waiting for read index response (local node might have slow network)",
                timeout=self._timeout_s,
            )
            self._fail_round(RequestTimeoutError())
        elif now_s - self._sent_s >= RETRY_S:
            self._logger.warn(
                "waiting for ReadIndex response took too long, retrying",
                sent_request_id=self._last_id,
                retry_timeout=RETRY_S,
            )
            self._send()

    def _fail_round(self, error: EtcdError) -> None:
        readers, self._round = self._round, []
        self._contexts.clear()
        self._answer(readers, error)
        self._continue()

    def _continue(self) -> None:
        if self._next and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._start)

    def check(self, applied_index: int) -> None:
        """Everybody who waits will be answered. Raises InvariantError."""
        hold(bool(self._round) == bool(self._contexts), "a round has been asked for")
        coming = self._scheduled or bool(self._round)
        hold(coming or not self._next, "the next round comes", len(self._next))
        answered = len(self._answers[0][0]) if self._answers else 1
        hold(0 <= self._answered < answered, "answers are counted", self._answered, answered)
        before = applied_index
        for index, _ in self._applying:
            hold(index > before, "who waits for apply, waits in order", index, before)
            before = index

    def fail_all(self, error: EtcdError) -> None:
        """The member stops."""
        readers: list[ReadDone] = []
        for answered, _ in self._answers:
            readers += answered
        del readers[: self._answered]
        readers += self._round + self._next
        for _, waiting in self._applying:
            readers += waiting
        self._answers.clear()
        self._answered = 0
        self._round, self._next = [], []
        self._applying.clear()
        self._contexts.clear()
        for done in readers:
            done(error)
