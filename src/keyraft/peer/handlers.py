"""The peer port: where other members post messages, open streams and send databases.

Paths, texts and codes are etcd's (`rafthttp`), so Go members can talk to it. Content codings are
not decoded. No body is larger than the limits below.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final, Protocol

from keyraft.base import http_status
from keyraft.base.log import Logger
from keyraft.base.urls import URLError, parse_urls
from keyraft.base.version import VERSION
from keyraft.cluster import format_id
from keyraft.net import BodyError, Http1Request
from keyraft.peer.compat import check_request, parse_id
from keyraft.peer.exchange import PeerReply, PeerRequest, Routes, http_error, json_error
from keyraft.peer.frames import SNAPSHOT_MESSAGE_BYTES_MAX, FrameError, decode
from keyraft.peer.stream import MESSAGE, MSGAPP
from keyraft.peer.transport import Transport
from keyraft.raft.types import Message, MessageType

PIPELINE_BYTES_MAX: Final = 64 * 1024 * 1024  # one posted message: a request, or 1 MiB of them
POSTED_BYTES_MAX: Final = 256 * 1024 * 1024  # all that are being read at once
STRANGER: Final = "0"  # the label for senders that are no members
STREAM_PATH: Final = "/raft/stream/"


class SnapshotReceiver(Protocol):
    """Where an incoming database goes before Raft hears of it."""

    async def receive_snapshot(self, message: Message, database: AsyncIterator[bytes]) -> int:
        """Saves the file durably and returns its size in bytes; raises OSError or ValueError."""


class _BodyConnection:
    """The chunked body of a response, written without waiting."""

    __slots__ = ("_http", "_transport", "closed")

    def __init__(self, http: Http1Request) -> None:
        self._http = http
        self._transport = http.take_over()
        # Write at once, not at the end of the turn: the leader's own sync may hold up the turn.
        self._transport.set_write_buffer_limits(high=0)
        self.closed = asyncio.get_running_loop().create_future()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


class RaftHandlers:
    """The routes below `/raft`."""

    def __init__(
        self,
        transport: Transport,
        receiver: SnapshotReceiver,
        logger: Logger,
        posted_bytes_max: int = PIPELINE_BYTES_MAX,
    ) -> None:
        """`posted_bytes_max`: of one message."""
        self._posted_bytes_max = posted_bytes_max
        self._posted_bytes = 0  # of messages that are being read
        self._transport = transport
        self._receiver = receiver
        self._logger = logger
        self._cluster = {"X-Etcd-Cluster-ID": format_id(transport.cluster_id)}

    def register(self, routes: Routes) -> None:
        """Adds the routes; other methods get 405 as the original answers them."""
        routes.add("/raft", self.pipeline)
        routes.add("/raft/snapshot", self.snapshot)
        routes.add("/raft/probing", self.probing)
        routes.add(STREAM_PATH, self.stream)

    async def probing(self, request: PeerRequest) -> PeerReply:
        """Answers a probe with this member's time."""
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return PeerReply(http_status.OK, f'{{"OK":true,"Now":"{now}"}}\n')

    async def pipeline(self, request: PeerRequest) -> PeerReply:
        """One posted message."""
        if request.method != "POST":
            return http_error(
                http_status.METHOD_NOT_ALLOWED, "Method Not Allowed", {"Allow": "POST"}
            )
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        self._learn(request)
        body = await self._read(request)
        if body is None:
            return http_error(http_status.BAD_REQUEST, "error reading raft message", self._cluster)
        try:
            message = decode(body)
        except FrameError as error:
            self._logger.warn("failed to unmarshal Raft message", error=str(error))
            return http_error(
                http_status.BAD_REQUEST, "error unmarshalling raft message", self._cluster
            )
        self._transport.metrics.received_bytes[self._name(message)] += len(body)
        refusal = self._refuse_message(message)
        if refusal is not None:
            return refusal
        return self._delivered(message)

    def _delivered(self, message: Message) -> PeerReply:
        """What became of a message that was posted."""
        if not self._transport.deliver([message]):
            return http_error(
                http_status.INTERNAL_SERVER_ERROR, "error processing raft message", self._cluster
            )
        return PeerReply(http_status.NO_CONTENT, headers=self._cluster)

    async def snapshot(self, request: PeerRequest) -> PeerReply:
        """Receives a database: first it is saved, then Raft gets the message."""
        metrics = self._transport.metrics
        if request.method != "POST":
            return http_error(
                http_status.METHOD_NOT_ALLOWED, "Method Not Allowed", {"Allow": "POST"}
            )
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        self._learn(request)
        try:
            length = int.from_bytes(await request.body.read_exactly(8), "big")
            if length > SNAPSHOT_MESSAGE_BYTES_MAX:
                raise FrameError("unexpected EOF")
            message = decode(await request.body.read_exactly(length))
        except (FrameError, BodyError) as error:
            return http_error(
                http_status.BAD_REQUEST, f"failed to decode raft message ({error})", self._cluster
            )
        name = self._name(message)
        if message.type != MessageType.SNAP or message.snapshot is None:
            metrics.snapshot_receive_failures[name] += 1
            return http_error(http_status.BAD_REQUEST, "wrong raft message type", self._cluster)
        refusal = self._refuse_message(message)
        if refusal is not None:
            return refusal
        fields = {
            "local_member_id": format_id(self._transport.local_id),
            "remote_snapshot_sender_id": name,
            "incoming_snapshot_index": message.snapshot.meta.index,
        }
        self._logger.info("receiving database snapshot", **fields)
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        metrics.snapshot_receive_inflight[name] += 1
        try:
            size = await self._receiver.receive_snapshot(message, request.body.pieces())
        except (OSError, ValueError, BodyError) as error:
            metrics.snapshot_receive_failures[name] += 1
            self._logger.warn(
                "failed to save incoming database snapshot", **fields, error=str(error)
            )
            return http_error(
                http_status.INTERNAL_SERVER_ERROR,
                f"failed to save KV snapshot ({error})",
                self._cluster,
            )
        finally:
            metrics.snapshot_receive_inflight[name] -= 1
        took_s = loop.time() - started_s
        metrics.received_bytes[name] += length + size
        metrics.snapshot_received[name] += 1
        metrics.snapshot_receive_s.append((name, took_s))
        self._logger.info(
            "received and saved database snapshot",
            **fields,
            incoming_snapshot_size_bytes=size,
            download_took=f"{took_s:.3f}s",
        )
        return self._delivered(message)

    async def stream(self, request: PeerRequest) -> PeerReply | None:
        """A peer opens a stream, to read this member's messages to it."""
        headers = {**self._cluster, "X-Server-Version": VERSION}
        if request.method != "GET":
            return http_error(
                http_status.METHOD_NOT_ALLOWED, "Method Not Allowed", {"Allow": "GET"}
            )
        refusal = self._refuse(request, headers)
        if refusal is not None:
            return refusal
        kind, _, sender = request.path.removeprefix(STREAM_PATH).rpartition("/")
        if kind not in (MSGAPP, MESSAGE):
            return http_error(http_status.NOT_FOUND, "invalid path", headers)
        peer_id = parse_id(sender)
        if peer_id is None:
            return http_error(http_status.NOT_FOUND, "invalid from", headers)
        transport = self._transport
        if transport.raft.is_id_removed(peer_id):
            self._logger.warn(
                "rejected stream from remote peer because it was removed",
                local_member_id=format_id(transport.local_id),
                remote_peer_id_from=format_id(peer_id),
            )
            return http_error(http_status.GONE, "removed member", headers)
        if transport.peer(peer_id) is None:
            self._learn(request, peer_id)
            self._logger.warn(
                "failed to find remote peer in cluster",
                local_member_id=format_id(transport.local_id),
                remote_peer_id_from=format_id(peer_id),
                cluster_id=format_id(transport.cluster_id),
            )
            return http_error(http_status.NOT_FOUND, "error sender not found", headers)
        if request.headers.get("x-raft-to") != format_id(transport.local_id):
            return http_error(http_status.PRECONDITION_FAILED, "to field mismatch", headers)
        http = request.http
        http.start(
            http_status.OK,
            [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        )
        if http.done:
            return None  # the client has left already
        connection = _BodyConnection(http)
        version = request.headers.get("x-server-version", "")
        writer = transport.attach(peer_id, version, kind, connection)
        try:
            await connection.closed
        finally:
            writer.detach(connection)
            http.end()
        return None

    async def _read(self, request: PeerRequest) -> bytes | None:
        """A message's bytes; None when they are too many, do not arrive, or there is no room."""
        held = 0

        def hold(size: int) -> bool:
            nonlocal held
            held += size
            self._posted_bytes += size
            return self._posted_bytes <= POSTED_BYTES_MAX

        try:
            return await request.body.read_whole(self._posted_bytes_max, on_piece=hold)
        except BodyError:
            return None
        finally:
            self._posted_bytes -= held

    def _name(self, message: Message) -> str:
        """The label of the sender; strangers share one, or their ids would fill the memory."""
        known = self._transport.peer(message.from_) is not None
        return format_id(message.from_) if known else STRANGER

    def _refuse(
        self, request: PeerRequest, headers: dict[str, str] | None = None
    ) -> PeerReply | None:
        text = check_request(request.headers, self._transport.cluster_id)
        if text is None:
            return None
        self._logger.warn(
            "request cluster ID mismatch"
            if text.startswith("cluster")
            else "failed version compatibility check",
            local_member_id=format_id(self._transport.local_id),
            local_member_cluster_id=format_id(self._transport.cluster_id),
            remote_peer_server_name=request.headers.get("x-server-from", ""),
            remote_peer_server_version=request.headers.get("x-server-version", ""),
            remote_peer_cluster_id=request.headers.get("x-etcd-cluster-id", ""),
        )
        return http_error(http_status.PRECONDITION_FAILED, text, headers or self._cluster)

    def _refuse_message(self, message: Message) -> PeerReply | None:
        if message.to != self._transport.local_id:
            text = "cannot process message to mismatch member"
        elif self._transport.raft.is_id_removed(message.from_):
            text = "cannot process message from removed member"
        else:
            return None
        return json_error(http_status.FORBIDDEN, text, self._cluster)

    def _learn(self, request: PeerRequest, peer_id: int | None = None) -> None:
        if peer_id is None:
            peer_id = parse_id(request.headers.get("x-server-from", ""))
        try:
            urls = parse_urls(request.headers.get("x-peerurls", "").split(","))
        except URLError:
            return
        if peer_id is not None:
            self._transport.add_remote(peer_id, [str(url) for url in urls])
