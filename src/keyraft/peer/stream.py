"""The two ends of a stream between members: the reader dials, the writer waits for the dial.

Each member opens one `msgapp` and one `message` stream to every peer and reads from them. It writes
its own messages to the streams that the peer opened. A writer owns at most one connection; a newer
one replaces it. Sending never waits: when the stream's buffer is full the message is dropped and
the peer is reported unreachable, as Raft expects of a network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from keyraft.base import http_status
from keyraft.base.log import Logger
from keyraft.cluster import format_id
from keyraft.net import failure_reason
from keyraft.peer.compat import (
    CLUSTER_ID_MISMATCH,
    INCOMPATIBLE_VERSION,
    MemberRemovedError,
    PeerRefusal,
    check_stream_status,
)
from keyraft.peer.dialing import IncomingStream, StreamError
from keyraft.peer.frames import (
    AppendDecoder,
    AppendEncoder,
    FrameError,
    MessageDecoder,
    MessageEncoder,
)
from keyraft.peer.metrics import PeerMetrics
from keyraft.peer.status import PeerStatus
from keyraft.peer.urls import URLPicker
from keyraft.raft.types import Message

if TYPE_CHECKING:
    from keyraft.net import ClientTLS

CONN_TIMEOUT_S: Final = 5.0  # reads and writes of a peer connection (etcd ConnReadTimeout)
LINK_HEARTBEAT_S: Final = CONN_TIMEOUT_S / 3
REDIAL_S: Final = 0.1  # etcd dials each stream at most every 100 ms
WRITE_BUFFER_BYTES_MAX: Final = 32 * 1024 * 1024  # unsent; more are dropped
REFUSED_REPORT_S: Final = 5.0  # DEVIATION: etcd tells of every attempt, ten times a second

MSGAPP: Final = "msgapp"
MESSAGE: Final = "message"
# the names of both streams in log lines
STREAM_NAMES: Final = {MSGAPP: "stream MsgApp v2", MESSAGE: "stream Message"}

_IGNORED: Final = {
    CLUSTER_ID_MISMATCH: "cluster ID mismatch",
    INCOMPATIBLE_VERSION: "server version incompatibility",
}


class DialTerms(NamedTuple):
    """How other members are dialled."""

    dial_timeout_s: float = 2.0
    read_timeout_s: float = CONN_TIMEOUT_S  # silence of a stream that counts as its end
    write_timeout_s: float = CONN_TIMEOUT_S  # how long a peer may take nothing of a stream
    local_host: str = ""  # this member's end of a connection; empty: as the kernel chooses


class OpenBody(Protocol):
    """An open response body that the peer reads."""

    def write(self, data: bytes) -> None:
        """Queues bytes; never blocks."""

    def unsent_bytes(self) -> int:
        """How many bytes the network has not taken yet."""

    def close(self) -> None:
        """Ends the body."""


class StreamWriter:
    """Frames messages into whichever connection the peer opened last."""

    __slots__ = (
        "_connection",
        "_encoder",
        "_kind",
        "_logger",
        "_metrics",
        "_name",
        "_stalled_s",
        "_status",
        "_write_timeout_s",
    )

    def __init__(
        self,
        kind: str,
        peer_id: int,
        status: PeerStatus,
        logger: Logger,
        metrics: PeerMetrics,
        write_timeout_s: float = CONN_TIMEOUT_S,
    ) -> None:
        self._write_timeout_s = write_timeout_s
        self._kind = kind
        self._name = format_id(peer_id)
        self._status = status
        self._logger = logger
        self._metrics = metrics
        self._connection: OpenBody | None = None
        self._encoder: AppendEncoder | MessageEncoder = MessageEncoder()
        self._stalled_s = 0.0

    @property
    def working(self) -> bool:
        """Whether a connection is attached."""
        return self._connection is not None

    def attach(self, connection: OpenBody, now_s: float) -> None:
        """The peer has dialled; an earlier connection is closed."""
        self._close("closed")
        self._connection = connection
        self._encoder = AppendEncoder() if self._kind == MSGAPP else MessageEncoder()
        self._stalled_s = 0.0
        self._status.activate(now_s)
        self._logger.info(
            "established TCP streaming connection with remote peer",
            stream_writer_type=STREAM_NAMES[self._kind],
            remote_peer_id=self._name,
        )

    def detach(self, connection: OpenBody) -> None:
        """The connection is gone; harmless when it was replaced before."""
        if connection is self._connection:
            self._lost("write", "connection closed")

    def send(self, message: Message) -> bool:
        """Frames and queues; False when the buffer is full and the message was dropped."""
        connection = self._connection
        if connection is None or connection.unsent_bytes() > WRITE_BUFFER_BYTES_MAX:
            self._metrics.sent_failures[self._name] += 1
            return False
        data = self._encoder.encode(message)
        connection.write(data)
        self._metrics.sent_bytes[self._name] += len(data)
        return True

    def tick(self) -> None:
        """Called every `LINK_HEARTBEAT_S`: keeps the link alive and notices a dead one."""
        connection = self._connection
        if connection is None:
            return
        if connection.unsent_bytes():
            if self._stalled_s >= self._write_timeout_s:
                self._lost("heartbeat", "i/o timeout")
                connection.close()
            self._stalled_s += LINK_HEARTBEAT_S
            return
        self._stalled_s = 0.0
        data = self._encoder.heartbeat()
        connection.write(data)
        self._metrics.sent_bytes[self._name] += len(data)

    def stop(self) -> None:
        """Closes what is open."""
        self._close("stopped")

    def _close(self, how: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._logger.warn(
                f"{how} TCP streaming connection with remote peer",
                stream_writer_type=STREAM_NAMES[self._kind],
                remote_peer_id=self._name,
            )

    def _lost(self, action: str, reason: str) -> None:
        self._connection = None
        self._status.deactivate(STREAM_NAMES[self._kind], action, reason)
        self._metrics.sent_failures[self._name] += 1
        self._logger.warn(
            "lost TCP streaming connection with remote peer",
            stream_writer_type=STREAM_NAMES[self._kind],
            remote_peer_id=self._name,
        )


class StreamReader:
    """Dials one stream of a peer for as long as it lives, and passes on what it reads."""

    __slots__ = (
        "_deliver",
        "_headers",
        "_kind",
        "_local_id",
        "_logger",
        "_metrics",
        "_name",
        "_peer_id",
        "_picker",
        "_removed",
        "_status",
        "_terms",
        "_tls",
    )

    def __init__(
        self,
        kind: str,
        local_id: int,
        peer_id: int,
        tls: ClientTLS | None,
        terms: DialTerms,
        picker: URLPicker,
        headers: Mapping[str, str],
        status: PeerStatus,
        deliver: Callable[[list[Message]], object],
        removed: Callable[[], None],
        logger: Logger,
        metrics: PeerMetrics,
    ) -> None:
        self._kind = kind
        self._local_id = local_id
        self._peer_id = peer_id
        self._name = format_id(peer_id)
        self._tls = tls
        self._terms = terms
        self._picker = picker
        self._headers = {**headers, "X-Raft-To": self._name}
        self._status = status
        self._deliver = deliver
        self._removed = removed
        self._logger = logger
        self._metrics = metrics

    async def run(self) -> None:
        """Dials, reads, and dials again; ends only by cancellation."""
        loop = asyncio.get_running_loop()
        channel = STREAM_NAMES[self._kind]
        refused_s = float("-inf")
        self._logger.info(
            "started stream reader with remote peer",
            stream_reader_type=channel,
            local_member_id=format_id(self._local_id),
            remote_peer_id=self._name,
        )
        while True:
            dialled_s = loop.time()
            url = self._picker.pick()
            action = "dial"
            stream = IncomingStream(self._terms.read_timeout_s)
            try:
                status = await stream.open(
                    url,
                    f"/raft/stream/{self._kind}/{format_id(self._local_id)}",
                    self._headers,
                    self._tls,
                    self._terms.dial_timeout_s,
                    self._terms.local_host,
                )
                text = await stream.text() if status == http_status.PRECONDITION_FAILED else ""
                check_stream_status(status, text, self._name, self._local_id)
                action = "read"
                self._status.activate(loop.time())
                self._logger.info(
                    "established TCP streaming connection with remote peer",
                    stream_reader_type=channel,
                    local_member_id=format_id(self._local_id),
                    remote_peer_id=self._name,
                )
                await stream.read(self._feed())
                reason = "EOF"
            except MemberRemovedError as error:
                reason = str(error)
                self._removed()
            except (PeerRefusal, FrameError, StreamError, OSError, TimeoutError) as error:
                reason = failure_reason(error)
                self._status.deactivate(channel, action, reason)
                if reason in _IGNORED and loop.time() - refused_s >= REFUSED_REPORT_S:
                    refused_s = loop.time()
                    self._logger.warn(
                        f"request sent was ignored by remote peer due to {_IGNORED[reason]}",
                        local_member_id=format_id(self._local_id),
                        local_member_cluster_id=self._headers["X-Etcd-Cluster-ID"],
                        remote_peer_id=self._name,
                        error=reason,
                    )
            finally:
                stream.close()
            if action == "dial":
                self._picker.unreachable(url)
            else:
                self._logger.warn(
                    "lost TCP streaming connection with remote peer",
                    stream_reader_type=channel,
                    local_member_id=format_id(self._local_id),
                    remote_peer_id=self._name,
                    error=reason,
                )
            await asyncio.sleep(max(0.0, REDIAL_S - (loop.time() - dialled_s)))

    def _feed(self) -> Callable[[bytes], None]:
        """What takes the bytes of one connection."""
        decode = (
            AppendDecoder(self._local_id, self._peer_id)
            if self._kind == MSGAPP
            else MessageDecoder()
        ).feed
        received, name, deliver = self._metrics.received_bytes, self._name, self._deliver

        def feed(data: bytes) -> None:
            received[name] += len(data)
            messages = decode(data)
            if messages:
                deliver(messages)

        return feed
