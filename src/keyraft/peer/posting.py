"""POSTs to one peer: where to, with what they say of us, and who hears how it went."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

import aiohttp

from keyraft.cluster import format_id
from keyraft.peer.compat import MemberRemovedError, PeerRefusal, check_post_response
from keyraft.peer.metrics import PeerMetrics
from keyraft.peer.status import PeerStatus
from keyraft.peer.urls import URLPicker


class Posting:
    """Shared by all that posts to one peer, which runs as its tasks."""

    __slots__ = (
        "_headers",
        "_peer_id",
        "_picker",
        "_removed",
        "_session",
        "_status",
        "_tasks",
        "_unreachable",
        "metrics",
        "name",
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
        """`removed` is called when the peer says that this member is none any more."""
        self.name = format_id(peer_id)
        self.metrics = metrics
        self._peer_id = peer_id
        self._session = session
        self._picker = picker
        self._headers = headers
        self._status = status
        self._unreachable = unreachable
        self._removed = removed
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[object, object, None]) -> None:
        """Runs `work` until it ends or `stop`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Breaks off what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def post(
        self,
        path: str,
        body: bytes | AsyncIterator[bytes],
        content_type: str,
        timeout: aiohttp.ClientTimeout,
        action: tuple[str, str],
    ) -> str | None:
        """One POST; None, or why it failed, which everybody concerned has been told.

        `action` is what the log says was tried, in etcd's words.
        """
        url = self._picker.pick()
        try:
            async with self._session.post(
                f"{url}{path}",
                data=body,
                headers={**self._headers, "Content-Type": content_type},
                timeout=timeout,
            ) as response:
                await check_post_response(response)
        except (PeerRefusal, aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            self._picker.unreachable(url)
            self._status.deactivate(*action, reason)
            self.metrics.sent_failures[self.name] += 1
            self._unreachable(self._peer_id)
            if isinstance(error, MemberRemovedError):
                self._removed()
            return reason
        self._status.activate(asyncio.get_running_loop().time())
        return None
