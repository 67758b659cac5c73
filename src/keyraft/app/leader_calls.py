"""A follower asks the leader, for its clients, what only the leader can answer.

As in etcd, every peer URL of the leader is asked in turn, and again after 50 ms, until the request
timeout. "Not found" is an answer. After any other error it tries again, because the leader may
change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.peer.api_client import PeerApiClient
from keyraft.peer.compat import PeerRefusal
from keyraft.proto import rpc_pb2
from keyraft.server import Member

RETRY_S: Final = 0.05
FORWARDED_MAX: Final = 10_000  # calls under way; more are refused

_T = TypeVar("_T")


class Forwarding:
    """A `server.ports.LeaderCalls` over the API of the peer port. Owned by the loop."""

    def __init__(self, member: Member, ask: PeerApiClient) -> None:
        self._member = member
        self._ask = ask
        self._tasks: set[asyncio.Task[None]] = set()

    def renew(
        self, lease_id: int, done: Callable[[int | EtcdError | RawError], None]
    ) -> Callable[[], None]:
        """Renews a lease; calling the returned function cancels it."""
        timeout_s = self._member.settings.request_timeout_s
        return self._run(lambda url: self._ask.renew(url, lease_id, timeout_s), done)

    def time_to_live(
        self,
        lease_id: int,
        keys: bool,
        done: Callable[[rpc_pb2.LeaseTimeToLiveResponse | EtcdError | RawError], None],
    ) -> Callable[[], None]:
        """Asks about a lease."""
        timeout_s = self._member.settings.request_timeout_s
        return self._run(lambda url: self._ask.time_to_live(url, lease_id, keys, timeout_s), done)

    def promote(
        self,
        member_id: int,
        token: str | None,
        done: Callable[[EtcdError | RawError | None], None],
    ) -> Callable[[], None]:
        """Makes a learner a voter."""
        timeout_s = self._member.settings.request_timeout_s

        async def promote(url: str) -> None:
            await self._ask.promote(url, member_id, token, timeout_s)

        return self._run(promote, done)

    async def stop(self) -> None:
        """Cancels all calls."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(
        self,
        question: Callable[[str], Awaitable[_T]],
        done: Callable[[_T | EtcdError | RawError], None],
    ) -> Callable[[], None]:
        if len(self._tasks) >= FORWARDED_MAX:
            done(errors.TooManyRequestsError())
            return _nothing

        async def work() -> None:
            try:
                async with asyncio.timeout(self._member.settings.request_timeout_s):
                    answer: _T | EtcdError | RawError = await self._until_answered(question)
            except TimeoutError:
                answer = errors.RequestTimeoutError()
            except EtcdError as error:
                answer = error
            done(answer)

        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return lambda: _cancel(task)

    async def _until_answered(self, question: Callable[[str], Awaitable[_T]]) -> _T:
        member = self._member
        while True:
            leader = member.membership.cluster.member(member.leadership.leader)
            for url in leader.peer_urls if leader is not None else ():
                try:
                    return await question(url)
                except PeerRefusal:
                    continue
            await asyncio.sleep(RETRY_S)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def _nothing() -> None:
    """Nothing to cancel."""
