"""What the original etcdctl shows of watches, leases, locks and elections: the same on both servers.

A watcher is started in the background, and everything is typed only once it stands; it is read
until it shows the last value put, so nothing sleeps and nothing depends on how fast a server is.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden.sessions import mask
from tests.support.server import ETCDCTL, ORACLE, OURS, Server, etcdctl, needs_oracle

LAST = "THE-LAST"
READ_TIMEOUT_S = 30.0

WATCHES = [
    ("watch foo", ""),
    ("watch foo --prev-kv", ""),
    ("watch --prefix fo", ""),
    ("watch foo fop", ""),
    ("watch --rev=2 foo", ""),
    ("watch --rev=1 --prefix --prev-kv foo", ""),
    ("watch --rev=3 foo -w json", ""),
    ("watch --rev=3 foo -w fields", ""),
    ("watch foo -w json --prev-kv", ""),
    ("watch foo --hex", ""),
    ("watch foo -- echo ran", ""),
    ("watch --prefix fo -- env", ""),
    ("watch --rev=2 foo fop -- env", ""),
    ("watch -i", "watch foo\nwatch --prefix --rev 2 fo\nwatch foo -- echo ran\n"),
    ("watch -i", "progress\nwatch --prev-kv foo\n"),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    directory: Path = tmp_path_factory.mktemp("live")
    servers = Server(ORACLE, directory / "original"), Server(OURS, directory / "ours")
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.stop()


class Background:
    """An etcdctl that goes on until it is killed."""

    def __init__(self, server: Server, words: str, stdin: str) -> None:
        self.process = subprocess.Popen(
            [ETCDCTL, f"--endpoints={server.endpoint}", *words.split()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "ETCDCTL_API": "3"},
        )
        self.output = b""
        assert self.process.stdin is not None
        self.process.stdin.write(stdin.encode())
        self.process.stdin.flush()

    def until(self, text: str, times: int = 1) -> str:
        """Everything up to where `text` has come so often, and what follows on its line."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        wanted = text.encode()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while self.output.count(wanted) < times or not self.output.endswith(b"\n"):
                assert selector.select(max(0.0, deadline_s - time.monotonic())), self.output
                data = os.read(descriptor, 65536)
                assert data, f"ended after {self.output!r}"
                self.output += data
        return self.output.decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


def run(server: Server, *words: str) -> str:
    done = etcdctl(server.endpoint, *words)
    out, err = (
        mask(part, server.client_port, server.peer_port) for part in (done.stdout, done.stderr)
    )
    return f"$ {' '.join(words)}\n{out.decode()}{err.decode()}exit {done.returncode}\n"


def watchers(server: Server) -> int:
    """How many watchers the member counts."""
    metrics = subprocess.run(
        ["curl", "-s", f"http://{server.endpoint}/metrics"], capture_output=True, check=True
    )
    found = re.search(rb"^etcd_debugging_mvcc_watcher_total (\d+)", metrics.stdout, re.M)
    assert found, metrics.stdout[-2000:]
    return int(found[1])


def await_watchers(server: Server, count: int) -> None:
    deadline_s = time.monotonic() + READ_TIMEOUT_S
    while watchers(server) != count:
        assert time.monotonic() < deadline_s, f"{watchers(server)} watchers instead of {count}"


def watch_session(server: Server) -> list[str]:
    """What each watcher shows of the same changes."""
    for change in (("put", "foo", "1"), ("put", "foo", "2"), ("put", "fox", "3"), ("del", "foo")):
        run(server, *change)
    started = [Background(server, words, stdin) for words, stdin in WATCHES]
    wanted = sum(max(1, stdin.count("watch ")) for _, stdin in WATCHES)
    await_watchers(server, wanted)
    try:
        # What is past is shown before anything new is put: the original reads it ten times a
        # second, and its headers tell the revision of then.
        for background, (words, stdin) in zip(started, WATCHES):
            if "--rev" in words + stdin:
                background.until("\n")
        for change in (
            ("put", "foo", "4"),
            ("put", "foo", "5"),
            ("put", "fop", "6"),
            ("del", "foo"),
        ):
            run(server, *change)
        run(server, "put", "foo", LAST)
        shown = []
        for background, (words, stdin) in zip(started, WATCHES):
            json = "-w json" in words
            last = "VEhFLUxBU1Q" if json else LAST
            if "--hex" in words:
                last = "".join(f"\\x{byte:02x}" for byte in LAST.encode())
            if words.endswith("env"):
                last = f'="{LAST}"'  # the event is shown first, then what the command says
            text = background.until(last, max(1, stdin.count("watch ")))
            if "echo ran" in words + stdin:
                text = background.until("ran\n", 4)
            if "ran" in stdin:
                text = "".join(sorted(text.splitlines(keepends=True)))
            if words.endswith("env"):
                text = "\n".join(
                    line
                    for line in text.splitlines()
                    if not line.startswith(("PATH", "PWD", "ETCDCTL"))
                )
            masked = mask(text.encode(), server.client_port, server.peer_port).decode()
            shown.append(f"$ etcdctl {words} <<< {stdin!r}\n{masked}")
        return shown
    finally:
        for background in started:
            background.kill()
        await_watchers(server, 0)


@pytest.mark.real
@needs_oracle()
def test_watches_show_the_same(pair: tuple[Server, Server]) -> None:
    original, ours = (watch_session(server) for server in pair)
    for left, right in zip(original, ours):
        assert left == right


def lease_session(server: Server) -> list[str]:
    shown = []
    granted = etcdctl(server.endpoint, "lease", "grant", "600").stdout.decode().split()[1]
    for words in (
        "put leased v --lease=LEASE",
        "put leased2 v --lease=LEASE",
        "put nothing v --lease=7777",
        "get leased -w json",
        "lease timetolive LEASE",
        "lease timetolive LEASE -w json",
        "lease timetolive 7777",
        "lease timetolive 7777 --keys -w json",
        "lease list",
        "lease keep-alive --once LEASE",
        "lease keep-alive --once 7777",
        "lease grant -1",
        "lease grant 9999999999",
        "lease revoke LEASE",
        "lease revoke LEASE",
        "lease timetolive LEASE",
        "get leased",
        "lease list",
        "alarm list",
        "alarm disarm",
        "defrag",
        "lock L echo held",
        "lock L",
        "elect",
        "get --prefix L",
    ):
        if words == "lock L":
            holder = Background(server, words, "")
            shown.append(re.sub(r"/[0-9a-f]+", "/LEASE", holder.until("L/").strip()))
            holder.kill()
            continue
        text = run(server, *words.replace("LEASE", granted).split())
        text = re.sub(r"remaining\(\d+s\)", "remaining(T)", text)
        shown.append(re.sub(r'"(ttl|lease)":\d+', r'"\1":0', text.replace(granted, "LEASE")))
    return shown


@pytest.mark.real
@needs_oracle()
def test_leases_alarms_and_locks_show_the_same(pair: tuple[Server, Server]) -> None:
    original, ours = (lease_session(server) for server in pair)
    for left, right in zip(original, ours):
        assert left == right


def election_session(server: Server) -> list[str]:
    leader = Background(server, "elect E first", "")
    first = leader.until("first")
    observer = Background(server, "elect -l E", "")
    seen = observer.until("first")
    second = Background(server, "elect E second", "")
    leader.process.terminate()
    leader.process.wait()
    elected = second.until("second")
    observed = observer.until("second")
    for background in (leader, observer, second):
        background.kill()
    return [
        re.sub(r"/[0-9a-f]+", "/LEASE", text.strip()) for text in (first, seen, elected, observed)
    ]


@pytest.mark.real
@needs_oracle()
def test_elections_show_the_same(pair: tuple[Server, Server]) -> None:
    original, ours = (election_session(server) for server in pair)
    assert original == ours
