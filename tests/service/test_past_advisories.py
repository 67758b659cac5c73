"""etcd's own security advisories about users and calls, tried on a member (docs/SECURITY.md)."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from keyraft.grpc import Limits
from keyraft.proto import auth_pb2, rpc_pb2
from keyraft.proto.rpc_pb2 import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from tests.fuzz.targets.calls import REQUESTS, Scene
from tests.grpc.bench import Bench
from tests.grpc.wire import Frame, frame, message

from .calls import FakeCall, ask
from .test_auth_service import DENIED, Users

# AuthStatus says only whether there are users, and Authenticate is how one gets a token. An empty
# transaction touches nothing, and a watch is opened before anything is watched (below).
OPEN_TO_ALL = {"AuthStatus", "Txn", "Watch", "Observe"}
GUARDED = [path for path in sorted(REQUESTS) if path.rpartition("/")[2] not in OPEN_TO_ALL]


class Asking(Scene):
    """A client of a member with users that keeps the frames it gets."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        super().__init__(secured=True)

    def settle(self) -> None:
        now = self.one.loop.time()
        while self.server.wants_turn:
            self.server.resume_output(now)
        self.frames += self.peer.read(self.server.take_output())

    def ask(self, path: str, body: bytes, *extra: tuple[str, str]) -> tuple[str, bytes]:
        """The status and the messages' bytes of a call; an open stream has no status."""
        stream, self.stream = self.stream, self.stream + 2
        head = frame(1, 4, stream, self.peer.request(path, *extra))
        self.feed(head + frame(0, 1, stream, message(body)))
        self.run(2.5)
        mine = [each for each in self.frames if each.stream == stream]
        status = [each.headers["grpc-status"] for each in mine if "grpc-status" in each.headers]
        return (status or [""])[0], b"".join(each.payload for each in mine if each.kind == 0)


def a_real_request(kind: type[Any]) -> bytes:
    """With what it needs to get past the checks of its form."""
    request = kind()
    for name, value in (
        ("key", b"secret"),
        ("name", "alice" if kind is not rpc_pb2.AuthRoleGetRequest else "r"),
        ("role", "r"),
        ("user", "alice"),
        ("TTL", 10),
        ("peerURLs", ["http://a:1"]),
        ("lease", 7),
    ):
        try:
            if isinstance(value, list):
                getattr(request, name).extend(value)
            else:
                setattr(request, name, value)
        except (AttributeError, TypeError):
            continue
    return bytes(request.SerializeToString())


@pytest.mark.slow
@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("token", [None, "abcdefghijklmnoq.0"], ids=["no token", "a wrong one"])
def test_without_a_token_no_method_tells_or_does_anything(path: str, token: str | None) -> None:
    """GHSA-q8m4-xhhv-38mg: members, alarms, leases and compaction were open to anybody."""
    method = path.rpartition("/")[2]
    asking = Asking()
    extra = [("token", token)] if token else []
    status, body = asking.ask(path, a_real_request(REQUESTS[path]), *extra)
    assert status not in ("", "0"), method
    assert body == b""
    assert asking.one.member.store.revision == 1
    assert asking.one.member.auth.enabled
    asking.end()


@pytest.mark.parametrize("range_end", [b"\0", b"b", b"a0", b"a\0\0"])
def test_a_watch_reaches_no_further_than_its_readers_permission(range_end: bytes) -> None:
    """GHSA-xg4h-6gfc-h4m8: one key's permission was enough to watch from that key on."""
    users = Users()
    users.do("RoleAdd", rpc_pb2.AuthRoleAddRequest(name="one"), "root")
    permission = auth_pb2.Permission(permType=0, key=b"a")  # type: ignore[arg-type]
    grant = rpc_pb2.AuthRoleGrantPermissionRequest(name="one", perm=permission)
    users.do("RoleGrantPermission", grant, "root")
    users.do("UserAdd", rpc_pb2.AuthUserAddRequest(name="bob", password="pw"), "root")
    users.do("UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="bob", role="one"), "root")
    users.log_in("bob")
    for end, allowed in ((b"", True), (range_end, False)):
        stream = users.as_user("bob")
        handler = users.services.watch.open(stream)  # type: ignore[arg-type]
        create = rpc_pb2.WatchCreateRequest(key=b"a", range_end=end)
        handler.on_message(rpc_pb2.WatchRequest(create_request=create).SerializeToString())
        users.one.run(0.2)
        for key in (b"a", b"a/x", b"b", b"z"):
            users.put(key, "root")
        users.one.run(0.2)
        told = [rpc_pb2.WatchResponse.FromString(each) for each in stream.sent]
        seen = {event.kv.key for response in told for event in response.events}
        assert seen == ({b"a"} if allowed else set())
        assert any(response.canceled for response in told) is not allowed
        handler.on_cancel(1)


def nested(op: RequestOp, depth: int) -> TxnRequest:
    """A transaction in a transaction, and so on."""
    txn = TxnRequest(success=[op])
    for _ in range(depth):
        txn = TxnRequest(success=[RequestOp(request_txn=txn)])
    return txn


OUT_OF_REACH = {
    "read": RequestOp(request_range=RangeRequest(key=b"z")),
    "write": RequestOp(request_put=PutRequest(key=b"z", value=b"v")),
    "delete": RequestOp(request_delete_range=DeleteRangeRequest(key=b"z")),
    "what was there": RequestOp(request_put=PutRequest(key=b"w", value=b"v", prev_kv=True)),
    "what was deleted": RequestOp(request_delete_range=DeleteRangeRequest(key=b"w", prev_kv=True)),
    "somebody's lease": RequestOp(request_put=PutRequest(key=b"w", value=b"v", lease=77)),
}


@pytest.mark.parametrize("what", OUT_OF_REACH)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_transaction_asks_for_every_permission_that_its_parts_need(what: str, depth: int) -> None:
    """GHSA-rfx7-8w68-q57q (nested ones asked for none), GHSA-x35m-3gp4-4fh5 (prev_kv and leases)."""
    users = Users()
    users.do("RoleAdd", rpc_pb2.AuthRoleAddRequest(name="w"), "root")
    permission = auth_pb2.Permission(permType=1, key=b"w")  # type: ignore[arg-type]
    grant = rpc_pb2.AuthRoleGrantPermissionRequest(name="w", perm=permission)
    users.do("RoleGrantPermission", grant, "root")
    users.do("UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="alice", role="w"), "root")
    lease = rpc_pb2.LeaseGrantRequest(ID=77, TTL=100).SerializeToString()
    ask(users.services.lease.grant, lease, users.as_user("root"))
    users.one.run(0.1)
    put = PutRequest(key=b"z", value=b"root's", lease=77).SerializeToString()
    ask(users.kv.put, put, users.as_user("root"))
    users.one.run(0.1)
    before = users.one.member.store.revision
    call = users.as_user("alice")
    ask(users.kv.txn, nested(OUT_OF_REACH[what], depth).SerializeToString(), call)
    users.one.run(0.2)
    assert call.answer == DENIED
    assert users.one.member.store.revision == before


def test_the_keys_of_a_lease_are_told_to_their_readers_only() -> None:
    """CVE-2023-32082."""
    users = Users()
    lease = rpc_pb2.LeaseGrantRequest(ID=5, TTL=100).SerializeToString()
    ask(users.services.lease.grant, lease, users.as_user("root"))
    users.one.run(0.1)
    put = PutRequest(key=b"hidden", value=b"v", lease=5).SerializeToString()
    ask(users.kv.put, put, users.as_user("root"))
    users.one.run(0.1)
    asked = rpc_pb2.LeaseTimeToLiveRequest(ID=5, keys=True).SerializeToString()
    for name, told in (("alice", False), ("root", True)):
        call = users.as_user(name)
        ask(users.services.lease.time_to_live, asked, call)
        users.one.run(0.2)
        assert isinstance(call.answer, bytes) is told
        assert told or call.answer == DENIED


@pytest.mark.parametrize(
    "path", ["etcdserverpb.KV/Put", "//etcdserverpb.KV/Put", "/etcdserverpb.KV/Put/", "*", ""]
)
def test_a_path_that_is_not_a_methods_own_reaches_no_method(path: str) -> None:
    """CVE-2026-33186: gRPC-Go took a path without its slash, and rules for paths did not match it."""
    asking = Asking()
    put = PutRequest(key=b"k", value=b"v").SerializeToString()
    status, body = asking.ask(path, put, ("token", asking.token))
    assert status != "0" and body == b""
    assert asking.one.member.store.revision == 1
    asking.end()


@pytest.mark.slow
def test_frames_of_one_byte_hold_little_more_than_their_bytes() -> None:
    """CVE-2026-84304: gRPC-Go kept a buffer for each DATA frame of an unfinished message."""
    bench = Bench(Limits())
    bench.start()
    begin = frame(1, 4, 1, bench.peer.request("/t.T/Talk"))
    bench.feed(begin + frame(0, 0, 1, message(bytes(1_000_000))[:5]))
    one = frame(0, 0, 1, b"x") * 500
    tracemalloc.start()
    try:
        for _ in range(100):
            bench.feed(one)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert bench.server.inbound_bytes == 50_005
    assert held < 200_000


def test_a_password_stays_nowhere_in_the_clear() -> None:
    """CVE-2021-28235, and the audit of 2020 (12): the request of a login was kept with its password."""
    users = Users()
    users.log_in("alice", "pw")
    secret = "a rather long and secret password"
    users.do("UserAdd", rpc_pb2.AuthUserAddRequest(name="eve", password=secret), "root")
    users.log_in("eve", secret)
    call = FakeCall()
    ask(
        users.methods["Authenticate"],
        rpc_pb2.AuthenticateRequest(name="eve", password=secret + "!").SerializeToString(),
        call,
    )
    users.one.run(0.5)
    assert isinstance(call.answer, tuple) and secret not in call.answer[1]
    assert secret.encode() not in b"".join(entry.data for entry in users.one.log.entries)


def test_what_a_connection_once_showed_is_not_remembered_for_its_next_call() -> None:
    """Header blocks are remembered; who asked is not."""
    asking = Asking()
    body = RangeRequest(key=b"a").SerializeToString()
    path = "/etcdserverpb.KV/Range"
    assert asking.ask(path, body, ("token", asking.token))[0] == "0"
    assert asking.ask(path, body)[0] == "3"
    asking.end()
