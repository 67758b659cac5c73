"""LeaseKeepAlive: all streams of clients share one stream to the cluster (for each credentials).

A lease has at most one renewal under way; whoever asks meanwhile gets its answer, too. When the
stream to the cluster breaks, what is not answered is sent again on another one: a second renewal
does no harm. A stream of a client has its answers in the order of the cluster's.

Source: etcd `server/proxy/grpcproxy/lease.go`. There a client waits up to a third of its lease's
time for an answer, because the proxy renews by its own clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from google.protobuf.message import DecodeError

from keyraft.base.errors import BY_TEXT, NoLeaderError, RawError
from keyraft.base.parsing import parse
from keyraft.client import DirectConnection, Headers, Namespace
from keyraft.grpc import (
    ClientReceiver,
    ClientStream,
    Router,
    ServerStream,
    StreamHandler,
    UnaryCall,
    status,
)
from keyraft.proto import rpc_pb2
from keyraft.proxy.grpcproxy.leadership import LeaderWatch
from keyraft.proxy.grpcproxy.upstream import Upstream, credentials_of

METHOD: Final = b"/etcdserverpb.Lease/LeaseKeepAlive"
TIME_TO_LIVE: Final = b"/etcdserverpb.Lease/LeaseTimeToLive"
REOPEN_S_MIN: Final = 0.01
REOPEN_S_MAX: Final = 0.5
UNANSWERED_MAX: Final = 1_000  # of one client's stream; then it is not read


class RenewalLine:
    """One stream to the cluster."""

    def __init__(self, renewals: Renewals, credentials: Headers) -> None:
        self.credentials = credentials
        self.streams: set[RenewalStream] = set()
        self._renewals = renewals
        self._upstream = renewals.upstream
        self._waiting: dict[int, Counter[RenewalStream]] = {}
        self._stream: ClientStream | None = None
        self._receiver: _RenewalAnswers | None = None
        self._opening = False
        self._pause_s = REOPEN_S_MIN

    def renew(self, lease_id: int, stream: RenewalStream) -> None:
        """Renews a lease for a client."""
        waiting = self._waiting.get(lease_id)
        if waiting is not None:
            waiting[stream] += 1
            return
        self._waiting[lease_id] = Counter((stream,))
        if self._stream is not None:
            self._send(self._stream, lease_id)
        elif not self._opening:
            self._opening = True
            self._upstream.when_ready(self._opened)

    def leave(self, stream: RenewalStream) -> None:
        """A client is gone; the last one closes the stream."""
        self.streams.discard(stream)
        for waiting in self._waiting.values():
            waiting.pop(stream, None)
        if not self.streams:
            self._waiting.clear()
            self._renewals.forget(self)
            upstream, self._stream, self._receiver = self._stream, None, None
            if upstream is not None:
                upstream.cancel()

    def _opened(self, connection: DirectConnection) -> None:
        self._opening = False
        if not self._waiting:
            return
        receiver = self._receiver = _RenewalAnswers(self)
        stream = connection.open(
            METHOD, self._upstream.with_credentials(self.credentials), receiver
        )
        if stream.over:
            return
        self._stream = stream
        for lease_id in self._waiting:
            self._send(stream, lease_id)

    def _send(self, stream: ClientStream, lease_id: int) -> None:
        stream.send(rpc_pb2.LeaseKeepAliveRequest(ID=lease_id).SerializeToString())

    def answered(self, receiver: _RenewalAnswers, message: bytes) -> None:
        """A renewal's answer."""
        if receiver is not self._receiver or self._stream is None:
            return
        try:
            lease_id = rpc_pb2.LeaseKeepAliveResponse.FromString(message).ID
        except DecodeError:
            self._stream.cancel()
            return
        self._pause_s = REOPEN_S_MIN
        for stream, times in self._waiting.pop(lease_id, Counter()).items():
            stream.answer(message, times)

    def ended(self, receiver: _RenewalAnswers, code: int, text: str) -> None:
        """The stream has ended; a refusal of the cluster's own ends those who wait."""
        if receiver is not self._receiver:
            return
        self._stream = self._receiver = None
        refused = text in BY_TEXT or code not in (
            status.OK,
            status.UNAVAILABLE,
            status.INTERNAL,
            status.CANCELLED,
        )
        if refused:
            waiting, self._waiting = self._waiting, {}
            for stream in {stream for streams in waiting.values() for stream in streams}:
                stream.fail(code, text)
        elif self._waiting and not self._opening:
            self._opening = True
            pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, REOPEN_S_MAX)
            self._upstream.loop.call_later(pause_s, lambda: self._upstream.when_ready(self._opened))


class _RenewalAnswers(ClientReceiver):
    """One stream's end."""

    def __init__(self, line: RenewalLine) -> None:
        self._line = line

    def on_message(self, message: bytes) -> None:
        """ClientReceiver."""
        self._line.answered(self, message)

    def on_end(self, code: int, text: str, trailers: Mapping[bytes, bytes]) -> None:
        """ClientReceiver."""
        self._line.ended(self, code, text)

    def on_writable(self) -> None:
        """ClientReceiver."""


class RenewalStream:
    """One LeaseKeepAlive stream of a client."""

    def __init__(self, line: RenewalLine, stream: ServerStream, leader: LeaderWatch) -> None:
        self._line = line
        self._stream = stream
        self._leader = leader
        self._unanswered = 0
        self._half_closed = False
        self._paused = False
        line.streams.add(self)

    def on_message(self, message: bytes) -> None:
        """A renewal."""
        try:
            request = parse(rpc_pb2.LeaseKeepAliveRequest, message)
        except RawError as refusal:
            self._finish(refusal.code, refusal.text)
            return
        self._unanswered += 1
        self._line.renew(request.ID, self)
        if not self._paused and not self._room:
            self._paused = True
            self._stream.pause_reading()

    @property
    def _room(self) -> bool:
        return self._unanswered < UNANSWERED_MAX and self._stream.writable > 0

    def on_half_close(self) -> None:
        """No more renewals; those that wait are answered first."""
        self._half_closed = True
        if not self._unanswered:
            self._finish(status.OK, "")

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._leader.leave(self._stream)
        self._line.leave(self)

    def on_writable(self) -> None:
        """The client has read."""
        if self._paused and self._room:
            self._paused = False
            self._stream.resume_reading()

    def answer(self, message: bytes, times: int) -> None:
        """The answer to so many requests."""
        self._unanswered -= times
        for _ in range(times):
            self._stream.send(message)
        if self._half_closed and not self._unanswered:
            self._finish(status.OK, "")
        else:
            self.on_writable()

    def fail(self, code: int, text: str) -> None:
        """The cluster refuses."""
        self._finish(code, text)

    def _finish(self, code: int, text: str) -> None:
        self.on_cancel(code)
        self._stream.finish(code, text)


class Renewals:
    """Registered on a router, with LeaseTimeToLive, which shows keys."""

    def __init__(self, upstream: Upstream, leader: LeaderWatch, space: Namespace | None) -> None:
        self.upstream = upstream
        self._leader = leader
        self._space = space
        self.lines: dict[Headers, RenewalLine] = {}

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        router.stream("/etcdserverpb.Lease/LeaseKeepAlive", self.keep_alive)
        router.unary("/etcdserverpb.Lease/LeaseTimeToLive", self.time_to_live)

    def keep_alive(self, stream: ServerStream) -> StreamHandler:
        """A new stream; raises NoLeaderError."""
        if stream.metadata.get(b"hasleader") == b"true":
            if self._leader.lost:
                raise NoLeaderError
            self._leader.join(stream)
        credentials = credentials_of(stream.metadata)
        line = self.lines.get(credentials)
        if line is None:
            line = self.lines[credentials] = RenewalLine(self, credentials)
        return RenewalStream(line, stream, self._leader)

    def forget(self, line: RenewalLine) -> None:
        """For RenewalLine: nobody needs it."""
        self.lines.pop(line.credentials, None)

    def time_to_live(self, call: UnaryCall, request: bytes) -> None:
        """LeaseTimeToLiveRequest -> LeaseTimeToLiveResponse, with the keys of the namespace."""
        if self._space is None:
            self.upstream.ask(call, TIME_TO_LIVE, request, safe=True)
            return
        prefix = self._space.prefix

        def done(code: int, text: str, reply: bytes) -> None:
            call.on_cancel = None
            if code:
                call.fail(code, text)
                return
            answer = rpc_pb2.LeaseTimeToLiveResponse.FromString(reply)
            kept = [key[len(prefix) :] for key in answer.keys if key.startswith(prefix)]
            del answer.keys[:]
            answer.keys.extend(kept)
            call.respond(answer.SerializeToString())

        self.upstream.ask_for(call, TIME_TO_LIVE, request, True, done)
