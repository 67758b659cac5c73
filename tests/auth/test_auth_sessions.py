"""The original etcdctl's user, role and auth commands: the same on both servers, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.auth.sessions import ENABLED, ENABLING, KNOWN, ROLES, USERS
from tests.golden.test_sessions import shown
from tests.support.server import ORACLE, OURS, Server, needs_oracle, serving

pytestmark = [pytest.mark.real, needs_oracle()]
Pair = tuple[Server, Server]

_MOMENT = re.compile(r'"ts":ID\.\d+')
_REFUSAL = re.compile(r"(rpc error: code = \w+ desc = )?(auth|etcdserver): permission denied")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The original and ours."""
    place = tmp_path_factory.mktemp("auth")
    flags = ("--bcrypt-cost=4",)
    servers = (
        Server(ORACLE, place / "original", flags=flags),
        Server(OURS, place / "ours", flags=flags),
    )
    with serving(*servers):
        yield servers


def test_the_tool_cannot_tell_the_servers_apart(pair: Pair) -> None:
    different = []
    lines = [*ROLES, *USERS, *ENABLING, *ENABLED]
    with ThreadPoolExecutor(2) as threads:
        for typed in lines:
            first, second = (
                _MOMENT.sub("", text)
                for text in threads.map(lambda server, typed=typed: shown(server, typed), pair)
            )
            known = KNOWN.get(" ".join(typed[0]))
            if known is not None:
                assert first != second, f"no longer different: {known}"
                first, second = (_REFUSAL.sub("REFUSED", text) for text in (first, second))
            if first != second:
                different.append(f"=== original\n{first}\n=== ours\n{second}\n")
    assert not different, f"{len(different)} of {len(lines)} differ:\n" + "\n".join(different)
