"""The peer port: where other members post messages, open streams and send databases.

HTTP/1.1 by aiohttp; paths, texts and codes are etcd's (`rafthttp`), so Go members talk to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final, Protocol

from aiohttp import web

from keyraft.base.log import Logger
from keyraft.base.version import VERSION
from keyraft.cluster import format_id
from keyraft.peer.compat import check_request, http_error
from keyraft.peer.frames import SNAPSHOT_MESSAGE_BYTES_MAX, FrameError, decode
from keyraft.peer.stream import MESSAGE, MSGAPP
from keyraft.peer.transport import Transport
from keyraft.raft.types import Message, MessageType

PIPELINE_BYTES_MAX: Final = 512 * 1024 * 1024  # one posted message
_CHUNK_BYTES: Final = 64 * 1024


class SnapshotReceiver(Protocol):
    """Where an incoming database goes before Raft hears of it."""

    async def receive_snapshot(self, message: Message, database: AsyncIterator[bytes]) -> int:
        """Saves the file durably and returns its size in bytes; raises OSError or ValueError."""


class _BodyConnection:
    """The chunked body of a response, written without waiting."""

    __slots__ = ("_transport", "closed")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        # At once, not at the end of the loop's turn: the leader's own sync may hold up the turn.
        transport.set_write_buffer_limits(high=0)
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

    def __init__(self, transport: Transport, receiver: SnapshotReceiver, logger: Logger) -> None:
        self._transport = transport
        self._receiver = receiver
        self._logger = logger
        self._cluster = {"X-Etcd-Cluster-ID": format_id(transport.cluster_id)}

    def register(self, app: web.Application) -> None:
        """Adds the routes; other methods get 405 as the original answers them."""
        app.router.add_route("*", "/raft", self.pipeline)
        app.router.add_route("*", "/raft/snapshot", self.snapshot)
        app.router.add_route("*", "/raft/probing", self.probing)
        app.router.add_route("*", "/raft/stream/{rest:.*}", self.stream)

    async def probing(self, request: web.Request) -> web.Response:
        """Says that this member is there, and what time it has."""
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return web.Response(
            text=f'{{"OK":true,"Now":"{now}"}}\n', content_type="text/plain", charset="utf-8"
        )

    async def pipeline(self, request: web.Request) -> web.Response:
        """One posted message."""
        if request.method != "POST":
            return http_error(405, "Method Not Allowed", {"Allow": "POST"})
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        self._learn(request)
        body = await _read_limited(request, PIPELINE_BYTES_MAX)
        if body is None:
            return http_error(400, "error reading raft message", self._cluster)
        try:
            message = decode(body)
        except FrameError as error:
            self._logger.warn("failed to unmarshal Raft message", error=str(error))
            return http_error(400, "error unmarshalling raft message", self._cluster)
        self._transport.metrics.received_bytes[format_id(message.from_)] += len(body)
        refusal = self._refuse_message(message)
        if refusal is not None:
            return refusal
        self._transport.deliver([message])
        return web.Response(status=204, headers=self._cluster)

    async def snapshot(self, request: web.Request) -> web.Response:
        """A database: saved first, then told to Raft."""
        metrics = self._transport.metrics
        if request.method != "POST":
            return http_error(405, "Method Not Allowed", {"Allow": "POST"})
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        self._learn(request)
        head = await _read_exactly(request, 8)
        length = int.from_bytes(head, "big") if head is not None else -1
        if not 0 <= length <= SNAPSHOT_MESSAGE_BYTES_MAX:
            return http_error(400, "failed to decode raft message (unexpected EOF)", self._cluster)
        encoded = await _read_exactly(request, length)
        try:
            if encoded is None:
                raise FrameError("unexpected EOF")
            message = decode(encoded)
        except FrameError as error:
            return http_error(400, f"failed to decode raft message ({error})", self._cluster)
        name = format_id(message.from_)
        if message.type != MessageType.SNAP or message.snapshot is None:
            metrics.snapshot_receive_failures[name] += 1
            return http_error(400, "wrong raft message type", self._cluster)
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
            size = await self._receiver.receive_snapshot(
                message, request.content.iter_chunked(_CHUNK_BYTES)
            )
        except (OSError, ValueError, web.RequestPayloadError) as error:
            metrics.snapshot_receive_failures[name] += 1
            self._logger.warn(
                "failed to save incoming database snapshot", **fields, error=str(error)
            )
            return http_error(500, f"failed to save KV snapshot ({error})", self._cluster)
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
        self._transport.deliver([message])
        return web.Response(status=204, headers=self._cluster)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """A peer wants to hear what this member has to say to it."""
        headers = {**self._cluster, "X-Server-Version": VERSION}
        if request.method != "GET":
            return http_error(405, "Method Not Allowed", {"Allow": "GET"})
        refusal = self._refuse(request, headers)
        if refusal is not None:
            return refusal
        kind, _, sender = request.match_info["rest"].rpartition("/")
        if kind not in (MSGAPP, MESSAGE):
            return http_error(404, "invalid path", headers)
        try:
            peer_id = int(sender, 16)
        except ValueError:
            return http_error(404, "invalid from", headers)
        transport = self._transport
        if transport.raft.is_id_removed(peer_id):
            self._logger.warn(
                "rejected stream from remote peer because it was removed",
                local_member_id=format_id(transport.local_id),
                remote_peer_id_from=format_id(peer_id),
            )
            return http_error(410, "removed member", headers)
        if transport.peer(peer_id) is None:
            self._learn(request, peer_id)
            self._logger.warn(
                "failed to find remote peer in cluster",
                local_member_id=format_id(transport.local_id),
                remote_peer_id_from=format_id(peer_id),
                cluster_id=format_id(transport.cluster_id),
            )
            return http_error(404, "error sender not found", headers)
        if request.headers.get("X-Raft-To") != format_id(transport.local_id):
            return http_error(412, "to field mismatch", headers)
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
        except ConnectionError:
            return response  # it has gone already
        socket = request.transport  # None as soon as the peer has gone
        if socket is None:
            return response
        connection = _BodyConnection(socket)
        writer = transport.attach(peer_id, request.headers["X-Server-Version"], kind, connection)
        try:
            await connection.closed
        finally:
            writer.detach(connection)
            socket.close()
        return response

    def _refuse(
        self, request: web.Request, headers: dict[str, str] | None = None
    ) -> web.Response | None:
        text = check_request(request.headers, self._transport.cluster_id)
        if text is None:
            return None
        self._logger.warn(
            "request cluster ID mismatch"
            if text.startswith("cluster")
            else "failed version compatibility check",
            local_member_id=format_id(self._transport.local_id),
            local_member_cluster_id=format_id(self._transport.cluster_id),
            remote_peer_server_name=request.headers.get("X-Server-From", ""),
            remote_peer_server_version=request.headers.get("X-Server-Version", ""),
            remote_peer_cluster_id=request.headers.get("X-Etcd-Cluster-ID", ""),
        )
        return http_error(412, text, headers or self._cluster)

    def _refuse_message(self, message: Message) -> web.Response | None:
        if message.to != self._transport.local_id:
            text = "cannot process message to mismatch member"
        elif self._transport.raft.is_id_removed(message.from_):
            text = "cannot process message from removed member"
        else:
            return None
        return web.json_response({"message": text}, status=403, headers=self._cluster)

    def _learn(self, request: web.Request, peer_id: int | None = None) -> None:
        urls = request.headers.get("X-PeerURLs", "")
        if peer_id is None:
            try:
                peer_id = int(request.headers.get("X-Server-From", ""), 16)
            except ValueError:
                return
        if urls:
            self._transport.add_remote(peer_id, urls.split(","))


async def _read_exactly(request: web.Request, size: int) -> bytes | None:
    try:
        return await request.content.readexactly(size)
    except (asyncio.IncompleteReadError, web.RequestPayloadError):
        return None


async def _read_limited(request: web.Request, limit: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > limit:
            return None
        parts.append(chunk)
    return b"".join(parts)
