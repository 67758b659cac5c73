"""Sending a whole database to a peer that needs entries older than the log.

One POST: the length of the message (8 bytes, big-endian), the raftpb.Message of type SNAP, then
the database file to the end. The sender learns from the answer (204) that the peer has saved it
and stepped the message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from keyraft.base.log import Logger
from keyraft.peer.frames import snapshot_head
from keyraft.peer.posting import Posting
from keyraft.raft.types import Message

ANSWER_TIMEOUT_S: Final = 300.0  # without a byte moving in either direction


class SnapshotSender:
    """Streams database files to one peer."""

    __slots__ = ("_logger", "_posting", "_report")

    def __init__(
        self, posting: Posting, report: Callable[[int, bool], None], logger: Logger
    ) -> None:
        """`report` tells Raft whether a transfer succeeded."""
        self._posting = posting
        self._report = report
        self._logger = logger

    def send(self, message: Message, database: AsyncIterator[bytes], size_bytes: int) -> None:
        """Starts a transfer; its result is reported to Raft."""
        self._posting.start(self._send(message, database, size_bytes))

    async def _send(
        self, message: Message, database: AsyncIterator[bytes], size_bytes: int
    ) -> None:
        posting, name, metrics = self._posting, self._posting.name, self._posting.metrics
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        index = message.snapshot.meta.index if message.snapshot is not None else 0
        fields = {"snapshot_index": index, "remote_peer_id": name, "bytes": size_bytes}
        self._logger.info("sending database snapshot", **fields)
        metrics.snapshot_send_inflight[name] += 1
        try:
            reason = await posting.post(
                "/raft/snapshot",
                _body(message, database),
                "application/octet-stream",
                ("sendMsgSnap", "post"),
                still_s_max=ANSWER_TIMEOUT_S,
            )
        finally:
            metrics.snapshot_send_inflight[name] -= 1
        if reason is not None:
            self._logger.warn("failed to send database snapshot", **fields, error=reason)
            metrics.snapshot_send_failures[name] += 1
        else:
            metrics.sent_bytes[name] += size_bytes
            metrics.snapshot_sent[name] += 1
            metrics.snapshot_send_s.append((name, loop.time() - started_s))
            self._logger.info("sent database snapshot", **fields)
        self._report(message.to, reason is None)


async def _body(message: Message, database: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield snapshot_head(message)
    async for chunk in database:
        yield chunk
