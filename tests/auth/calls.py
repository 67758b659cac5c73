"""Calls as users, and what a server has stored of them."""

from __future__ import annotations

from pathlib import Path

import grpc
from google.protobuf.message import Message

from keyraft.mvcc.backend import AUTH as AUTH_BUCKET
from keyraft.mvcc.backend import AUTH_ROLES, AUTH_USERS
from keyraft.proto import auth_pb2, rpc_pb2
from keyraft.storage.bolt import BoltFile
from tests.auth.users import AUTH, RESPONSES, operation
from tests.differential.compare import Answer
from tests.differential.operations import RESPONSES as KV_RESPONSES
from tests.differential.operations import Operation
from tests.support.server import Server, etcdctl

CALL_TIMEOUT_S = 30.0
PASSWORD_BYTES = 60
UNAVAILABLE = 14
LEADERLESS_TRIES = 6  # each takes a request timeout, or until the leader is known to be lost
DONE_BEFORE = ("already exists", "not found", "is not granted to the user")


class Client:
    """Raw calls with the tokens that its server has given out."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(endpoint)
        self.tokens: dict[str, str] = {"stranger": "aaaaaaaaaaaaaaaa.1"}
        self.asked_again = False

    def call(self, asked: Operation, user: str | None) -> Answer:
        """The answer, identifiers masked; asked again while a cluster has no leader."""
        for _ in range(LEADERLESS_TRIES):
            answer = self._once(asked, user)
            if answer.code != UNAVAILABLE:
                break
            self.asked_again = True
        return answer

    def _once(self, asked: Operation, user: str | None) -> Answer:
        """A token is kept and masked."""
        metadata = [("token", self.tokens[user])] if user is not None else []
        try:
            response = self._channel.unary_unary(asked.method)(
                asked.request, timeout=CALL_TIMEOUT_S, metadata=metadata, wait_for_ready=True
            )
        except grpc.RpcError as error:
            return Answer(None, error.code().value[0], error.details())
        kind = RESPONSES.get(asked.method) or KV_RESPONSES[asked.method]
        message = kind.FromString(response)
        for field in ("cluster_id", "member_id", "raft_term"):
            message.header.ClearField(field)  # type: ignore[attr-defined]  # every answer has one
        if isinstance(message, rpc_pb2.AuthenticateResponse):
            assert isinstance(asked.message, rpc_pb2.AuthenticateRequest)
            self.tokens[asked.message.name] = message.token
            if message.token.count(".") == 1:
                prefix, _, index = message.token.partition(".")
                assert prefix.isalpha() and len(prefix) == 16, message.token
                message.token = f"prefix.{index}"
        return Answer(message)

    def do(self, method: str, message: Message, user: str | None = None) -> Message | None:
        """What must succeed; when it was asked again it may have been done the first time."""
        self.asked_again = False
        answer = self.call(operation(method, message), user)
        if answer.message is None and self.asked_again and answer.text.endswith(DONE_BEFORE):
            return None
        assert answer.message is not None, f"{method} {message} by {user}: {answer}"
        return answer.message

    def log_in(self, user: str, password: str = "pw") -> None:
        """Gets the user's token."""
        self.do(AUTH + "Authenticate", rpc_pb2.AuthenticateRequest(name=user, password=password))

    def close(self) -> None:
        self._channel.close()


def log_in(user: str) -> Operation:
    """Authenticate with the password that most users begin with."""
    return operation(AUTH + "Authenticate", rpc_pb2.AuthenticateRequest(name=user, password="pw"))


def found_users(client: Client) -> None:
    """root, and alice who has a/ and reads b, each with the password "pw"; then enables."""
    for name in ("root", "alice"):
        client.do(AUTH + "UserAdd", rpc_pb2.AuthUserAddRequest(name=name, password="pw"))
    for name in ("root", "r"):
        client.do(AUTH + "RoleAdd", rpc_pb2.AuthRoleAddRequest(name=name))
    for key, end, kind in ((b"a/", b"a0", 2), (b"b", b"", 0)):
        perm = auth_pb2.Permission(key=key, range_end=end, permType=kind)  # type: ignore[arg-type]
        client.do(
            AUTH + "RoleGrantPermission",
            rpc_pb2.AuthRoleGrantPermissionRequest(name="r", perm=perm),
        )
    for user, role in (("root", "root"), ("alice", "r")):
        request = rpc_pb2.AuthUserGrantRoleRequest(user=user, role=role)
        client.do(AUTH + "UserGrantRole", request)
    client.do(AUTH + "AuthEnable", rpc_pb2.AuthEnableRequest())


def buckets(
    server: Server, place: Path, with_salts: bool = False
) -> dict[bytes, dict[bytes, bytes]]:
    """Users and roles as stored; without salts every hash of a password is replaced."""
    path = place / f"{server.client_port}.db"
    saved = etcdctl(server.endpoint, "--user=root:pw", "snapshot", "save", str(path))
    assert saved.returncode == 0, saved.stderr
    found: dict[bytes, dict[bytes, bytes]] = {}
    with BoltFile(path) as file:
        for name, bucket in file.root().buckets():
            if name in (AUTH_BUCKET, AUTH_USERS, AUTH_ROLES):
                found[name] = dict(bucket.items())
    for name, value in () if with_salts else found[AUTH_USERS].items():
        user = auth_pb2.User.FromString(value)
        if user.password:
            assert len(user.password) == PASSWORD_BYTES and user.password.startswith(b"$2a$04$")
            found[AUTH_USERS][name] = value.replace(user.password, b"p" * PASSWORD_BYTES)
    return found
