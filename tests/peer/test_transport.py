"""Members talk to each other over real sockets, and to a real Go member."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest

from keyraft.base.log import NullLogger
from keyraft.grpc import Limits, Router
from keyraft.net import PEER_PORT, Http1Client, Http1Service, Server
from keyraft.peer.exchange import PeerReply, PeerRequest, Routes
from keyraft.peer.handlers import RaftHandlers
from keyraft.peer.transport import Transport
from keyraft.raft.types import Entry, Message, MessageType, Snapshot, SnapshotMeta
from tests.support.server import ORACLE, needs_oracle

CLUSTER = 0xC1
WAIT_S = 30.0


class Recorder:
    """A Raft that remembers what it was told."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.unreachable: list[int] = []
        self.snapshots: list[tuple[int, bool]] = []
        self.removed_ids: set[int] = set()
        self.removed = False
        self.database = b""
        self.changed = asyncio.Event()

    def process(self, messages: list[Message]) -> bool:
        self.messages += messages
        self.changed.set()
        return True

    def is_id_removed(self, member_id: int) -> bool:
        return member_id in self.removed_ids

    def report_unreachable(self, member_id: int) -> None:
        self.unreachable.append(member_id)
        self.changed.set()

    def report_snapshot(self, member_id: int, ok: bool) -> None:
        self.snapshots.append((member_id, ok))
        self.changed.set()

    def removed_from_cluster(self) -> None:
        self.removed = True
        self.changed.set()

    async def receive_snapshot(self, message: Message, database: AsyncIterator[bytes]) -> int:
        self.database = b"".join([chunk async for chunk in database])
        return len(self.database)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                try:
                    async with asyncio.timeout(0.05):
                        await self.changed.wait()
                except TimeoutError:
                    continue


class Lines(NullLogger):
    """What an operator reads."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, dict[str, object]]] = []
        self.infos: list[tuple[str, dict[str, object]]] = []

    def warn(self, message: str, **fields: object) -> None:
        self.warnings.append((message, fields))

    def info(self, message: str, **fields: object) -> None:
        self.infos.append((message, fields))


class Member:
    """A transport with its peer port."""

    def __init__(self, member_id: int, cluster_id: int = CLUSTER) -> None:
        self.id = member_id
        self.lines = Lines()
        self.cluster_id = cluster_id
        self.raft = Recorder()

    async def start(self, port: int = 0) -> None:
        routes = Routes(self.lines)
        self.transport = Transport(self.id, self.cluster_id, [], self.raft, self.lines)
        routes.add("/version", self.version)
        RaftHandlers(self.transport, self.raft, self.lines).register(routes)
        loop = asyncio.get_running_loop()
        service = Http1Service(routes.handle, loop, PEER_PORT, early=True)
        self.routes = routes
        self.server = Server(loop, Router(), Limits(), None, http1=service)
        await self.server.listen(f"http://127.0.0.1:{port}", None)
        self.url = f"http://{self.server.addresses[0]}"

    async def version(self, asked: PeerRequest) -> PeerReply:
        return PeerReply(200, '{"etcdserver":"3.7.1","etcdcluster":"3.7.0"}')

    async def stop(self) -> None:
        await self.transport.stop()
        await self.routes.stop()
        await self.server.stop()


async def pair() -> tuple[Member, Member]:
    a, b = Member(1), Member(2)
    await a.start()
    await b.start()
    a.transport.add_peer(2, [b.url])
    b.transport.add_peer(1, [a.url])
    return a, b


def run(main: Coroutine[object, object, None]) -> None:
    asyncio.run(main)


def heartbeat(to: int, from_: int, term: int = 1) -> Message:
    return Message(type=MessageType.HEARTBEAT, to=to, from_=from_, term=term)


def working(member: Member, peer_id: int) -> bool:
    peer = member.transport.peer(peer_id)
    return peer is not None and all(writer.working for writer in peer.writers.values())


def test_the_operator_is_told_of_peers_that_come_and_go_and_of_strangers() -> None:
    async def main() -> None:
        a, b = await pair()
        await a.raft.until(lambda: working(a, 2) and working(b, 1))
        assert ("peer became active", {"peer_id": "2"}) in a.lines.infos
        await b.stop()
        gone = "peer became inactive (message send to peer failed)"
        await a.raft.until(lambda: any(text == gone for text, _ in a.lines.warnings))
        stranger = Member(3, cluster_id=0xBAD)
        await stranger.start()
        stranger.transport.add_peer(1, [a.url])
        ignored = "request sent was ignored by remote peer due to cluster ID mismatch"
        await stranger.raft.until(lambda: ignored in dict(stranger.lines.warnings))
        told = dict(stranger.lines.warnings)[ignored]
        assert told["local_member_cluster_id"] == "bad" and told["remote_peer_id"] == "1"
        refused = dict(a.lines.warnings)["request cluster ID mismatch"]
        assert refused["remote_peer_cluster_id"] == "bad"
        await stranger.stop()
        await a.stop()

    run(main())


def test_messages_pass_in_both_directions_over_the_streams() -> None:
    async def main() -> None:
        a, b = await pair()
        await a.raft.until(lambda: working(a, 2) and working(b, 1))
        entries = [Entry(1, i, b"v" * 100) for i in range(1, 501)]
        sent = [
            Message(
                type=MessageType.APP,
                to=2,
                from_=1,
                term=1,
                log_term=1 if i else 0,
                index=i * 100,
                entries=entries[i * 100 : i * 100 + 100],
            )
            for i in range(5)
        ]
        a.transport.send(sent)
        b.transport.send([heartbeat(1, 2)])
        await b.raft.until(lambda: len(b.raft.messages) == 5)
        assert b.raft.messages == sent
        await a.raft.until(lambda: a.raft.messages == [heartbeat(1, 2)])
        assert a.transport.active_peers() == 1
        since = a.transport.active_since(2)
        assert since is not None and since > 0
        assert a.transport.active_since(7) is None
        await a.raft.until(lambda: a.transport.versions() == {2: "3.7.1"})
        await a.stop()
        await b.stop()

    run(main())


def test_what_finds_no_stream_goes_through_the_pipeline_and_failure_is_reported() -> None:
    async def main() -> None:
        a, b = Member(1), Member(2)
        await a.start()
        await b.start()
        a.transport.add_peer(2, [b.url])  # b does not know a: a's streams are refused
        a.transport.send([heartbeat(2, 1)])
        await b.raft.until(lambda: b.raft.messages == [heartbeat(2, 1)])
        url = b.url
        await b.stop()
        a.transport.send([heartbeat(2, 1)])
        await a.raft.until(lambda: 2 in a.raft.unreachable)
        # and it comes back at the same address
        again = Member(2)
        await again.start(int(url.rpartition(":")[2]))
        again.transport.add_peer(1, [a.url])
        await a.raft.until(lambda: working(a, 2))
        await a.stop()
        await again.stop()

    run(main())


def test_a_database_is_transferred_and_reported() -> None:
    async def main() -> None:
        a, b = await pair()
        content = bytes(range(256)) * 4096

        async def database() -> AsyncIterator[bytes]:
            for start in range(0, len(content), 32768):
                yield content[start : start + 32768]

        message = Message(
            type=MessageType.SNAP,
            to=2,
            from_=1,
            term=3,
            snapshot=Snapshot(b"", SnapshotMeta(index=7, term=3)),
        )
        assert a.transport.send_snapshot(message, database(), len(content))
        await a.raft.until(lambda: bool(a.raft.snapshots))
        assert a.raft.snapshots == [(2, True)]
        assert b.raft.database == content
        assert b.raft.messages == [message]
        await a.stop()
        await b.stop()

    run(main())


def test_strangers_and_removed_members_are_refused_with_etcds_answers() -> None:
    async def main() -> None:
        b = Member(2)
        await b.start()
        b.raft.removed_ids.add(9)
        good = {
            "X-Server-From": "9",
            "X-Server-Version": "3.5.1",
            "X-Min-Cluster-Version": "3.0.0",
            "X-Etcd-Cluster-ID": f"{CLUSTER:x}",
            "X-Raft-To": "2",
        }
        cases = [
            ("GET", "/raft/stream/message/9", {}, 410, "removed member"),
            ("GET", "/raft/stream/message/8", {}, 404, "error sender not found"),
            ("GET", "/raft/stream/message/zz", {}, 404, "invalid from"),
            ("GET", "/raft/stream/other/9", {}, 404, "invalid path"),
            ("POST", "/raft/stream/message/9", {}, 405, "Method Not Allowed"),
            ("GET", "/raft", {}, 405, "Method Not Allowed"),
            ("POST", "/raft", {}, 403, '{"message":"cannot process message to mismatch member"}'),
            ("POST", "/raft", {"X-Etcd-Cluster-ID": "bad"}, 412, "cluster ID mismatch"),
            ("POST", "/raft", {"X-Server-Version": "2.3.0"}, 412, "incompatible version"),
            ("POST", "/raft", {"X-Min-Cluster-Version": "9.0.0"}, 412, "incompatible version"),
            ("POST", "/raft", {"X-Server-Version": "x"}, 412, "incompatible version"),
        ]
        client = Http1Client()
        for method, path, headers, status, text in cases:
            answer = await client.request(method, b.url, path, headers={**good, **headers})
            assert (answer.status, answer.body.decode().strip()) == (status, text), path
        answer = await client.request("POST", b.url, "/raft", headers=good, body=b"\xff\xff")
        assert answer.status == 400
        client.close()
        assert b.raft.messages == []
        await b.stop()

    run(main())


def test_a_removed_member_learns_it_from_its_peer() -> None:
    async def main() -> None:
        a, b = Member(1), Member(2)
        await a.start()
        await b.start()
        b.raft.removed_ids.add(1)
        a.transport.add_peer(2, [b.url])
        await a.raft.until(lambda: a.raft.removed)
        await a.stop()
        await b.stop()

    run(main())


@pytest.mark.real
@needs_oracle()
def test_a_go_member_takes_us_for_one_of_its_own(tmp_path: Path) -> None:
    """Two members, one of them the original: it must dial us and ask for our vote."""

    async def main() -> None:
        placeholder = Member(0)
        await placeholder.start()
        ours = placeholder.url
        port = int(ours.rpartition(":")[2])
        await placeholder.stop()
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        theirs = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        client_url = f"http://127.0.0.1:{client.sockets[0].getsockname()[1]}"
        for listener in (server, client):
            listener.close()
            await listener.wait_closed()

        def id_of(*parts: bytes) -> int:
            return int.from_bytes(hashlib.sha1(b"".join(parts)).digest()[:8], "big")

        token = b"peer-test"
        our_id, go_id = id_of(ours.encode(), token), id_of(theirs.encode(), token)
        cluster_id = id_of(*(i.to_bytes(8, "big") for i in sorted((our_id, go_id))))
        member = Member(our_id, cluster_id)
        await member.start(port)
        member.transport.add_peer(go_id, [theirs])
        with (tmp_path / "log").open("wb") as log:
            go = subprocess.Popen(
                [
                    *ORACLE,
                    "--name=go",
                    f"--data-dir={tmp_path / 'go'}",
                    f"--listen-client-urls={client_url}",
                    f"--advertise-client-urls={client_url}",
                    f"--listen-peer-urls={theirs}",
                    f"--initial-advertise-peer-urls={theirs}",
                    f"--initial-cluster=go={theirs},ours={ours}",
                    f"--initial-cluster-token={token.decode()}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            await member.raft.until(
                lambda: any(m.type == MessageType.PRE_VOTE for m in member.raft.messages)
            )
            asked = next(m for m in member.raft.messages if m.type == MessageType.PRE_VOTE)
            assert (asked.from_, asked.to) == (go_id, our_id)
            answer = Message(
                type=MessageType.PRE_VOTE_RESP, to=go_id, from_=our_id, term=asked.term
            )
            member.transport.send([answer])
            await member.raft.until(
                lambda: any(m.type == MessageType.VOTE for m in member.raft.messages)
            )
            assert working(member, go_id)
        finally:
            go.terminate()
            go.wait()
            await member.stop()
        assert b"peer became active" in (tmp_path / "log").read_bytes()

    run(main())
