"""Every method by everybody: the original's refusals, and where it has changed them since 3.5.1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.auth.calls import Client
from tests.auth.matrix import CALLERS, cases, outcome, prepare
from tests.support.server import ORACLE, OURS, Server, needs_oracle, serving

REFUSED = {
    "nobody": "INVALID_ARGUMENT: etcdserver: user name is empty",
    "alice": "PERMISSION_DENIED: etcdserver: permission denied",
    "stranger": "UNAUTHENTICATED: etcdserver: invalid auth token",
    "empty": "UNAUTHENTICATED: etcdserver: invalid auth token",
}
WATCH_REFUSED = {
    "nobody": "InvalidArgument desc = etcdserver: user name is empty",
    "alice": "PermissionDenied desc = etcdserver: permission denied",
    "stranger": "Unauthenticated desc = etcdserver: invalid auth token",
    "empty": "Unauthenticated desc = etcdserver: invalid auth token",
}
EVERYBODY = frozenset(REFUSED)
USERS_ONLY = EVERYBODY - {"alice"}
BY_LOG = frozenset(("nobody",))  # a bad token was always found out when proposing

NOW_REFUSED = {
    "Compact": BY_LOG | {"alice"},  # 3.5.28: only root
    "LeaseGrant": BY_LOG,  # 3.5.28: only users
    "LeaseRevoke": BY_LOG,
    "LeaseTimeToLive": EVERYBODY,  # 3.5.28: only users; 3.5.6: READ on the keys that are told
    "LeaseKeepAlive": EVERYBODY,  # 3.5.28: WRITE on the keys
    "LeaseLeases": EVERYBODY,  # 3.5.6: READ on all keys
    "MemberList": USERS_ONLY,  # 3.5.29: only users
    "Alarm": BY_LOG | {"alice"},  # 3.5.28: only root, GET only users
    "Status": USERS_ONLY,  # 3.6.12: only users
    "Defragment": EVERYBODY,  # 3.5.5: no longer as Unknown
    "Hash": EVERYBODY,
    "HashKV": EVERYBODY,
    "Snapshot": EVERYBODY,
    "MoveLeader": EVERYBODY,  # 3.6: only root
    "Downgrade": EVERYBODY,  # 3.6: only root
}
"""Who is refused today and was not, or in other words, by 3.5.1."""


def known(method: str, caller: str, original: str, ours: str) -> bool:
    """Whether a difference is the original's own."""
    name = method.rpartition("/")[2]
    if name == "Watch":
        # 3.5.5 says why; 3.7.1 does not take a range to the end for one key (GHSA-xg4h-6gfc-h4m8)
        return ours == "canceled: rpc error: code = " + WATCH_REFUSED[caller]
    if name == "AuthStatus":
        # 3.7: anybody may ask
        return ours == "ok" and original in (REFUSED["nobody"], REFUSED["alice"])
    return caller in NOW_REFUSED.get(name, ()) and ours == REFUSED[caller]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """The original and ours."""
    flags = ("--bcrypt-cost=4",)
    servers = (
        Server(ORACLE, tmp_path / "original", flags=flags),
        Server(OURS, tmp_path / "ours", flags=flags),
    )
    with serving(*servers):
        yield servers


@pytest.mark.real
@needs_oracle()
def test_everybody_gets_the_originals_answer(pair: tuple[Server, Server]) -> None:
    clients = [Client(server.endpoint) for server in pair]
    channels = [grpc.insecure_channel(server.endpoint) for server in pair]
    wrong, excused, refused = [], set(), 0
    try:
        for client in clients:
            prepare(client)
        for case in cases():
            for caller in CALLERS:
                original, ours = (
                    outcome(channel, case, client.tokens.get(caller))
                    for client, channel in zip(clients, channels, strict=True)
                )
                refused += ours != "ok"
                if original == ours:
                    continue
                if known(case[0], caller, original, ours):
                    excused.add(case[0].rpartition("/")[2])
                else:
                    wrong.append(f"{case} by {caller}\n  original: {original}\n  ours: {ours}")
    finally:
        for each in (*clients, *channels):
            each.close()
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)
    assert refused > 300
    assert excused == {*NOW_REFUSED, "Watch", "AuthStatus"}, "an excuse that is no longer needed"
