"""Messages that fit no stream: one POST each, four at a time, at most 64 waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp

from keyraft.cluster import format_id
from keyraft.peer.compat import MemberRemovedError, PeerRefusal, check_post_response
from keyraft.peer.metrics import PeerMetrics
from keyraft.peer.status import PeerStatus
from keyraft.peer.urls import URLPicker
from keyraft.raft import codec
from keyraft.raft.types import Message

WORKERS: Final = 4
QUEUE_MESSAGES_MAX: Final = 64
POST_TIMEOUT_S: Final = 5.0


class Pipeline:
    """Posts messages to one peer and reports what became of them."""

    __slots__ = (
        "_headers",
        "_metrics",
        "_name",
        "_peer_id",
        "_picker",
        "_queue",
        "_removed",
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
        unreachable: Callable[[int], None],
        removed: Callable[[], None],
        metrics: PeerMetrics,
    ) -> None:
        self._peer_id = peer_id
        self._name = format_id(peer_id)
        self._session = session
        self._picker = picker
        self._headers = {**headers, "Content-Type": "application/protobuf"}
        self._status = status
        self._unreachable = unreachable
        self._removed = removed
        self._metrics = metrics
        self._queue: deque[Message] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, message: Message) -> bool:
        """Queues; False when the queue is full and the message was dropped."""
        if len(self._queue) >= QUEUE_MESSAGES_MAX:
            self._metrics.sent_failures[self._name] += 1
            return False
        self._queue.append(message)
        if len(self._tasks) < WORKERS:
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    async def stop(self) -> None:
        """Gives up what is queued and waits for the workers."""
        self._queue.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        while self._queue:
            await self._post(self._queue.popleft())

    async def _post(self, message: Message) -> None:
        url = self._picker.pick()
        body = codec.encode_message(message)
        try:
            async with self._session.post(
                f"{url}/raft",
                data=body,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=POST_TIMEOUT_S),
            ) as response:
                await check_post_response(response)
        except (PeerRefusal, aiohttp.ClientError, OSError, TimeoutError) as error:
            self._picker.unreachable(url)
            self._status.deactivate("pipeline", "write", str(error) or type(error).__name__)
            self._metrics.sent_failures[self._name] += 1
            self._unreachable(self._peer_id)
            if isinstance(error, MemberRemovedError):
                self._removed()
            return
        self._status.activate(asyncio.get_running_loop().time())
        self._metrics.sent_bytes[self._name] += len(body)
