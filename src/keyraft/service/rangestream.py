"""RangeStream: a range in chunks, all of one revision, as fast as the client reads.

The first chunk has up to ten keys, each following one twice or half as many, so that its size
comes near the largest request. Every chunk carries only keys and values but the last, which also
carries header, `more` and `count` (etcd 3.7 `EtcdServer.rangeStream`).
"""

from __future__ import annotations

from typing import Final

from keyraft.base.errors import EtcdError, RawError
from keyraft.grpc import ServerStream, StreamHandler
from keyraft.mvcc import check_range_stream
from keyraft.proto import rpc_pb2
from keyraft.server import Member, parse
from keyraft.service.guard import Guard

FIRST_CHUNK_KEYS: Final = 10
_NO_LIMIT: Final = (1 << 63) - 1


class RangeStreamHandler:
    """One RangeStream call."""

    def __init__(self, member: Member, guard: Guard, stream: ServerStream) -> None:
        self._member = member
        self._guard = guard
        self._stream = stream
        self._request = rpc_pb2.RangeRequest()
        self._left = _NO_LIMIT
        self._sent = 0
        self._revision = 0
        self._reading = False
        self._over = False

    # --- the transport's side -----------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """The request; there is only one."""
        try:
            self._start(message)
        except (EtcdError, RawError) as refusal:
            self._finish(refusal.code, refusal.text)

    def on_half_close(self) -> None:
        """Expected."""

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._over = True
        self._guard.left(self._stream)

    def on_writable(self) -> None:
        """The client has read; the next chunks may come."""
        if self._reading:
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
            identity = self._guard.identify(self._stream) or auth.nobody
            auth.check_range(identity, request.key, request.range_end)
        self._revision = self._member.store.revision
        if request.count_only:
            answer = self._read()
            self._send(rpc_pb2.RangeResponse(count=answer.count), last=True)
            return
        if request.limit > 0:
            self._left = request.limit
        request.limit = min(FIRST_CHUNK_KEYS, self._left)
        self._reading = True
        self._pump()

    def _read(self) -> rpc_pb2.RangeResponse:
        body = self._member.store.range(self._request.SerializeToString())
        return rpc_pb2.RangeResponse.FromString(body)

    def _pump(self) -> None:
        """Sends chunks while the stream takes them, one a turn."""
        if self._over or self._stream.writable <= 0:
            return
        try:
            self._chunk()
        except (EtcdError, RawError) as refusal:
            self._finish(refusal.code, refusal.text)
            return
        if not self._over:
            self._member.loop.call_soon(self._pump)

    def _chunk(self) -> None:
        request = self._request
        answer = self._read()
        if not request.revision:
            request.revision = self._revision
        keys = len(answer.kvs)
        size = answer.ByteSize()
        self._sent += keys
        self._left -= keys
        if not answer.more or not self._left:
            more, next_key = answer.more, b""
            total = self._sent
            if more:
                next_key = answer.kvs[-1].key + b"\0"
                rest = rpc_pb2.RangeRequest(
                    key=next_key,
                    range_end=request.range_end,
                    revision=request.revision,
                    count_only=True,
                )
                body = self._member.store.range(rest.SerializeToString())
                total += rpc_pb2.RangeResponse.FromString(body).count
            answer.count = total
            self._send(answer, last=True)
            return
        request.key = answer.kvs[-1].key + b"\0"
        answer.ClearField("more")
        answer.ClearField("count")
        self._send(answer, last=False)
        request.limit = min(self._next_limit(request.limit, size), self._left)

    def _next_limit(self, limit: int, size: int) -> int:
        target = self._member.settings.request_bytes_max
        if size < target // 2:
            limit *= 2
        elif size > target * 2:
            limit //= 2
        return max(limit, 1)

    def _send(self, answer: rpc_pb2.RangeResponse, last: bool) -> None:
        if last:
            header = self._member.header(self._revision)
            answer.MergeFromString(header)
        self._stream.send(rpc_pb2.RangeStreamResponse(range_response=answer).SerializeToString())
        if last:
            self._finish(0, "")

    def _finish(self, code: int, text: str) -> None:
        if not self._over:
            self._over = True
            self._guard.left(self._stream)
            self._stream.finish(code, text)


def open_range_stream(member: Member, guard: Guard, stream: ServerStream) -> StreamHandler:
    """A new call; raises what the guard refuses."""
    guard.admit_stream(stream)
    return RangeStreamHandler(member, guard, stream)
