"""The README's script for three machines, each played by an address of this one.

Then what an operator looks at first: the members, everybody's status, a key put here and read
there, and the leader killed: its successor is named in the log, and nothing acknowledged is lost.
The transcript is printed (`pytest -s`).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.server import ETCDCTL, ROOT, environment, needs_oracle

pytestmark = [pytest.mark.real, needs_oracle()]

WAIT_S = 60.0
ELECTION_TIMEOUT_S = 1.0
LATE_S = 20 * ELECTION_TIMEOUT_S  # on a machine that is busy with something else
ACKNOWLEDGED = 30


def script() -> str:
    """The shell commands below "Three members"."""
    text = (ROOT / "README.md").read_text().partition("\n## Three members\n")[2]
    block = re.search(r"(?:^(?: {4}.*)?\n)+", text.lstrip("\n"), re.MULTILINE)
    assert block is not None
    return re.sub(r"^ {4}", "", block[0], flags=re.MULTILINE)


class Machine:
    """One of the three: its shell, and what its member says."""

    def __init__(self, number: int, commands: str, folder: Path, path: str) -> None:
        folder.mkdir()
        self.name = f"n{number}"
        self.lines: list[str] = []
        self.news = threading.Condition()
        self.process = subprocess.Popen(
            ["bash", "-euc", commands],
            cwd=folder,
            env=environment() | {"PATH": path},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as said:
            for line in said:
                with self.news:
                    self.lines.append(line)
                    self.news.notify_all()

    def wait_for(self, words: str, behind: int = 0) -> str:
        """The first line that this pattern is found in, after so many lines."""
        found = ""

        def there() -> bool:
            nonlocal found
            found = next((line for line in self.lines[behind:] if re.search(words, line)), "")
            return bool(found)

        with self.news:
            assert self.news.wait_for(there, WAIT_S), f"{words}: {''.join(self.lines[-30:])}"
        return found

    def kill(self) -> None:
        """kill -9 for the shell and the member."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.reader.join(WAIT_S)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[list[Machine], str]]:
    """Three machines, and the value of --endpoints."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "etcd").write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m keyraft.cli.etcd "$@"\n'
    )
    (tools / "etcd").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    starting, _, asking = script().partition("etcdctl ")
    ports = {
        f"{address}:{port}": f"127.0.0.1:{free}"
        for (address, port), free in zip(
            ((f"10.0.0.{n}", port) for n in (1, 2, 3) for port in (2379, 2380)), free_ports(6)
        )
    }
    started: list[Machine] = []
    try:
        for number in (1, 2, 3):
            text = starting.replace("THIS_NAME=n1 THIS_IP=10.0.0.1", f"THIS_NAME=n{number}")
            for port in (2379, 2380):
                text = text.replace(f"${{THIS_IP}}:{port}", f"10.0.0.{number}:{port}")
            for written, real in ports.items():
                text = text.replace(written, real)
            assert "10.0.0" not in text and "THIS_IP" not in text, text
            started.append(Machine(number, f"exec 2>&2; {text}", tmp_path / f"n{number}", path))
        endpoints = asking.partition("--endpoints=")[2].split()[0]
        for written, real in ports.items():
            endpoints = endpoints.replace(written, real)
        yield started, endpoints
    finally:
        for machine in started:
            machine.kill()


def etcdctl(endpoints: str, *words: str) -> str:
    """The original, and what it printed."""
    done = subprocess.run(
        [ETCDCTL, f"--endpoints={endpoints}", *words],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env={"PATH": "/usr/bin:/bin"},
        check=False,
    )
    print(f"$ etcdctl {' '.join(words)}\n{done.stdout}{done.stderr}", end="", flush=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def moment(line: str) -> datetime:
    return datetime.fromisoformat(json.loads(line)["ts"])


def test_the_script_of_the_readme(machines: tuple[list[Machine], str]) -> None:
    three, endpoints = machines
    for machine in three:
        machine.wait_for("ready to serve client requests")
    one, other, _ = endpoints.replace("http://", "").split(",")
    listed = etcdctl(endpoints, "member", "list")
    assert sorted(line.split(", ")[2] for line in listed.splitlines()) == ["n1", "n2", "n3"]
    assert listed.count("started") == 3
    etcdctl(endpoints, "endpoint", "status", "--cluster", "-w", "table")
    etcdctl(one, "put", "greeting", "hello")
    assert etcdctl(other, "get", "greeting") == "greeting\nhello\n"
    acknowledged = {}
    for number in range(ACKNOWLEDGED):
        acknowledged[f"key{number:02}"] = etcdctl(one, "put", f"key{number:02}", "v")
    assert set(acknowledged.values()) == {"OK\n"}

    told = json.loads(etcdctl(endpoints, "endpoint", "status", "--cluster", "-w", "json"))
    leader_id = told[0]["Status"]["leader"]
    assert {each["Status"]["leader"] for each in told} == {leader_id}
    addresses = {each["Status"]["header"]["member_id"]: each["Endpoint"] for each in told}
    listening = addresses[leader_id].removeprefix("http://")
    leader = three[endpoints.replace("http://", "").split(",").index(listening)]
    rest = [machine for machine in three if machine is not leader]
    seen = [len(machine.lines) for machine in rest]
    last_words = moment(leader.lines[-1])
    killed = datetime.now(tz=last_words.tzinfo)
    leader.kill()
    print(f"$ kill -9 {leader.name}, the leader", flush=True)
    for machine, behind in zip(rest, seen):
        line = machine.wait_for("raft.node: .* (elected leader|changed leader)", behind)
        assert f"elected leader {leader_id:x} " not in line
        took_s = (moment(line) - killed).total_seconds()
        print(f"{machine.name}, {took_s:.2f} s later: {json.loads(line)['msg']}", flush=True)
        assert took_s < LATE_S
    left = ",".join(
        address for address in endpoints.replace("http://", "").split(",") if address != listening
    )
    found = etcdctl(left, "get", "key", "--prefix", "--keys-only").split()
    assert found == sorted(acknowledged), "something acknowledged is lost"
    assert etcdctl(left, "put", "greeting", "again") == "OK\n"
