"""RangeStream: a range in chunks, all of one revision, as fast as the client reads.

What is in the chunks is the store's matter (`mvcc/range_stream.py`); here they are sent, only while
the stream takes them. All streams of a member take turns, a chunk each, and together they send
about TURN_BYTES in a turn of the loop: fifty of them hold the others up no longer than one does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Final

from keyraft.base.errors import EtcdError, PostponedError, RawError
from keyraft.base.parsing import parse
from keyraft.grpc import ServerStream, StreamHandler
from keyraft.mvcc import check_range_stream
from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.service.guard import Guard

TURN_BYTES: Final = 1_048_576  # of all streams in one turn of the loop: about 2 ms
STEP_BYTES: Final = 65_536  # what a step counts for at least
LOOKED_BYTES: Final = TURN_BYTES // 2  # what one counts for that only looked at keys: about 1 ms


class RangeStreams:
    """The streams of one member, and whose turn it is."""

    def __init__(self, member: Member, guard: Guard) -> None:
        self._member = member
        self._guard = guard
        self._queue: deque[RangeStreamHandler] = deque()
        self._scheduled = False

    def open(self, stream: ServerStream) -> StreamHandler:
        """A new call; raises what the guard refuses."""
        self._guard.admit_stream(stream)
        return RangeStreamHandler(self, self._member, self._guard, stream)

    def wait(self, handler: RangeStreamHandler) -> None:
        """Queues one that is not queued."""
        self._queue.append(handler)
        if not self._scheduled:
            self._scheduled = True
            self._member.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        left = TURN_BYTES
        for _ in range(len(self._queue)):
            left -= max(self._queue.popleft().step(), STEP_BYTES)
            if left <= 0:
                break
        if self._queue and not self._scheduled:
            self._scheduled = True
            self._member.loop.call_soon(self._turn)


class RangeStreamHandler:
    """One RangeStream call."""

    def __init__(
        self, streams: RangeStreams, member: Member, guard: Guard, stream: ServerStream
    ) -> None:
        self._streams = streams
        self._queued = False
        self._member = member
        self._guard = guard
        self._stream = stream
        self._request = rpc_pb2.RangeRequest()
        self._chunks: Generator[bytes, None, None] | None = None
        self._over = False

    # --- the transport's side -----------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """The request; there is only one."""
        try:
            self._start(message)
        except PostponedError:
            raise
        except (EtcdError, RawError) as refusal:
            self._finish(refusal.code, refusal.text)

    def on_half_close(self) -> None:
        """Expected."""

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._over = True
        self._close()
        self._guard.left(self._stream)

    def on_writable(self) -> None:
        """The client has read; the next chunks may come."""
        if self._chunks is not None:
            self._pump()

    # --- the work -----------------------------------------------------------------------------

    def _start(self, message: bytes) -> None:
        request = self._request = parse(rpc_pb2.RangeRequest, message)
        check_range_stream(request)
        if request.serializable or self._member.readable:
            self._begin()
            return

        def ready(error: EtcdError | None) -> None:
            if self._over:
                return
            if error is not None:
                self._finish(error.code, error.text)
                return
            try:
                self._begin()
            except (EtcdError, RawError) as refusal:
                self._finish(refusal.code, refusal.text)

        self._member.read_index(ready)

    def _begin(self) -> None:
        request = self._request
        auth = self._member.auth
        if auth.enabled:
            identity = self._guard.caller(self._stream)
            auth.check_range(identity, request.key, request.range_end)
            auth.confirm(identity)
        self._chunks = self._member.store.range_stream(
            request, self._member.header, self._member.settings.request_bytes_max
        )
        self._pump()

    def _pump(self) -> None:
        """Takes its turn for the next chunk, while the stream takes it."""
        if not self._over and not self._queued and self._stream.writable > 0:
            self._queued = True
            self._streams.wait(self)

    def step(self) -> int:
        """Sends one chunk, or looks for it; the bytes sent (RangeStreams)."""
        self._queued = False
        if self._over or self._chunks is None or self._stream.writable <= 0:
            return 0
        try:
            message = next(self._chunks, None)
        except (EtcdError, RawError) as refusal:
            self._finish(refusal.code, refusal.text)
            return 0
        if message is None:
            self._finish(0, "")
            return 0
        if message:
            self._stream.send(message)
        self._pump()
        return len(message) or LOOKED_BYTES

    def _close(self) -> None:
        if self._chunks is not None:
            self._chunks.close()
            self._chunks = None

    def _finish(self, code: int, text: str) -> None:
        if not self._over:
            self._over = True
            self._close()
            self._guard.left(self._stream)
            self._stream.finish(code, text)
