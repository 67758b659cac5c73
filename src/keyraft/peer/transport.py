"""The network of one member: a peer object for every other member, and the way to each.

APP messages take the `msgapp` stream, everything else the `message` stream; a message whose stream
is not open is posted over the pipeline; SNAP messages go with their database in a transfer of their
own. Sending never waits and never fails. A message that cannot be queued is dropped, and the peer
is reported unreachable to Raft, so a dead or slow peer does not disturb the others.

Owned by the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from keyraft.base.log import Logger
from keyraft.base.urls import URLError, parse_urls
from keyraft.cluster import format_id
from keyraft.net import Http1Client
from keyraft.peer.compat import request_headers
from keyraft.peer.metrics import PeerMetrics
from keyraft.peer.pipeline import Pipeline
from keyraft.peer.posting import Posting
from keyraft.peer.prober import Prober
from keyraft.peer.snapshot import SnapshotSender
from keyraft.peer.status import PeerStatus
from keyraft.peer.stream import (
    LINK_HEARTBEAT_S,
    MESSAGE,
    MSGAPP,
    STREAM_NAMES,
    DialTerms,
    OpenBody,
    StreamReader,
    StreamWriter,
)
from keyraft.peer.urls import URLPicker
from keyraft.raft.types import Message, MessageType

if TYPE_CHECKING:
    from keyraft.net import ClientTLS

_APP: Final = int(MessageType.APP)
REMOTES_MAX: Final = 64  # unknown senders that can be answered at the same time
DROP_REPORT_S: Final = 1.0  # a dropped message is logged at most this often per peer


class RaftReceiver(Protocol):
    """What the transport tells the member."""

    def process(self, messages: list[Message]) -> bool:
        """Messages for this member arrived, in the order of one stream.

        False when one of them breaks a bound of Raft; that one had no effect.
        """

    def is_id_removed(self, member_id: int) -> bool:
        """Whether this id once belonged to the cluster and never will again."""

    def report_unreachable(self, member_id: int) -> None:
        """The last message to this peer did not get through."""

    def report_snapshot(self, member_id: int, ok: bool) -> None:
        """A transfer to this peer ended."""

    def removed_from_cluster(self) -> None:
        """A peer says that this member was removed."""


class Peer:
    """One other member: two writers, two readers, a pipeline and a prober."""

    def __init__(self, transport: Transport, peer_id: int, urls: Iterable[str]) -> None:
        self.id = peer_id
        self.version = ""  # as last said when it opened a stream
        self.picker = URLPicker(urls)
        logger, metrics = transport.logger, transport.metrics
        logger.info("starting remote peer", remote_peer_id=format_id(peer_id))
        self.status = PeerStatus(peer_id, logger, metrics)
        self.writers = {
            kind: StreamWriter(
                kind, peer_id, self.status, logger, metrics, transport.terms.write_timeout_s
            )
            for kind in (MSGAPP, MESSAGE)
        }
        raft = transport.raft
        posting = Posting(
            peer_id,
            transport.client,
            self.picker,
            transport.headers,
            self.status,
            raft.report_unreachable,
            raft.removed_from_cluster,
            metrics,
        )
        self.pipeline = Pipeline(posting)
        self.snapshots = SnapshotSender(posting, raft.report_snapshot, logger)
        self.prober = Prober(peer_id, transport.client, self.picker, logger, metrics)
        self.dropped_report_s = float("-inf")
        loop = asyncio.get_running_loop()
        self.tasks = [
            loop.create_task(
                StreamReader(
                    kind,
                    transport.local_id,
                    peer_id,
                    transport.tls,
                    transport.terms,
                    self.picker,
                    transport.headers,
                    self.status,
                    transport.deliver,
                    raft.removed_from_cluster,
                    logger,
                    metrics,
                ).run()
            )
            for kind in (MSGAPP, MESSAGE)
        ]
        self.tasks.append(loop.create_task(self.prober.run()))
        self.tasks.append(loop.create_task(self._heartbeats()))
        logger.info("started remote peer", remote_peer_id=format_id(peer_id))

    def send(self, message: Message) -> tuple[bool, str]:
        """Whether the message was queued, and on which channel it should have gone."""
        writers = self.writers
        if message.type == _APP and writers[MSGAPP].working:
            return writers[MSGAPP].send(message), STREAM_NAMES[MSGAPP]
        if writers[MESSAGE].working:
            return writers[MESSAGE].send(message), STREAM_NAMES[MESSAGE]
        return self.pipeline.send(message), "pipeline"

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(LINK_HEARTBEAT_S)
            for writer in self.writers.values():
                writer.tick()

    async def stop(self) -> None:
        """Ends every channel and waits for it."""
        for task in self.tasks:
            task.cancel()
        for writer in self.writers.values():
            writer.stop()
        await asyncio.gather(*self.tasks, self.pipeline.stop(), return_exceptions=True)


class Transport:
    """All peers of one member. Made inside a running loop; `stop` ends everything it started."""

    def __init__(
        self,
        local_id: int,
        cluster_id: int,
        peer_urls: Sequence[str],
        raft: RaftReceiver,
        logger: Logger,
        *,
        tls: ClientTLS | None = None,
        terms: DialTerms | None = None,
    ) -> None:
        self.local_id = local_id
        self.cluster_id = cluster_id
        self.raft = raft
        self.logger = logger
        self.metrics = PeerMetrics()
        self.headers = request_headers(local_id, cluster_id, peer_urls)
        self._peers: dict[int, Peer] = {}
        self._remotes: dict[int, Pipeline] = {}
        self._stopping: set[asyncio.Task[None]] = set()

        self.tls = tls
        self.terms = terms = terms or DialTerms()
        self.client = Http1Client(
            tls=tls, dial_timeout_s=terms.dial_timeout_s, local_host=terms.local_host
        )

    # --- membership ---------------------------------------------------------------------------

    def add_peer(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """A member joined; a peer that is there already stays as it is."""
        if member_id in self._peers or member_id == self.local_id:
            return
        if not self._can_dial(member_id, peer_urls):
            return
        remote = self._remotes.pop(member_id, None)
        if remote is not None:
            self._finish(remote.stop())
        self._peers[member_id] = Peer(self, member_id, peer_urls)
        self.logger.info(
            "added remote peer",
            local_member_id=format_id(self.local_id),
            remote_peer_id=format_id(member_id),
            remote_peer_urls=list(peer_urls),
        )

    def add_remote(self, peer_id: int, urls: Sequence[str]) -> None:
        """Adds a sender that may be a member that this one does not know yet, to answer it.

        Only the pipeline goes there, until the log tells that the member joined.
        """
        if peer_id in self._peers or peer_id in self._remotes or peer_id == self.local_id:
            return
        if len(self._remotes) >= REMOTES_MAX or self.raft.is_id_removed(peer_id):
            return
        picker = URLPicker(urls)
        posting = Posting(
            peer_id,
            self.client,
            picker,
            self.headers,
            PeerStatus(peer_id, self.logger, self.metrics),
            self.raft.report_unreachable,
            self.raft.removed_from_cluster,
            self.metrics,
        )
        self._remotes[peer_id] = Pipeline(posting)
        self.logger.info(
            "added new remote peer",
            local_member_id=format_id(self.local_id),
            remote_peer_id=format_id(peer_id),
            remote_peer_urls=list(urls),
        )

    def remove_peer(self, member_id: int) -> None:
        """A member left."""
        peer = self._peers.pop(member_id, None)
        if peer is not None:
            self._finish(peer.stop())
            self.logger.info(
                "removed remote peer",
                local_member_id=format_id(self.local_id),
                removed_remote_peer_id=format_id(member_id),
            )

    def update_peer(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """A member moved."""
        peer = self._peers.get(member_id)
        if peer is None or not self._can_dial(member_id, peer_urls):
            return
        peer.picker.update(peer_urls)
        self.logger.info(
            "updated remote peer",
            local_member_id=format_id(self.local_id),
            updated_remote_peer_id=format_id(member_id),
            updated_remote_peer_urls=list(peer_urls),
        )

    def _can_dial(self, member_id: int, peer_urls: Sequence[str]) -> bool:
        """Whether these are URLs that can be dialled; a foreign database may hold others."""
        try:
            return bool(parse_urls(peer_urls))
        except URLError as error:
            self.logger.error(
                "a member cannot be reached", remote_peer_id=format_id(member_id), error=str(error)
            )
            return False

    def peer(self, peer_id: int) -> Peer | None:
        """The peer of that id, if it is a member."""
        return self._peers.get(peer_id)

    def active_since(self, member_id: int) -> float | None:
        """Loop time since when the peer has been reachable; None while it is not."""
        peer = self._peers.get(member_id)
        return peer.status.active_since_s if peer is not None and peer.status.active else None

    def versions(self) -> dict[int, str | None]:
        """The server version that each peer last gave; None for those that do not answer."""
        return {peer_id: peer.prober.version for peer_id, peer in self._peers.items()}

    def last_versions(self) -> list[str]:
        """The version that each peer gave when it last opened a stream, if it ever did."""
        return [peer.version for peer in self._peers.values() if peer.version]

    def active_peers(self) -> int:
        """How many peers are reachable."""
        return sum(peer.status.active for peer in self._peers.values())

    # --- messages -----------------------------------------------------------------------------

    def send(self, messages: Iterable[Message]) -> None:
        """Sends what Raft wants sent, but for SNAP messages (`send_snapshot`)."""
        for message in messages:
            if message.to == 0:
                continue
            peer = self._peers.get(message.to)
            if peer is not None:
                sent, channel = peer.send(message)
                if not sent:
                    self._dropped(peer, message, channel)
                continue
            remote = self._remotes.get(message.to)
            if remote is not None:
                remote.send(message)
            else:
                self.logger.debug(
                    "ignored message send request; unknown remote peer target",
                    type=MessageType(message.type).name,
                    unknown_target_peer_id=format_id(message.to),
                )

    def send_snapshot(
        self, message: Message, database: AsyncIterator[bytes], size_bytes: int
    ) -> bool:
        """Starts the transfer of a database; False when the target is no peer."""
        peer = self._peers.get(message.to)
        if peer is None:
            return False
        peer.snapshots.send(message, database, size_bytes)
        return True

    def deliver(self, messages: list[Message]) -> bool:
        """Gives messages from a stream to Raft; see `RaftReceiver.process`."""
        return self.raft.process(messages)

    def attach(self, peer_id: int, version: str, kind: str, connection: OpenBody) -> StreamWriter:
        """The peer opened a stream towards this member; raises KeyError for a stranger."""
        peer = self._peers[peer_id]
        peer.version = version
        writer = peer.writers[kind]
        writer.attach(connection, asyncio.get_running_loop().time())
        return writer

    async def stop(self) -> None:
        """Ends every peer and every connection."""
        peers, self._peers = list(self._peers.values()), {}
        remotes, self._remotes = list(self._remotes.values()), {}
        await asyncio.gather(
            *(peer.stop() for peer in peers),
            *(remote.stop() for remote in remotes),
            *self._stopping,
            return_exceptions=True,
        )
        self.client.close()

    def _dropped(self, peer: Peer, message: Message, channel: str) -> None:
        self.raft.report_unreachable(peer.id)
        now_s = asyncio.get_running_loop().time()
        if now_s - peer.dropped_report_s < DROP_REPORT_S:
            return
        peer.dropped_report_s = now_s
        self.logger.warn(
            "dropped internal Raft message since sending buffer is full",
            message_type=MessageType(message.type).name,
            local_member_id=format_id(self.local_id),
            remote_peer_id=format_id(peer.id),
            remote_peer_name=channel,
            remote_peer_active=peer.status.active,
        )

    def _finish(self, ending: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(ending)
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
