"""Linearizable reads: one read index round for everybody who asked in a turn.

A read at index r may be answered once everything up to r is applied, where r was the commit index
of a leader that then proved to be still leader (Raft thesis §6.4, ReadIndex). A sole voter is its
own quorum: its commit index is the read index at once, as soon as it has committed an entry of its
own term. Otherwise one round is in flight at a time; readers that come meanwhile share the next
one. A round is asked for again every 500 ms and fails with the request timeout, or when the leader
changes (etcd `server/etcdserver/read/read.go`).
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
from keyraft.base.log import Logger
from keyraft.server.counters import Counters

RETRY_S: Final = 0.5  # etcd `readIndexRetryTime`

ReadDone = Callable[[EtcdError | None], None]


class ReadSource(Protocol):
    """What a round asks of the member's Raft."""

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

    def __len__(self) -> int:
        return len(self._next) + len(self._round) + sum(len(w[1]) for w in self._applying)

    def request(self, done: ReadDone) -> None:
        """`done` is called once, when a read may be answered or has failed."""
        self._next.append(done)
        if not self._scheduled and not self._round:
            self._scheduled = True
            self._loop.call_soon(self._start)

    def wait_applied(self, index: int, done: ReadDone) -> None:
        """Agreement is known already: wait for apply to reach `index`."""
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
            for done in waiting.popleft()[1]:
                done(None)

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
            for done in readers:
                done(None)
        else:
            for done in readers:
                self.wait_applied(index, done)
        self._continue()

    def first_commit_in_term(self) -> None:
        """The leader could not answer before this; asks again at once."""
        if self._round:
            self._logger.info("first commit in current term: resending ReadIndex request")
            self._send()

    def leader_changed(self, had_leader: bool) -> None:
        """The answer may be lost with the old leader; without one the round is asked for now."""
        if self._round and not had_leader:
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
        for done in readers:
            done(error)
        self._continue()

    def _continue(self) -> None:
        if self._next and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._start)

    def fail_all(self, error: EtcdError) -> None:
        """The member stops."""
        readers = self._round + self._next
        for _, waiting in self._applying:
            readers += waiting
        self._round, self._next = [], []
        self._applying.clear()
        self._contexts.clear()
        for done in readers:
            done(error)
