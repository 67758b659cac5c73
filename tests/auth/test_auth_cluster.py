"""Users in clusters: mixed with the original, taken over from it, restarted, sent in a snapshot."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from keyraft.proto import rpc_pb2
from tests.auth.calls import Client, buckets, found_users
from tests.auth.matrix import CLUSTER
from tests.auth.users import AUTH, operation
from tests.differential.compare import everything, hash_operation
from tests.differential.operations import KV
from tests.support.cluster import LocalCluster
from tests.support.server import ORACLE, OURS, Server, etcdctl, needs_oracle

pytestmark = [pytest.mark.real, needs_oracle()]

CHEAP = "--bcrypt-cost=4"


def put(key: bytes, **fields: object) -> rpc_pb2.PutRequest:
    return rpc_pb2.PutRequest(key=key, value=b"v", **fields)  # type: ignore[arg-type]


def get(key: bytes, end: bytes = b"", local: bool = False) -> rpc_pb2.RangeRequest:
    return rpc_pb2.RangeRequest(key=key, range_end=end, serializable=local)


def as_told(client: Client) -> None:
    """alice may what `found_users` has given her, and no more."""
    client.do(KV + "Put", put(b"a/x", prev_kv=True), "alice")
    for local in (False, True):
        client.do(KV + "Range", get(b"a/", b"a0", local), "alice")
        client.do(KV + "Range", get(b"b", local=local), "alice")
    for method, message in (
        ("Put", put(b"b")),
        ("Range", get(b"c", local=True)),
        ("Range", get(b"c")),
        ("DeleteRange", rpc_pb2.DeleteRangeRequest(key=b"a/", range_end=b"b")),
        ("Txn", rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(key=b"c")])),
    ):
        refused = client.call(operation(KV + method, message), "alice")
        assert (refused.code, refused.text) == (7, "etcdserver: permission denied"), refused
    refused = client.call(everything(), None)
    assert (refused.code, refused.text) == (3, "etcdserver: user name is empty"), refused


def key_files(place: Path) -> str:
    """The flag for signed tokens, with the keys that it names."""
    key = rsa.generate_private_key(65537, 2048)
    (place / "private.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (place / "public.pem").write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return (
        f"--auth-token=jwt,pub-key={place}/public.pem,priv-key={place}/private.pem,"
        "sign-method=RS256,ttl=10m"
    )


def test_members_of_the_original_and_ours_have_the_same_users(tmp_path: Path) -> None:
    mixed = LocalCluster(tmp_path, OURS, ORACLE, OURS, flags=(CHEAP,))
    clients = {name: Client(server.endpoint) for name, server in mixed.servers.items()}
    try:
        mixed.start()
        mixed.leader()
        found_users(clients["m1"])
        for name, client in clients.items():
            for user in ("root", "alice"):
                client.log_in(user)
            for other in clients.values():  # which may not have applied the token's entry yet
                other.tokens |= client.tokens
                as_told(other)
            client.do(KV + "Put", put(name.encode()), "root")
        clients["m2"].do(AUTH + "RoleDelete", rpc_pb2.AuthRoleDeleteRequest(role="r"), "root")
        for client in clients.values():
            refused = client.call(operation(KV + "Range", get(b"b")), "alice")
            assert refused.text == "etcdserver: permission denied"
        hashes = [each.call(hash_operation(), "root").message for each in clients.values()]
        assert len({each.hash for each in hashes if isinstance(each, rpc_pb2.HashKVResponse)}) == 1
        stored = [buckets(server, tmp_path, True) for server in mixed.servers.values()]
        assert stored[0] == stored[1] == stored[2]
    finally:
        for client in clients.values():
            client.close()
        mixed.stop()


def test_a_directory_of_the_original_is_taken_over_with_its_users(tmp_path: Path) -> None:
    """And back. Tokens are signed, so those of the one are good for the other."""
    flags = (CHEAP, key_files(tmp_path))
    original = Server(ORACLE, tmp_path / "data", flags=flags).start()
    client = Client(original.endpoint)
    try:
        found_users(client)
        client.log_in("root")
        client.do(KV + "Put", put(b"b"), "root")
        client.do(AUTH + "UserAdd", rpc_pb2.AuthUserAddRequest(name="late", password="pw"), "root")
        refused = client.call(everything(), "root")
        told = ("auth: revision in header is old", "etcdserver: revision of auth store is old")
        assert refused.text in told  # the second since 3.5.5
        for user in ("root", "alice"):
            client.log_in(user)
        before = buckets(original, tmp_path, True)
        hashed = client.call(hash_operation(), "root").message
        assert isinstance(hashed, rpc_pb2.HashKVResponse)
    finally:
        client.close()
        original.kill()  # its log holds what its database lacks
    ours = Server(OURS, tmp_path / "data", "default", flags, *ports(original))
    tokens = client.tokens
    client = Client(ours.endpoint)
    client.tokens = tokens
    try:
        ours.start()
        again = client.call(hash_operation(), "root").message
        assert isinstance(again, rpc_pb2.HashKVResponse)
        assert again.hash == hashed.hash
        assert buckets(ours, tmp_path, True) == before
        as_told(client)
        client.do(AUTH + "UserDelete", rpc_pb2.AuthUserDeleteRequest(name="late"), "root")
        refused = client.call(everything(), "root")
        assert refused.text == "etcdserver: revision of auth store is old"
        for user in ("root", "alice"):
            client.log_in(user)
        saved = tmp_path / "saved.db"
        done = etcdctl(ours.endpoint, "--user=root:pw", "snapshot", "save", str(saved))
        assert done.returncode == 0, done.stderr
    finally:
        client.close()
        ours.kill()
    restored = tmp_path / "restored"
    done = etcdctl("", "snapshot", "restore", str(saved), f"--data-dir={restored}")
    assert done.returncode == 0, done.stderr
    back = Server(ORACLE, restored, "default", flags)
    tokens = client.tokens
    client = Client(back.endpoint)
    client.tokens = tokens
    try:
        back.start()
        as_told(client)
    finally:
        client.close()
        back.kill()


def ports(server: Server) -> tuple[int, int]:
    return server.client_port, server.peer_port


def promotions(clients: list[Client], cluster: LocalCluster, root: str) -> None:
    """Root may ask any member; the leader looks at the token that a follower passes on."""
    request = operation(CLUSTER + "MemberPromote", rpc_pb2.MemberPromoteRequest(ID=5))
    for client in clients:
        client.tokens["root"] = root
        answers = [client.call(request, user) for user in ("root", "alice", None)]
        assert [answer.text for answer in answers] == [
            "etcdserver: member not found",
            "etcdserver: permission denied",
            "etcdserver: user name is empty",
        ]
    asked = {
        token: {_promote(server, token) for server in cluster.servers.values()}
        for token in (root, f"Bearer {root}", clients[0].tokens["alice"], "")
    }
    # 404 is the leader's answer to root: there is no such member; a follower has none
    assert list(asked.values()) == [{404, 500}, {404, 500}, {500}, {500}]


def _promote(server: Server, token: str) -> int:
    url = f"http://127.0.0.1:{server.peer_port}/members/promote/5"
    request = urllib.request.Request(url, method="POST", headers={"Authorization": token})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    code = refused.value.code
    refused.value.close()
    return code


def test_users_outlive_restarts_and_reach_who_was_away(tmp_path: Path) -> None:
    flags = (CHEAP, "--snapshot-count=50", "--snapshot-catchup-entries=10")
    three = LocalCluster(tmp_path, OURS, OURS, OURS, flags=flags)
    m1, m2, m3 = three.servers.values()
    client = Client(m1.endpoint)
    made = [client]
    try:
        m1.spawn()
        m2.spawn()
        assert m1.wait_ready() and m2.wait_ready()
        found_users(client)
        client.log_in("root")
        client.log_in("alice")
        for number in range(120):
            client.do(KV + "Put", put(b"a/%d" % number), "alice")
        m3.start()
        at_m3 = Client(m3.endpoint)
        made.append(at_m3)
        # m1's token: m3 is behind its entry, or has the users from a snapshot without it.
        at_m3.tokens |= client.tokens
        told = at_m3.call(everything(), "root")
        assert told.message is not None or told.code == 16, told
        at_m3.log_in("alice")
        as_told(at_m3)
        m1.kill()
        m1.start()
        for server in three.servers.values():
            again = Client(server.endpoint)
            made.append(again)
            again.log_in("alice")
            as_told(again)
        again.log_in("root")
        stored = [buckets(server, tmp_path, True) for server in three.servers.values()]
        assert stored[0] == stored[1] == stored[2]
        promotions(made[2:], three, again.tokens["root"])
        again.do(AUTH + "AuthDisable", rpc_pb2.AuthDisableRequest(), "root")
        for each in made[2:]:
            each.do(KV + "Range", get(b"\0", b"\0"))
    finally:
        for each in made:
            each.close()
        three.stop()
