"""Every peer's hash of its keys, asked over the peer port: `GET /members/hashkv`; and a peer's
database, for a member whose own is wrong: `POST /members/database`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from keyraft.base.errors import EtcdError
from keyraft.cluster import MemberRecord
from keyraft.mvcc import KVHash
from keyraft.peer.api_client import PeerApiClient
from keyraft.peer.compat import PeerRefusal
from keyraft.server import Member, PeerHash


class HashQuestions:
    """A `server.ports.PeerHashes`. Owned by the loop."""

    def __init__(self, member: Member, ask: PeerApiClient) -> None:
        self._member = member
        self._ask = ask
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, revision: int, done: Callable[[Sequence[PeerHash]], None]) -> None:
        """Asks all peers at once."""

        async def work() -> None:
            own = self._member.settings.member_id
            peers = [
                peer
                for peer in self._member.membership.cluster.members
                if peer.id != own and peer.peer_urls
            ]
            done(await asyncio.gather(*(self._one(peer, revision) for peer in peers)))

        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, peer: MemberRecord, revision: int) -> PeerHash:
        """Asks the URLs of one peer in turn, until one answers."""
        settings = self._member.settings
        refusal: EtcdError | None = None
        for url in peer.peer_urls:
            try:
                answer = await self._ask.hash_kv(
                    url, settings.cluster_id, revision, settings.request_timeout_s
                )
            except (EtcdError, PeerRefusal) as error:
                refusal = error if isinstance(error, EtcdError) else None
                self._member.logger.warn(
                    "failed hash kv request",
                    local_member_id=f"{settings.member_id:x}",
                    requested_revision=revision,
                    remote_peer_endpoint=url,
                    error=str(error),
                )
                continue
            # 3.5 does not return the revision that it hashed: it is the requested one.
            found = KVHash(answer.hash, answer.compact_revision, answer.hash_revision or revision)
            return PeerHash(peer.id, peer.peer_urls, answer.revision, found)
        return PeerHash(peer.id, peer.peer_urls, error=refusal)

    def ask_database(self, member_id: int, done: Callable[[str], None]) -> None:
        """See `server.ports.PeerHashes`."""

        async def work() -> None:
            settings = self._member.settings
            peer = self._member.membership.cluster.member(member_id)
            refusal = "the member is unknown"
            for url in peer.peer_urls if peer is not None else ():
                try:
                    await self._ask.ask_database(
                        url, settings.cluster_id, settings.member_id, settings.request_timeout_s
                    )
                except PeerRefusal as error:
                    refusal = str(error)
                else:
                    refusal = ""
                    break
            done(refusal)

        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancels all requests."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
