"""Sending a whole database to a peer that the log can no longer catch up.

One POST: the length of the message (8 bytes, big-endian), the raftpb.Message of type SNAP, then
the database file to the end. The sender learns from the answer (204) that the peer has saved it
and stepped the message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import aiohttp

from keyraft.base.log import Logger
from keyraft.cluster import format_id
from keyraft.peer.compat import MemberRemovedError, PeerRefusal, check_post_response
from keyraft.peer.frames import snapshot_head
from keyraft.peer.metrics import PeerMetrics
from keyraft.peer.status import PeerStatus
from keyraft.peer.urls import URLPicker
from keyraft.raft.types import Message

ANSWER_TIMEOUT_S: Final = 300.0  # without a byte moving in either direction


class SnapshotSender:
    """Streams database files to one peer."""

    __slots__ = (
        "_headers",
        "_logger",
        "_metrics",
        "_name",
        "_peer_id",
        "_picker",
        "_removed",
        "_report",
        "_session",
        "_status",
        "_tasks",
        "_unreachable",
    )

    def __init__(
        self,
        peer_id: int,
        session: aiohttp.ClientSession,
        picker: URLPicker,
        headers: Mapping[str, str],
        status: PeerStatus,
        report: Callable[[int, bool], None],
        unreachable: Callable[[int], None],
        removed: Callable[[], None],
        logger: Logger,
        metrics: PeerMetrics,
    ) -> None:
        self._peer_id = peer_id
        self._name = format_id(peer_id)
        self._session = session
        self._picker = picker
        self._headers = {**headers, "Content-Type": "application/octet-stream"}
        self._status = status
        self._report = report
        self._unreachable = unreachable
        self._removed = removed
        self._logger = logger
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, message: Message, database: AsyncIterator[bytes], size_bytes: int) -> None:
        """Starts a transfer; what became of it is reported to Raft."""
        task = asyncio.get_running_loop().create_task(self._send(message, database, size_bytes))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Breaks off what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(
        self, message: Message, database: AsyncIterator[bytes], size_bytes: int
    ) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        index = message.snapshot.meta.index if message.snapshot is not None else 0
        fields = {"snapshot_index": index, "remote_peer_id": self._name, "bytes": size_bytes}
        self._logger.info("sending database snapshot", **fields)
        url = self._picker.pick()
        self._metrics.snapshot_send_inflight[self._name] += 1
        try:
            async with self._session.post(
                f"{url}/raft/snapshot",
                data=_body(message, database),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_read=ANSWER_TIMEOUT_S),
            ) as response:
                await check_post_response(response)
        except (PeerRefusal, aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            self._logger.warn("failed to send database snapshot", **fields, error=reason)
            self._picker.unreachable(url)
            self._status.deactivate("sendMsgSnap", "post", reason)
            self._metrics.sent_failures[self._name] += 1
            self._metrics.snapshot_send_failures[self._name] += 1
            if isinstance(error, MemberRemovedError):
                self._removed()
            self._unreachable(self._peer_id)
            self._report(self._peer_id, False)
            return
        finally:
            self._metrics.snapshot_send_inflight[self._name] -= 1
        self._status.activate(loop.time())
        self._metrics.sent_bytes[self._name] += size_bytes
        self._metrics.snapshot_sent[self._name] += 1
        self._metrics.snapshot_send_s.append((self._name, loop.time() - started_s))
        self._logger.info("sent database snapshot", **fields)
        self._report(self._peer_id, True)


async def _body(message: Message, database: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield snapshot_head(message)
    async for chunk in database:
        yield chunk
