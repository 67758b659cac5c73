"""What other members send: streams, posted messages, snapshots, questions and their answers."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine, Iterator
from typing import Any

from keyraft.base.errors import EtcdError
from keyraft.base.log import NullLogger
from keyraft.base.varints import CodecError
from keyraft.net.http1 import BodyError, Http1Connection, Http1Service
from keyraft.net.http1.client import HttpAnswer, HttpError
from keyraft.peer.api_client import PeerApiClient
from keyraft.peer.api_handlers import ApiHandlers, HashKVAnswer
from keyraft.peer.compat import PeerRefusal
from keyraft.peer.exchange import Routes
from keyraft.peer.frames import (
    AppendDecoder,
    AppendEncoder,
    FrameError,
    MessageDecoder,
    MessageEncoder,
    snapshot_head,
)
from keyraft.peer.handlers import RaftHandlers
from keyraft.peer.transport import Transport
from keyraft.proto import lease_pb2, rpc_pb2
from keyraft.raft import codec
from keyraft.raft.types import (
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    Snapshot,
    SnapshotMeta,
)
from keyraft.shell.inbox import Inbox
from tests.net.test_http1_connection import Socket
from tests.server.harness import OneMember

from ..target import Choices, Target
from .files import raft_seeds

LOCAL, REMOTE = 1, 2


# --- streams ----------------------------------------------------------------------------------


def read_stream(decoder: type[MessageDecoder] | type[AppendDecoder], data: bytes) -> None:
    """The same bytes at once and in pieces are the same messages."""
    whole = _decoded(decoder, [data])
    # Only the beginning byte by byte: that is quadratic in the harness, too.
    pieces = [data[at : at + 1] for at in range(min(len(data), 200))] + [data[200:]]
    assert _decoded(decoder, pieces) == whole


def _decoded(kind: Any, pieces: list[bytes]) -> tuple[list[Message], bool]:
    decoder = kind() if kind is MessageDecoder else kind(LOCAL, REMOTE)
    messages: list[Message] = []
    for piece in pieces:
        try:
            messages += decoder.feed(piece)
        except FrameError:
            # What came before the damage is lost with the connection, however it came.
            return [], True
    return messages, False


def read_append_stream(data: bytes) -> None:
    """The stream of entries."""
    read_stream(AppendDecoder, data)


def read_message_stream(data: bytes) -> None:
    """The stream of everything else."""
    read_stream(MessageDecoder, data)


def trickle(data: bytes) -> None:
    """A stream whose sender writes eight bytes at a time."""
    decoder = AppendDecoder(LOCAL, REMOTE)
    try:
        for at in range(0, len(data), 8):
            decoder.feed(data[at : at + 8])
    except FrameError:
        pass


def _appends() -> Iterator[bytes]:
    encoder = AppendEncoder()
    entries = [Entry(3, index, b"data") for index in range(8, 12)]
    first = Message(3, to=1, from_=2, term=3, log_term=3, index=7, entries=entries, commit=6)
    then = Message(3, to=1, from_=2, term=3, log_term=3, index=11, entries=[Entry(3, 12)], commit=9)
    yield encoder.heartbeat() + encoder.encode(first) + encoder.encode(then)
    encoder = AppendEncoder()
    yield encoder.encode(Message(3, to=1, from_=2, entries=[Entry(0, 1), Entry(0, 2)]))


def _entries_frame(count: int) -> bytes:
    return b"\x01" + struct.pack(">Q", count) + bytes(8 * count) + bytes(8)


# --- messages ---------------------------------------------------------------------------------

_KINDS = [int(kind) for kind in MessageType]
_TERMS = (0, 1, 2, 3, 9, (1 << 63), (1 << 64) - 1)
_INDEXES = (0, 1, 2, 3, 4, 5, 20, (1 << 63), (1 << 64) - 1)


def _numbers(choices: Choices, near: int, odd: tuple[int, ...]) -> int:
    if choices.random() < 0.7:
        return max(0, near + choices.randrange(-2, 3))
    return choices.choice(odd)


def a_message(choices: Choices, one: OneMember) -> Message:
    """Of any type, with numbers that are near to the truth or far from it."""
    log = one.member.raft.node.raft.log
    term, last = one.member.leadership.term, log.last_index()
    index = _numbers(choices, last, _INDEXES)
    entries = []
    for offset in range(choices.randrange(4)):
        number = index + 1 + offset if choices.random() < 0.8 else choices.choice(_INDEXES)
        entries.append(
            Entry(
                _numbers(choices, term, _TERMS),
                number,
                choices.take(choices.randrange(20)),
                choices.choice((0, 0, 0, 1, 2)),
            )
        )
    snapshot = None
    if choices.random() < 0.2:
        state = ConfState(voters=[one.settings.member_id], learners=[7][: choices.randrange(2)])
        snapshot = Snapshot(
            choices.take(3),
            SnapshotMeta(state, _numbers(choices, last, _INDEXES), _numbers(choices, term, _TERMS)),
        )
    return Message(
        choices.choice(_KINDS),
        to=one.settings.member_id if choices.random() < 0.9 else choices.choice(_TERMS),
        from_=choices.choice((REMOTE, REMOTE, one.settings.member_id, 0, (1 << 64) - 1)),
        term=_numbers(choices, term, _TERMS),
        log_term=_numbers(choices, term, _TERMS),
        index=index,
        entries=entries,
        commit=_numbers(choices, last, _INDEXES),
        reject=choices.random() < 0.3,
        reject_hint=_numbers(choices, last, _INDEXES),
        snapshot=snapshot,
        context=choices.take(choices.randrange(10)),
    )


def send_messages(data: bytes) -> None:
    """A member that is sent whatever a peer may send goes on: no fatal error, no broken invariant.

    Every message is encoded and decoded, as on the way.
    """
    choices = Choices(data)
    one = OneMember()
    one.run(0.1)
    fatal: list[tuple[str, str]] = []
    inbox = Inbox(
        one.loop.time, NullLogger(), lambda what, why: fatal.append((what, why)), lambda _: False
    )
    inbox.member = one.member
    for _ in range(60):
        if choices.over:
            break
        message = a_message(choices, one)
        try:
            sent = codec.decode_message(codec.encode_message(message))
        except CodecError:
            continue
        inbox.process([sent])
        if choices.random() < 0.3:
            one.run(0.02)
        if choices.random() < 0.05:
            one.run(1.2)
    one.run(0.1)
    assert not fatal, fatal
    assert not one.member.stopped
    one.member.membership.cluster.check()
    state = one.log.state
    codec.decode_hard_state(
        codec.encode_hard_state(HardState(state.term, state.vote, state.commit))
    )
    _forget(one)


def _forget(one: OneMember) -> None:
    """The member has been looked at; the next test need not do it again."""
    from tests.server.harness import RUNNING

    RUNNING.pop(id(one), None)
    one.member.stop(lambda: None)


# --- the peer port ------------------------------------------------------------------------------

CLUSTER = 0x99


class _Local:
    """A member behind the port that answers everything."""

    def members_json(self) -> list[dict[str, Any]]:
        return [{"id": 1, "peerURLs": ["http://a:1"], "name": "m", "clientURLs": []}]

    def versions_json(self) -> dict[str, str]:
        return {"etcdserver": "3.7.1", "etcdcluster": "3.7.0", "storage": "3.7.0"}

    async def promote(self, member_id: int, token: str | None) -> list[dict[str, Any]]:
        return self.members_json()

    async def hash_kv(self, revision: int) -> HashKVAnswer:
        return HashKVAnswer(1, 2, 3, 4)

    async def wait_applied(self) -> bool:
        return True

    async def renew(self, lease_id: int) -> int:
        return 5

    async def time_to_live(self, lease_id: int, keys: bool) -> rpc_pb2.LeaseTimeToLiveResponse:
        return rpc_pb2.LeaseTimeToLiveResponse(ID=lease_id)

    async def downgrade_enabled(self) -> bool:
        return False


class _Raft:
    """A Raft that takes every message, and a disk that takes every database."""

    def process(self, messages: list[Message]) -> bool:
        return True

    def is_id_removed(self, member_id: int) -> bool:
        return member_id == 5

    def report_unreachable(self, member_id: int) -> None: ...

    def report_snapshot(self, member_id: int, ok: bool) -> None: ...

    def removed_from_cluster(self) -> None: ...

    async def receive_snapshot(self, message: Message, database: Any) -> int:
        size = 0
        async for piece in database:
            size += len(piece)
        return size


class _Lines(NullLogger):
    """A handler that fails says so here: that is a finding."""

    def error(self, message: str, **fields: object) -> None:
        raise AssertionError((message, fields))


_LOOP = asyncio.new_event_loop()


def ask_port(data: bytes) -> None:
    """One connection to the peer port; no handler fails."""
    _LOOP.run_until_complete(_ask_port(data))


async def _ask_port(data: bytes) -> None:
    said: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda _, context: said.append(context.get("exception") or RuntimeError(context["message"]))
    )
    routes = Routes(_Lines())
    raft = _Raft()
    transport = Transport(LOCAL, CLUSTER, [], raft, NullLogger())  # type: ignore[arg-type]
    RaftHandlers(transport, raft, NullLogger(), 10_000).register(routes)
    ApiHandlers(_Local(), CLUSTER).register(routes)
    socket = Socket()
    service = Http1Service(routes.handle, loop, early=True)
    connection = Http1Connection(service, socket, "http", lambda: None)
    for at in range(0, len(data), 1500):
        if socket.is_closing():
            break
        connection.data_received(data[at : at + 1500])
        for _ in range(12):
            await asyncio.sleep(0)
    if not socket.is_closing():
        connection.eof_received()
    for _ in range(12):
        await asyncio.sleep(0)
    if not socket.aborted:
        socket.aborted = True
        connection.connection_lost(None)
    await routes.stop()
    await transport.stop()
    if said:
        raise said[0]


def _request(method: str, path: str, body: bytes = b"", more: str = "") -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: a\r\nX-Etcd-Cluster-ID: {CLUSTER:x}\r\n"
        f"X-Server-From: 2\r\nX-Server-Version: 3.7.0\r\nX-Min-Cluster-Version: 3.0.0\r\n{more}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _port_seeds() -> Iterator[bytes]:
    message = next(seed for number, seed in enumerate(raft_seeds()) if number == 4)
    snapshot = Message(
        7, to=1, from_=2, term=3, snapshot=Snapshot(b"", SnapshotMeta(ConfState([1]), 9, 3))
    )
    yield _request("POST", "/raft", message)
    yield _request("POST", "/raft/snapshot", snapshot_head(snapshot) + b"database")
    yield _request("GET", "/raft/probing")
    yield _request(
        "GET", "/raft/stream/msgapp/2", more="X-Raft-To: 1\r\nX-PeerURLs: http://a:1\r\n"
    )
    yield _request("GET", "/members")
    yield _request("POST", "/members/promote/7", more="Authorization: t.1\r\n")
    yield _request("GET", "/members/hashkv", b'{"revision": 5}')
    lease = rpc_pb2.LeaseKeepAliveRequest(ID=5).SerializeToString()
    yield _request("POST", "/leases", lease)
    internal = lease_pb2.LeaseInternalRequest(
        LeaseTimeToLiveRequest=rpc_pb2.LeaseTimeToLiveRequest(ID=5, keys=True)
    )
    yield _request("POST", "/leases/internal", internal.SerializeToString())
    yield _request("GET", "/downgrade/enabled") + _request("GET", "/version")


# --- answers of others --------------------------------------------------------------------------


class _Answering:
    """A client whose server answers as it is told."""

    def __init__(self, answer: HttpAnswer) -> None:
        self.answer = answer

    async def request(self, *_: object, **__: object) -> HttpAnswer:
        return self.answer


def read_answers(data: bytes) -> None:
    """What another member answers to each question."""
    choices = Choices(data)
    answer = HttpAnswer()
    answer.status = choices.choice((200, 200, 200, 400, 404, 408, 412, 500))
    if choices.random() < 0.8:
        answer.headers["x-etcd-cluster-id"] = "99"
    answer.body = choices.rest()
    client = PeerApiClient(_Answering(answer), NullLogger())  # type: ignore[arg-type]
    questions: list[Coroutine[Any, Any, object]] = [
        client.cluster(["http://a:1"]),
        client.versions(["http://a:1"], 1.0),
        client.promote("http://a:1", 7, None, 1.0),
        client.renew("http://a:1", 7, 1.0),
        client.time_to_live("http://a:1", 7, True, 1.0),
        client.hash_kv("http://a:1", 7, 7, 1.0),
    ]
    for question in questions:
        try:
            question.send(None)
        except StopIteration:
            pass
        except (PeerRefusal, EtcdError, HttpError, BodyError):
            pass
        finally:
            question.close()


ALL = (
    Target(
        "append_stream",
        read_append_stream,
        _appends,
        (b"\x01" + struct.pack(">Q", 3), b"\x02", bytes(8), b"\xff" * 8),
        grown={"entries": _entries_frame},
    ),
    Target(
        "append_trickle",
        trickle,
        _appends,
        grown={"entries": lambda n: b"\0" * 7 + _entries_frame(8 * n)},
    ),
    Target(
        "message_stream",
        read_message_stream,
        lambda: [
            MessageEncoder().heartbeat(),
            *(struct.pack(">Q", len(seed)) + seed for seed in raft_seeds()),
        ],
        grown={"messages": lambda n: MessageEncoder().heartbeat() * n},
    ),
    Target(
        "raft_messages",
        send_messages,
        lambda: [bytes((seed, 3, 77, 200)) * 60 for seed in range(0, 200, 40)],
        bytes_max=2000,
        held_bytes=16 << 20,
        seconds=2.0,
        seconds_per_byte=1e-3,
    ),
    Target(
        "peer_port",
        ask_port,
        _port_seeds,
        (
            b"X-PeerURLs: http://a:1,http://b:2\r\n",
            b"X-Raft-To: 1\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"X-Server-Version: 9.9\r\n",
            b"/members/promote/18446744073709551616",
            b"HTTP/1.0",
            b"1e999",
            b"%ff",
        ),
        held_bytes=4 << 20,
    ),
    Target(
        "peer_answers",
        read_answers,
        lambda: [
            b"\0\0" + b'[{"id":7,"peerURLs":["http://a:1"],"name":"","clientURLs":[]}]',
            b"\0\0" + b'{"etcdserver":"3.7.0","etcdcluster":"3.7.0"}',
            b"\0\0" + b'{"header":{"revision":5},"hash":7,"compact_revision":-1,"hash_revision":5}',
            b"\0\0" + b"\x10\x05\x18\x05",
        ],
        (b"1e999", b"NaN", b"[[[[[[[[", b"\\ud800", b"null", b'"revision":', b"9" * 30),
    ),
)
