"""POSTs to one peer: the URL, the headers, and who is told whether they worked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

from keyraft.cluster import format_id
from keyraft.net import Http1Client, HttpError, failure_reason
from keyraft.peer.compat import MemberRemovedError, PeerRefusal, check_post_answer
from keyraft.peer.metrics import PeerMetrics
from keyraft.peer.status import PeerStatus
from keyraft.peer.urls import URLPicker


class Posting:
    """Shared by everything that posts to one peer; it owns the tasks that do so."""

    __slots__ = (
        "_client",
        "_headers",
        "_peer_id",
        "_picker",
        "_removed",
        "_status",
        "_tasks",
        "_unreachable",
        "metrics",
        "name",
    )

    def __init__(
        self,
        peer_id: int,
        client: Http1Client,
        picker: URLPicker,
        headers: Mapping[str, str],
        status: PeerStatus,
        unreachable: Callable[[int], None],
        removed: Callable[[], None],
        metrics: PeerMetrics,
    ) -> None:
        """`removed` is called when the peer says that this member was removed from the cluster."""
        self.name = format_id(peer_id)
        self.metrics = metrics
        self._peer_id = peer_id
        self._client = client
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
        """Cancels the tasks."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def post(
        self,
        path: str,
        body: bytes | AsyncIterator[bytes],
        content_type: str,
        action: tuple[str, str],
        *,
        timeout_s: float | None = None,
        still_s_max: float | None = None,
    ) -> str | None:
        """One POST; None, or why it failed. The failure has been reported to all who must know.

        `action` is what the log says was tried, in etcd's words; the limits are `Http1Client`'s.
        """
        url = self._picker.pick()
        try:
            answer = await self._client.request(
                "POST",
                url,
                path,
                headers={**self._headers, "Content-Type": content_type},
                body=body,
                timeout_s=timeout_s,
                still_s_max=still_s_max,
            )
            text = answer.body.decode("utf-8", "replace")
            check_post_answer(answer.status, text, f"{url}{path}")
        except (PeerRefusal, HttpError, OSError, TimeoutError) as error:
            reason = failure_reason(error)
            self._picker.unreachable(url)
            self._status.deactivate(*action, reason)
            self.metrics.sent_failures[self.name] += 1
            self._unreachable(self._peer_id)
            if isinstance(error, MemberRemovedError):
                self._removed()
            return reason
        self._status.activate(asyncio.get_running_loop().time())
        return None
