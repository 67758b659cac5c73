"""Very many users, roles and permissions: lists and changes take a page a step."""

from __future__ import annotations

import random

import pytest

from keyraft.auth.records import PAGE
from keyraft.base import errors
from keyraft.proto import rpc_pb2
from tests.auth.test_store import READ, WRITE, Users, refusal
from tests.mvcc.test_steps import gone_through


@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 7])
def test_lists_and_the_end_of_a_role_take_a_page_a_step(count: int) -> None:
    users = Users()
    users.role("gone")
    names = [f"u{number:05d}" for number in range(count)]
    for name in names:
        users.accounts.user_add(rpc_pb2.AuthUserAddRequest(name=name, hashedPassword="cHc="))
        users.accounts.user_grant_role(rpc_pb2.AuthUserGrantRoleRequest(user=name, role="gone"))
        users.accounts.role_add(rpc_pb2.AuthRoleAddRequest(name=name))
    steps, answer = gone_through(users.accounts.user_list(rpc_pb2.AuthUserListRequest()))
    everybody = list(rpc_pb2.AuthUserListResponse.FromString(answer).users)
    assert set(names) <= set(everybody) and everybody == sorted(everybody)
    assert steps == max(len(everybody) - 1, 0) // PAGE
    steps, answer = gone_through(users.accounts.role_list(rpc_pb2.AuthRoleListRequest()))
    roles = list(rpc_pb2.AuthRoleListResponse.FromString(answer).roles)
    assert set(names) <= set(roles) and "gone" in roles and roles == sorted(roles)
    assert steps == (len(roles) - 1) // PAGE
    revision = users.store.revision
    work = users.accounts.role_delete(rpc_pb2.AuthRoleDeleteRequest(role="gone"))
    steps, answer = gone_through(work)
    assert not answer and steps == max(len(everybody) - 1, 0) // PAGE
    assert users.store.revision == revision + 1
    for name in names:
        user = users.store.records.user(name)
        assert user is not None and not user.roles


def test_a_role_of_many_permissions_is_changed_where_they_stand() -> None:
    """Against lists: granted in any order, on keys that come more than once, and revoked."""
    chance = random.Random(5)
    users = Users()
    users.role("r")
    twin: list[tuple[bytes, bytes, int]] = []
    for _ in range(600):
        key, end = b"%d" % chance.randrange(30), chance.choice([b"", b"\0", b"a", b"b"])
        if chance.random() < 0.6:
            kind = chance.choice([READ, WRITE])
            users.grant("r", kind, key, end)
            held = next((each for each in twin if each[0] >= key), None)
            if held is not None and held[:2] == (key, end):
                twin[twin.index(held)] = (key, end, kind)
            else:
                twin = sorted([*twin, (key, end, kind)], key=lambda each: each[0])
        else:
            first = next((n for n, each in enumerate(twin) if each[0] >= key), len(twin))
            behind = (key, end) in [each[:2] for each in twin[first + 1 :]]
            assert users.accounts.holds_behind_others("r", key, end) == behind
            wanted = rpc_pb2.AuthRoleRevokePermissionRequest(role="r", key=key, range_end=end)
            kept = [each for each in twin if each[:2] != (key, end)]
            found = refusal(users.accounts.role_revoke_permission, wanted)
            assert found is (errors.PermissionNotGrantedError if kept == twin else None)
            twin = kept
        role = users.store.records.role("r")
        assert role is not None
        assert [(p.key, p.range_end, p.permType) for p in role.keyPermission] == twin
