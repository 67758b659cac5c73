"""Whether the cluster has a leader, for streams that require one (metadata `hasleader`).

From the first such stream on, the proxy has a watch of its own that requires a leader too; when it
ends, another is asked for while any such stream is open. The member that carries it ends it when it
has lost the majority. The cluster counts as without a leader only when no member has carried that
watch for `LOST_S`; then the streams are ended. So the change of a leader, or the death of one
member, ends none of them.

Source: etcd `server/proxy/grpcproxy/leader.go`, where the first failure is the loss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from keyraft.base.errors import NoLeaderError
from keyraft.client import DirectConnection
from keyraft.grpc import ClientReceiver, ServerStream
from keyraft.proto import rpc_pb2
from keyraft.proxy.grpcproxy.upstream import Upstream

LOST_S: Final = 3.0  # three election timeouts, after which a member ends such streams
RETRY_S: Final = 0.1
_METHOD: Final = b"/etcdserverpb.Watch/Watch"
_KEY: Final = b"__lostleader"
_NEVER: Final = (1 << 63) - 3


class LeaderWatch:
    """Owned by the loop."""

    def __init__(self, upstream: Upstream) -> None:
        self.lost = False
        """No member knows a leader."""
        self._upstream = upstream
        self._streams: set[ServerStream] = set()
        self._probe: _Probe | None = None
        self._doubt: asyncio.TimerHandle | None = None
        self._beginning = False

    def join(self, stream: ServerStream) -> None:
        """A stream that requires a leader; call `leave` at its end."""
        self._streams.add(stream)
        if self._probe is None and not self._beginning:
            self._begin()

    def leave(self, stream: ServerStream) -> None:
        """It has ended; harmless for any other."""
        self._streams.discard(stream)

    def _rest(self) -> None:
        """Nobody wants to know."""
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None

    def _begin(self) -> None:
        self._beginning = True
        if self._doubt is None:
            self._doubt = self._upstream.loop.call_later(LOST_S, self._lose)
        self._upstream.when_ready(self._begun)

    def _begun(self, connection: DirectConnection) -> None:
        self._beginning = False
        if not self._streams and not self.lost:
            self._rest()
            return
        probe = self._probe = _Probe(self)
        headers = self._upstream.with_credentials((), leader=True)
        stream = connection.open(_METHOD, headers, probe)
        if not stream.over:
            create = rpc_pb2.WatchCreateRequest(key=_KEY, start_revision=_NEVER)
            stream.send(rpc_pb2.WatchRequest(create_request=create).SerializeToString())

    def heard(self, probe: _Probe) -> None:
        """A member has answered, so it knows a leader."""
        if probe is self._probe:
            self.lost = False
            if self._doubt is not None:
                self._doubt.cancel()
                self._doubt = None

    def ended(self, probe: _Probe) -> None:
        """That member has none, or is gone: the next one is asked."""
        if probe is not self._probe:
            return
        self._probe = None
        if self._streams or self.lost:
            if self._doubt is None and not self.lost:
                self._doubt = self._upstream.loop.call_later(LOST_S, self._lose)
            self._beginning = True
            self._upstream.loop.call_later(RETRY_S, self._begin)

    def _lose(self) -> None:
        self._doubt = None
        self.lost = True
        streams, self._streams = self._streams, set()
        for stream in streams:
            stream.abort(NoLeaderError.code, NoLeaderError.text)


class _Probe(ClientReceiver):
    """The proxy's own stream that requires a leader."""

    def __init__(self, leader: LeaderWatch) -> None:
        self._leader = leader

    def on_message(self, message: bytes) -> None:
        """ClientReceiver: also a refusal for want of permission comes from one with a leader."""
        self._leader.heard(self)

    def on_end(self, code: int, text: str, trailers: Mapping[bytes, bytes]) -> None:
        """ClientReceiver."""
        self._leader.ended(self)

    def on_writable(self) -> None:
        """ClientReceiver."""
