"""Users under faults: whatever happens, every member ends with the same users and the same keys."""

from __future__ import annotations

import base64
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from keyraft.auth import Identity
from keyraft.base.errors import EtcdError
from keyraft.base.waiters import Result
from keyraft.mvcc import check_delete_range, check_put, check_txn
from keyraft.mvcc.backend import AUTH, AUTH_ROLES, AUTH_USERS
from keyraft.proto import raft_internal_pb2, rpc_pb2
from keyraft.server import Member
from keyraft.server.apply import internal_request
from sim.cluster import SimCluster
from sim.faults import Chaos
from sim.scenario import habits
from sim.twin import Twin
from tests.auth.users import Generator

pytestmark = pytest.mark.sim

RUN_S = 15.0
PEACE_S = 60.0
PAUSE_S = 0.02
KINDS = {
    **{
        name.removeprefix("Auth"): kind
        for kind, name in internal_request.KINDS.items()
        if 1_100 <= kind < 1_300
    },
    **{internal_request.KINDS[kind]: kind for kind in internal_request.KINDS if kind < 1_100},
}

CHECKS: dict[str, Callable[[Any], None]] = {
    "Put": check_put,
    "DeleteRange": check_delete_range,
    "Txn": check_txn,
}


def check_nothing(_: object) -> None:
    """Whatever the message, it may be proposed."""


class Everybody:
    """Administrators and users at work, one request after another at any member."""

    def __init__(self, cluster: SimCluster, seed: int) -> None:
        self._cluster = cluster
        self._chance = Random(seed)
        self._asked = Generator(seed)
        self.stopped = False
        self.answered = 0
        self.refused: set[str] = set()
        cluster.loop.call_later(1.0, self._next)

    def _next(self) -> None:
        if self.stopped:
            return
        self._cluster.loop.call_later(PAUSE_S, self._next)
        members = [member for member in self._cluster.members if not member.stopped]
        if members:
            self._ask(self._chance.choice(members))

    def _ask(self, member: Member) -> None:
        auth = member.auth
        if not auth.enabled:
            asked = self._chance.choice(self._asked.setting_up())
        else:
            asked = self._asked.next()
        name = asked.method.rpartition("/")[2]
        message = asked.message
        if isinstance(message, rpc_pb2.AuthUserAddRequest):
            message.hashedPassword = base64.b64encode(message.password.encode()).decode()
            message.password = ""
        elif isinstance(message, rpc_pb2.AuthenticateRequest):
            message = raft_internal_pb2.InternalAuthenticateRequest(
                name=message.name, simple_token=auth.tokens.prefix()
            )
        assert message is not None
        try:
            CHECKS.get(name, check_nothing)(message)
        except EtcdError:
            return  # the service refuses it before it is proposed
        caller = (self._asked.caller() or "") if auth.enabled else ""
        stale = self._chance.random() < 0.05
        revision = auth.revision - stale if caller else 0
        try:
            member.propose(
                KINDS[name],
                message.SerializeToString(),
                self._done,
                Identity(caller.encode(), revision),
            )
        except EtcdError:
            return  # no leader, or too much under way: nothing has happened

    def _done(self, result: Result) -> None:
        if isinstance(result, bytes):
            self.answered += 1
        else:
            self.refused.add(result.text)


def users_of(member: Member) -> list[tuple[bytes, bytes]]:
    return [pair for name in (AUTH, AUTH_USERS, AUTH_ROLES) for pair in member.backend.range(name)]


@pytest.mark.parametrize("seed", range(1, 4))
def test_all_members_end_with_the_same_users_and_keys(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Twin, "apply", lambda twin, data: None)  # it knows no users
    cluster = SimCluster(3, seed, habits)
    chaos = Chaos(cluster, 1.0, None)
    everybody = Everybody(cluster, seed)
    cluster.run(RUN_S)
    chaos.stop()
    cluster.calm()
    cluster.run(3.0)
    everybody.stopped = True
    assert cluster.run_until(cluster.agreed, PEACE_S), cluster.whereabouts()
    members = cluster.members
    for member in members:
        member.auth.check()
        assert member.auth.revision == members[0].auth.revision > 5
        assert users_of(member) == users_of(members[0])
    assert len(cluster.hashes()) == 1
    assert everybody.answered > 50
    for text in ("permission denied", "revision of auth store is old", "user name is empty"):
        assert f"etcdserver: {text}" in everybody.refused
