"""The original etcdctl cannot tell our server from the original."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.golden.sessions import CLUSTER, DATA, Line, mask
from tests.support.server import ORACLE, OURS, Server, etcdctl, needs_oracle

Pair = tuple[Server, Server]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The original and ours."""
    place = tmp_path_factory.mktemp("golden")
    original, ours = Server(ORACLE, place / "original"), Server(OURS, place / "ours")
    original.start()
    try:
        ours.start()
        yield original, ours
    finally:
        original.stop()
        ours.stop()


def shown(server: Server, typed: Line) -> str:
    words, stdin = typed
    done = etcdctl(server.endpoint, *words, stdin=stdin)
    parts = (done.stdout, done.stderr)
    out, err = (mask(part, server.client_port, server.peer_port) for part in parts)
    return (
        f"$ etcdctl {' '.join(words)}\n{out.decode('utf-8', 'replace')}"
        f"--- stderr\n{err.decode('utf-8', 'replace')}--- exit {done.returncode}"
    )


@pytest.mark.real
@needs_oracle()
@pytest.mark.parametrize("session", [DATA, CLUSTER], ids=["data", "cluster"])
def test_a_session_prints_what_the_original_prints(pair: Pair, session: list[Line]) -> None:
    different = []
    for typed in session:
        first, second = (shown(server, typed) for server in pair)
        if first != second:
            different.append(f"=== original\n{first}\n=== ours\n{second}\n")
    assert not different, f"{len(different)} of {len(session)} differ:\n" + "\n".join(different)
