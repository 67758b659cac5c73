"""Members as processes: ours and the original, started, watched and stopped by the tests.

A member is ready when its log says "ready to serve client requests"; nothing here sleeps. The
log is read by a thread, because a pipe that nobody reads stops the member.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.programs import ETCDCTL as ETCDCTL
from tests.support.programs import ORACLE as ORACLE
from tests.support.programs import ORACLE_DIRECTORY as ORACLE_DIRECTORY
from tests.support.programs import OURS as OURS
from tests.support.programs import ROOT as ROOT
from tests.support.programs import SOURCE as SOURCE

READY = b"ready to serve client requests"
START_TIMEOUT_S = 180.0  # met on a machine with ten times as much to do
STOP_TIMEOUT_S = 20.0


def environment() -> dict[str, str]:
    """The environment without what would configure a member, and with our package in it, whose
    members look at themselves all the time."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}
    kept["PYTHONPATH"] = SOURCE
    kept["KEYRAFT_VERIFY"] = "1"
    # Compiled modules are kept, wherever the tests run: a member's start is mostly imports.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    kept["PYTHONPYCACHEPREFIX"] = str(ROOT / ".cache" / "pyc")
    return kept


@dataclass
class Server:
    """One member on 127.0.0.1 with a data directory that outlives its process."""

    command: Sequence[str]
    data_dir: Path
    name: str = "default"
    flags: Sequence[str] = ()
    client_port: int = 0
    peer_port: int = 0
    prefix: Sequence[str] = ()
    """Words before the command: prlimit and the like."""
    ready: bytes = READY
    """In the line that says that it serves."""
    process: subprocess.Popen[bytes] | None = None
    lines: list[bytes] = field(default_factory=list)
    _ready: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _reader: threading.Thread | None = None

    def __post_init__(self) -> None:
        if not self.client_port:
            self.client_port, self.peer_port = free_ports(2)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    @property
    def log(self) -> str:
        """Everything that the member has said, all lives together."""
        return b"".join(self.lines).decode("utf-8", "replace")

    def arguments(self) -> list[str]:
        client = f"http://127.0.0.1:{self.client_port}"
        peer = f"http://127.0.0.1:{self.peer_port}"
        return [
            f"--name={self.name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={self.name}={peer}",
            *self.flags,
        ]

    def spawn(self) -> None:
        """Starts the process and does not wait for it."""
        assert self.process is None or self.process.poll() is not None
        self._ready.clear()
        self._ended.clear()
        self.process = subprocess.Popen(
            [*self.prefix, *self.command, *self.arguments()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd=self.data_dir.parent,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def start(self) -> Server:
        """Starts the process and waits until it serves."""
        self.spawn()
        assert self.wait_ready(), f"{self.command} did not serve:\n{self.log[-4000:]}"
        return self

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> bool:
        """Whether it came to serve, rather than ended or took too long."""
        self._ready.wait(timeout_s)
        return self._ready.is_set() and not self._ended.is_set()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.lines.append(line)
            if self.ready in line:
                self._ready.set()
        process.stderr.close()
        self._ended.set()
        self._ready.set()

    def kill(self) -> None:
        """kill -9, and waits until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code. Kills a member that does not stop."""
        return self._end(signal.SIGTERM)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Waits until it ends by itself; the exit code."""
        assert self.process is not None
        code = self.process.wait(timeout_s)
        if self._reader is not None:
            self._reader.join(timeout_s)
        return code

    def _end(self, number: int) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.wait()
            raise


def etcdctl(endpoint: str, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The original etcdctl 3.5.1 against a member."""
    return subprocess.run(
        [ETCDCTL, f"--endpoints={endpoint}", *words],
        input=stdin,
        capture_output=True,
        env={"ETCDCTL_API": "3", "PATH": os.environ.get("PATH", "")},
        timeout=60,
        check=False,
    )


def keyraft(member: Server, *words: str) -> subprocess.CompletedProcess[str]:
    """Our operator's command, asking `member`."""
    return subprocess.run(
        [sys.executable, "-m", "keyraft.cli.keyraft", *words, f"--endpoint={member.endpoint}"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )


def needs_oracle() -> pytest.MarkDecorator:
    """Skips where the original is not installed."""
    return pytest.mark.skipif(
        not (ORACLE_DIRECTORY / "etcd").exists(), reason="the original etcd is not installed"
    )


@contextmanager
def serving(*servers: Server) -> Iterator[None]:
    """All of them started at once and serving; killed at the end, however it comes."""
    try:
        for server in servers:
            server.spawn()
        for server in servers:
            assert server.wait_ready(), server.log[-2000:]
        yield
    finally:
        for server in servers:
            server.kill()
