"""Through our gRPC proxy the original etcdctl prints what it prints through the original's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.golden.sessions import CLUSTER, DATA, Line, mask
from tests.golden.test_live_sessions import LAST, Background, election_session, lease_session
from tests.support.proxies import Proxy, behind
from tests.support.server import ORACLE, OURS, Server, etcdctl, needs_oracle

Pair = tuple[Proxy, Proxy]

CODES = re.compile(rb"code = \w+ desc")
"""DEVIATION: the original's proxy makes nearly every code Unknown, ours keeps the member's."""

WATCHES = [
    "watch --rev=REV foo",
    "watch --rev=REV foo --prev-kv",
    "watch --rev=REV --prefix fo",
    "watch --rev=REV foo fop",
    "watch --rev=REV foo -w fields",
    "watch --rev=REV foo -- echo ran",
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The original's proxy and ours, each before an original member of its own."""
    place = tmp_path_factory.mktemp("proxied")
    members = [Server(ORACLE, place / name) for name in ("first", "second")]
    proxies = behind(ORACLE, members[0]), behind(OURS, members[1])
    try:
        for server in (*members, *proxies):
            server.spawn()
        for server in (*members, *proxies):
            assert server.wait_ready(), server.log[-2000:]
        yield proxies
    finally:
        for server in (*proxies, *members):
            server.kill()


LATER = re.compile(
    rb"LocalAddr: '[^']*'|\{[^{}]*flags/flag.go[^{}]*\}\n?|\d+%|took [0-9.]+m?s"
    rb'|"header":(null|\{"cluster_id":0,"member_id":0\}|\{\}),?|\xe2\x94\x82 +\d+|(\xe2\x94\x80)+'
)
"""What etcdctl prints since 3.6: its own port, how full a database is, that it does not know a
variable; and the header of the list of proxies."""

CRASHES = (["member", "list", "-w", "fields"], ["member", "list", "--hex", "-w", "json"])
"""Without a header in the list of proxies, etcdctl crashes; ours sends an empty one."""


def masked(proxy: Proxy, output: bytes) -> str:
    found = mask(output, proxy.client_port, proxy.peer_port)
    found = found.replace(proxy.upstream.encode(), b"MEMBER")
    found = LATER.sub(b"", found)
    return CODES.sub(b"code = CODE desc", found).decode("utf-8", "replace")


def shown(proxy: Proxy, typed: Line) -> str:
    words, stdin = typed
    done = etcdctl(proxy.endpoint, *words, stdin=stdin)
    out, err = masked(proxy, done.stdout), masked(proxy, done.stderr)
    return f"$ etcdctl {' '.join(words)}\n{out}--- stderr\n{err}--- exit {done.returncode}"


@pytest.mark.real
@needs_oracle()
@pytest.mark.parametrize("session", [DATA, CLUSTER], ids=["data", "cluster"])
def test_a_session_prints_the_same(pair: Pair, session: list[Line]) -> None:
    different = []
    for typed in session:
        first, second = (shown(proxy, typed) for proxy in pair)
        if typed[0] in CRASHES and first.endswith("exit 2"):
            assert second.endswith("exit 0")
            continue
        if first != second:
            different.append(f"=== original\n{first}\n=== ours\n{second}\n")
    assert not different, f"{len(different)} of {len(session)} differ:\n" + "\n".join(different)


def watch_session(proxy: Proxy) -> list[str]:
    """What one watcher after the other shows of the same changes, from those of the past on."""
    texts = []
    for words in WATCHES:
        for number in range(3):
            etcdctl(proxy.endpoint, "put", "foo", f"{number}")
        revision = answered_revision(proxy)
        etcdctl(proxy.endpoint, "del", "foo")
        etcdctl(proxy.endpoint, "put", "foo", LAST)
        watch = Background(proxy, words.replace("REV", str(revision)), "")
        text = watch.until(LAST)
        texts.append(masked(proxy, text.partition(LAST)[0].encode()))
        watch.kill()
    return texts


def answered_revision(proxy: Proxy) -> int:
    found = etcdctl(proxy.endpoint, "get", "foo", "-w", "json").stdout
    return int(json.loads(found)["header"]["revision"])


@pytest.mark.real
@needs_oracle()
def test_watches_print_the_same(pair: Pair) -> None:
    for left, right in zip(*(watch_session(proxy) for proxy in pair)):
        assert left == right


@pytest.mark.real
@needs_oracle()
def test_leases_alarms_and_locks_print_the_same(pair: Pair) -> None:
    for left, right in zip(*(lease_session(proxy) for proxy in pair)):
        assert masked(pair[0], left.encode()) == masked(pair[1], right.encode())


@pytest.mark.real
@needs_oracle()
def test_elections_print_the_same(pair: Pair) -> None:
    for left, right in zip(*(election_session(proxy) for proxy in pair)):
        assert masked(pair[0], left.encode()) == masked(pair[1], right.encode())
