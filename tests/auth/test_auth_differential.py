"""The same users do the same things to the original and to ours: every answer is compared.

At the end both databases are saved, and their buckets of users and roles must be the same bytes
but for the salts of the passwords.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyraft.proto import auth_pb2, rpc_pb2
from tests.auth.calls import Client, buckets, log_in
from tests.auth.users import AUTH, RESPONSES, SAME_KEY_ROLE, Generator, operation
from tests.differential.compare import Answer, difference, everything, hash_operation
from tests.differential.operations import LEASE, Operation
from tests.support.server import ORACLE, OURS, Server, needs_oracle, serving

OPERATIONS = 1_000
USER_EMPTY = Answer(None, 3, "etcdserver: user name is empty")
DENIED = Answer(None, 7, "etcdserver: permission denied")


def excuse(asked: Operation, original: Answer, ours: Answer) -> str:
    """What the original has changed since 3.5.1, by name."""
    if asked.method == AUTH + "AuthStatus" and original in (USER_EMPTY, DENIED):
        if ours.message is not None:
            return "AuthStatus answers everybody (3.7: needAdminPermission)"
    if isinstance(asked.message, rpc_pb2.AuthRoleGetRequest) and asked.message.role == "root":
        if isinstance(ours.message, rpc_pb2.AuthRoleGetResponse) and original.message is not None:
            whole = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, range_end=b"\0")
            if list(ours.message.perm) == [whole]:
                return "role root is told as what it amounts to (3.6: RoleGet)"
    if isinstance(original.message, rpc_pb2.AuthenticateResponse):
        if isinstance(ours.message, rpc_pb2.AuthenticateResponse):
            tokens = (original.message.token, ours.message.token)
            own, before = (int(token.rpartition(".")[2]) for token in tokens)
            if own == before + 1:
                return "tokens have the number before their entry's (3.5.3: simple_token.go)"
    return ""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """Both with cheap hashes."""
    flags = ("--bcrypt-cost=4",)
    servers = (
        Server(ORACLE, tmp_path / "original", flags=flags),
        Server(OURS, tmp_path / "ours", flags=flags),
    )
    with serving(*servers):
        yield servers


class Held:
    """What roles hold. The original grants a range twice where another one has the same key, ours
    does not (service/auth.py): such a range is revoked before it is granted again."""

    def __init__(self) -> None:
        self._ranges: set[tuple[str, bytes, bytes]] = set()

    def instead(self, asked: Operation) -> Operation:
        """What to ask."""
        request = asked.message
        if not isinstance(request, rpc_pb2.AuthRoleGrantPermissionRequest):
            return asked
        held = (request.name, request.perm.key, request.perm.range_end)
        if held not in self._ranges or request.name != SAME_KEY_ROLE:
            return asked
        revoke = rpc_pb2.AuthRoleRevokePermissionRequest(
            role=held[0], key=held[1], range_end=held[2]
        )
        return operation(AUTH + "RoleRevokePermission", revoke)

    def done(self, asked: Operation) -> None:
        """It was not refused."""
        request = asked.message
        if isinstance(request, rpc_pb2.AuthRoleGrantPermissionRequest):
            self._ranges.add((request.name, request.perm.key, request.perm.range_end))
        elif isinstance(request, rpc_pb2.AuthRoleRevokePermissionRequest):
            self._ranges.discard((request.role, request.key, request.range_end))
        elif isinstance(request, rpc_pb2.AuthRoleDeleteRequest):
            self._ranges = {held for held in self._ranges if held[0] != request.role}


def run(seed: int, count: int, left: Client, right: Client) -> tuple[Counter[str], Counter[str]]:
    """`count` operations; calls and refusals, and the excuses."""
    generator = Generator(seed)
    seen: Counter[str] = Counter()
    excused: Counter[str] = Counter()
    asking = generator.setting_up()
    asking.append(log_in("root"))
    setting_up = len(asking)
    enabled = False
    held = Held()
    for number in range(count):
        user = None
        if not enabled and number >= setting_up:
            asked = generator.setting_up()[-1]
        elif asking:
            asked = asking.pop(0)
        else:
            asked = generator.next()
            user = generator.caller() if enabled else None
        if user not in left.tokens and (user is not None or asked.method.startswith(LEASE)):
            user = "root" if "root" in left.tokens else None
        asked = held.instead(asked)
        original, ours = left.call(asked, user), right.call(asked, user)
        if original.message is not None:
            held.done(asked)
        seen[asked.method if original.message is not None else original.text] += 1
        differs, _ = difference(asked, original, ours)
        why = excuse(asked, original, ours) if differs else ""
        excused[why] += 1
        where = f"seed {seed}, operation {number} by {user}: {asked}"
        assert not differs or why, f"{where}\n--- original\n{original}\n--- ours\n{ours}"
        if asked.method == AUTH + "AuthEnable" and original.message is not None:
            enabled = True
        if asked.method == AUTH + "AuthDisable" and original.message is not None:
            enabled = False
        if not enabled and number >= setting_up:
            asking = [log_in("root")]
        elif original.text == "etcdserver: invalid auth token" and user != "stranger":
            assert user is not None
            for client in (left, right):
                del client.tokens[user]
            asking.append(log_in(user))
    return seen, excused


@pytest.mark.real
@needs_oracle()
@pytest.mark.parametrize("seed", [1])
def test_the_same_users_get_the_same_answers(
    pair: tuple[Server, Server], seed: int, tmp_path: Path
) -> None:
    left, right = (Client(server.endpoint) for server in pair)
    try:
        seen, _ = run(seed, OPERATIONS, left, right)
        for client in (left, right):
            client.call(Generator(0).setting_up()[-1], None)
            assert client.call(log_in("root"), None).message is not None
        for asked in (everything(), hash_operation()):
            answers = left.call(asked, "root"), right.call(asked, "root")
            assert not difference(asked, *answers)[0], answers
        assert buckets(pair[0], tmp_path) == buckets(pair[1], tmp_path)
    finally:
        left.close()
        right.close()
    for method in RESPONSES:
        assert seen[method], f"{method} was never answered"
    for text in ("permission denied", "invalid auth token", "invalid auth management"):
        assert seen[f"etcdserver: {text}"], f"never refused: {text}; {seen}"
