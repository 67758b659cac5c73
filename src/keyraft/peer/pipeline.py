"""Messages that fit no stream: one POST each, four at a time, at most 64 waiting."""

from __future__ import annotations

from collections import deque
from typing import Final

from keyraft.peer.posting import Posting
from keyraft.raft import codec
from keyraft.raft.types import Message

WORKERS: Final = 4
QUEUE_MESSAGES_MAX: Final = 64
POST_TIMEOUT_S: Final = 5.0


class Pipeline:
    """Posts messages to one peer."""

    __slots__ = ("_posting", "_queue", "_workers")

    def __init__(self, posting: Posting) -> None:
        self._posting = posting
        self._queue: deque[Message] = deque()
        self._workers = 0

    def send(self, message: Message) -> bool:
        """Queues; False when the queue is full and the message was dropped."""
        if len(self._queue) >= QUEUE_MESSAGES_MAX:
            self._posting.metrics.sent_failures[self._posting.name] += 1
            return False
        self._queue.append(message)
        if self._workers < WORKERS:
            self._workers += 1
            self._posting.start(self._work())
        return True

    async def stop(self) -> None:
        """Gives up what is queued and everything else that is being posted there."""
        self._queue.clear()
        await self._posting.stop()

    async def _work(self) -> None:
        try:
            while self._queue:
                await self._post(self._queue.popleft())
        finally:
            self._workers -= 1

    async def _post(self, message: Message) -> None:
        posting = self._posting
        body = codec.encode_message(message)
        action = ("pipeline", "write")
        reason = await posting.post(
            "/raft", body, "application/protobuf", action, timeout_s=POST_TIMEOUT_S
        )
        if reason is None:
            posting.metrics.sent_bytes[posting.name] += len(body)
