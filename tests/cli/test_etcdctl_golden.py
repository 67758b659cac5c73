"""Our etcdctl against the original one: the same lines, each tool on an original server.

Both servers begin empty and see the same requests, so even revisions and hashes agree.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from tests.cli import etcdctl_forms, etcdctl_sessions
from tests.cli.etcdctl_sessions import ERR_CHANGES, OUT_CHANGES
from tests.cli.forking import Forker, Outcome
from tests.golden.sessions import Line, mask
from tests.support.server import ORACLE, Server, environment, etcdctl, needs_oracle, serving

pytestmark = [pytest.mark.real, needs_oracle()]

SESSIONS: Final = {**etcdctl_sessions.SESSIONS, **etcdctl_forms.SESSIONS}


@pytest.fixture(scope="module")
def ours() -> Iterator[Forker]:
    """Our tool."""
    forker = Forker(environment())
    yield forker
    forker.close()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two fresh original servers of the same name."""
    place = tmp_path_factory.mktemp("etcdctl")
    # A password is checked in no time, and no request waits for the disk.
    flags = ["--bcrypt-cost=4", "--unsafe-no-fsync"]
    pair = Server(ORACLE, place / "one", flags=flags), Server(ORACLE, place / "two", flags=flags)
    with serving(*pair):
        yield pair


class Tool:
    """One tool with what its earlier lines printed."""

    def __init__(self, server: Server, forker: Forker | None) -> None:
        self.server = server
        self._forker = forker
        self._known: dict[str, str] = {}
        self._last_add_unix_s = 0

    def run(self, typed: Line) -> str:
        words = [word.format(**self._known) if "{" in word else word for word in typed[0]]
        adding = words[:2] == ["member", "add"]
        # An id is made of URLs and second, and a known id is refused before known URLs are.
        while adding and int(time.time()) <= self._last_add_unix_s:
            time.sleep(0.01)
        done = self._run(words, typed[1])
        if adding:
            self._last_add_unix_s = int(time.time())
        for name, pattern in (
            ("lease", rb"lease ([0-9a-f]{16}) granted"),
            ("member", rb"^([0-9a-f]+), unstarted"),
        ):
            found = re.search(pattern, done.out, re.M)
            if found:
                self._known[name] = found[1].decode()
        out, err = done.out, done.err
        for change in OUT_CHANGES:
            out = change(words, out)
        for change in ERR_CHANGES:
            err = change(words, err)
        ports = self.server.client_port, self.server.peer_port
        parts = [_masked(mask(part, *ports)) for part in (out, err)]
        if "hashkv" in words:  # keys carry leases, whose ids are different on both servers
            parts[0] = re.sub(rb"\b\d{4,9}\b", b"ID", parts[0])
        if words[0].startswith("mem"):
            parts[0] = _members_sorted(parts[0])
        return f"$ etcdctl {' '.join(typed[0])}\n{parts[0]!r}\n{parts[1]!r}\nexit {done.code}"

    def _run(self, words: list[str], stdin: bytes) -> Outcome:
        if self._forker is not None:
            return self._forker.run([f"--endpoints={self.server.endpoint}", *words], stdin)
        done = etcdctl(self.server.endpoint, *words, stdin=stdin)
        return Outcome(done.stdout, done.stderr, done.returncode)


def _without_leases(server: Server) -> None:
    """Revokes what leases earlier sessions left: they would run out in the middle of this one."""
    listed = etcdctl(server.endpoint, "lease", "list")
    assert listed.returncode == 0, listed
    for lease in re.findall(r"^[0-9a-f]{16}$", listed.stdout.decode(), re.M):
        etcdctl(server.endpoint, "lease", "revoke", lease)


def _members_sorted(text: bytes) -> bytes:
    """Members come in the order of their ids, which are different on both servers."""
    if text.startswith(b"{"):
        answer = json.loads(text)
        answer.get("members", []).sort(key=json.dumps)
        return json.dumps(answer).encode()
    if text.startswith(b'"ClusterID"'):
        header, first, rest = text.partition(b'"ID"')
        return header + b"\n\n".join(sorted((first + rest).split(b"\n\n")))
    if text.startswith(b"\n_\x08ID"):  # protobuf: a header, then the members
        header, *members = text.split(b"\x12_\x08ID")
        return b"\x12_\x08ID".join([header, *sorted(members)])
    return b"\n".join(sorted(text.splitlines()))


def _masked(text: bytes) -> bytes:
    """Numbers that depend on elections and clocks, beyond what `mask` knows."""
    text = re.sub(rb'"Took" : \S+', b'"Took" : T', text)
    text = re.sub(rb", [0-9.]+(ms|s|\xc2\xb5s), ", b", T, ", text)
    text = re.sub(rb"remaining\(\d+s\)", b"remaining(T)", text)
    text = re.sub(rb'"(TTL|ttl)" ?: ?(5\d\d|600)\b', rb'"\1":600', text)
    text = re.sub(rb"\n.\x08[\x80-\xff]{6,9}[\x00-\x7f]", b"\n_\x08ID", text)
    text = re.sub(rb"([\x08\x10])[\x80-\xff]{6,9}[\x00-\x7f]", rb"\1ID", text)
    text = re.sub(rb"([\n\x12\x1a]).\x08ID", b"\\1_\x08ID", text)  # lengths vary with the ids
    return re.sub(rb"\b\d{17,20}\b", b"ID", text)


@pytest.mark.parametrize("name", SESSIONS)
def test_our_etcdctl_says_what_the_original_says(
    name: str, ours: Forker, servers: tuple[Server, Server]
) -> None:
    tools = Tool(servers[0], None), Tool(servers[1], ours)
    # Each has its own server, so both run at once.
    with ThreadPoolExecutor(2) as both:
        list(both.map(_without_leases, servers))
        told = list(both.map(lambda tool: [tool.run(typed) for typed in SESSIONS[name]], tools))
    different = [
        f"=== original\n{expected}\n=== ours\n{found}\n"
        for expected, found in zip(*told)
        if expected != found
    ]
    assert not different, f"{len(different)} lines differ:\n" + "\n".join(different)
