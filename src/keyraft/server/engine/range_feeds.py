"""Ranges in pieces, each of one revision, as fast as their clients read.

The store makes the pieces: the chunks of a RangeStream (`mvcc/range_stream.py`), and those of a large
RangeResponse (`mvcc/large_range.py`). Here they are sent while there is room. All feeds of a member
send in turn, a piece each, and together about TURN_BYTES in a turn of the loop. So fifty feeds hold
others up no longer than one does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Protocol

from keyraft.auth import Identity
from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.waiters import Waiter
from keyraft.mvcc import LargeRange
from keyraft.proto import rpc_pb2

if TYPE_CHECKING:
    from keyraft.server.member import Member

Check = Callable[[], Identity | None]
"""Who reads, with the right to; None while there are no users."""

TURN_BYTES: Final = 393_216  # of all feeds in one turn of the loop: about 1 ms
STEP_BYTES: Final = 65_536  # the least that a step counts
LOOKED_BYTES: Final = TURN_BYTES // 2  # what a step counts that only read keys: about 1 ms


class RangeOutput(Protocol):
    """Receives the chunks: the same as `service.ports.RangeSink`."""

    @property
    def writable(self) -> int:
        """Bytes that may still be queued; at zero or less the feed waits for its `resume`."""

    def send(self, message: bytes) -> None:
        """One chunk."""

    def finish(self, code: int = 0, text: str = "") -> None:
        """Ends the stream, with or without an error."""


class TakesTurns(Protocol):
    """One that sends in turn with others."""

    def step(self) -> int:
        """Sends one piece, or searches for it; the bytes that this step counts."""


class PieceWaiter(Waiter, Protocol):
    """Whoever takes an answer in pieces: a gRPC call."""

    @property
    def writable(self) -> int:
        """Bytes that may still be queued; at zero or less the next piece waits."""

    def begin_reply(self, size: int, on_writable: Callable[[], None]) -> None:
        """The size of all pieces together."""

    def send_reply(self, piece: bytes) -> None:
        """The next one."""

    def end_reply(self, summary: bytes) -> None:
        """That was all; `summary`: the answer without what was repeated in it."""


class RangeFeeds:
    """The feeds of one member, and their order."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self._queue: deque[TakesTurns] = deque()
        self._scheduled = False

    def open(self, sink: RangeOutput, request: rpc_pb2.RangeRequest, check: Check) -> RangeFeed:
        """Begins when the member may read; `check` raises if the caller may not read the range."""
        feed = RangeFeed(self, sink, request, check)
        member = self.member
        if request.serializable or member.readable:
            feed.begin()
        else:
            member.read_index(feed.ready)
        return feed

    def answer(self, waiter: PieceWaiter, header: bytes, answer: LargeRange) -> None:
        """Sends a large answer; `header` is the first field of it."""
        LargeFeed(self, waiter, header, answer)

    def wait(self, feed: TakesTurns) -> None:
        """Queues one that is not queued."""
        self._queue.append(feed)
        if not self._scheduled:
            self._scheduled = True
            self.member.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        left = TURN_BYTES
        for _ in range(len(self._queue)):
            left -= max(self._queue.popleft().step(), STEP_BYTES)
            if left <= 0:
                break
        if self._queue and not self._scheduled:
            self._scheduled = True
            self.member.loop.call_soon(self._turn)


class RangeFeed:
    """One RangeStream under way."""

    def __init__(
        self,
        feeds: RangeFeeds,
        sink: RangeOutput,
        request: rpc_pb2.RangeRequest,
        check: Check,
    ) -> None:
        self._feeds = feeds
        self._sink = sink
        self._request = request
        self._check = check
        self._identity: Identity | None = None
        self._chunks: Generator[bytes, None, None] | None = None
        self._queued = False
        self._over = False

    def ready(self, error: EtcdError | None) -> None:
        """The member may read now, or the read was refused."""
        if self._over:
            return
        if error is not None:
            self._finish(error.code, error.text)
            return
        try:
            self.begin()
        except (EtcdError, RawError) as refusal:
            self._finish(refusal.code, refusal.text)

    def begin(self) -> None:
        """Starts the range at the present revision. Raises its refusal."""
        self._identity = self._check()
        member = self._feeds.member
        self._chunks = member.store.range_stream(
            self._request, member.header, member.settings.request_bytes_max
        )
        self.resume()

    def resume(self) -> None:
        """Queues for the next chunk if the sink has room."""
        if not self._over and not self._queued and self._chunks is not None:
            if self._sink.writable > 0:
                self._queued = True
                self._feeds.wait(self)

    def step(self) -> int:
        """Sends one chunk, or searches for it.

        Returns the bytes that this step counts (RangeFeeds).
        """
        self._queued = False
        if self._over or self._chunks is None or self._sink.writable <= 0:
            return 0
        try:
            self._confirm()
            message = next(self._chunks, None)
        except (EtcdError, RawError) as refusal:
            self._finish(refusal.code, refusal.text)
            return 0
        if message is None:
            self._finish(0, "")
            return 0
        if message:
            self._sink.send(message)
        self.resume()
        return len(message) or LOOKED_BYTES

    def _confirm(self) -> None:
        """Raises if users have changed since the caller was checked, or if there were none.

        The original looks after the last chunk, and not for those who came before there were users.
        """
        auth = self._feeds.member.auth
        if self._identity is not None:
            auth.confirm(self._identity)
        elif auth.enabled:
            raise errors.UserEmptyError

    def close(self) -> None:
        """Ends the feed."""
        self._over = True
        if self._chunks is not None:
            self._chunks.close()
            self._chunks = None

    def _finish(self, code: int, text: str) -> None:
        self.close()
        self._sink.finish(code, text)


class LargeFeed:
    """One large RangeResponse under way."""

    def __init__(
        self, feeds: RangeFeeds, waiter: PieceWaiter, header: bytes, answer: LargeRange
    ) -> None:
        self._feeds = feeds
        self._waiter = waiter
        self._header = header
        self._answer: LargeRange | None = answer
        self._queued = False
        waiter.on_cancel = self._cancelled
        waiter.begin_reply(len(header) + answer.size, self.resume)
        waiter.send_reply(header)
        self.resume()

    def resume(self) -> None:
        """Queues for the next piece if there is room."""
        if self._answer is not None and not self._queued and self._waiter.writable > 0:
            self._queued = True
            self._feeds.wait(self)

    def step(self) -> int:
        """See `TakesTurns`."""
        self._queued = False
        answer, waiter = self._answer, self._waiter
        if answer is None or waiter.writable <= 0:
            return 0
        try:
            piece = answer.next()
        except (EtcdError, RawError) as refusal:
            self._close()
            waiter.fail(refusal.code, refusal.text)
            return 0
        if piece is None:
            tail = answer.tail
            self._close()
            waiter.end_reply(self._header + tail)
            return 0
        waiter.send_reply(piece)
        self.resume()
        return len(piece)

    def _cancelled(self, _: Any, code: int) -> None:
        self._close()

    def _close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None
