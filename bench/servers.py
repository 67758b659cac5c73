"""The two servers under measurement: fresh data, same flags, watched from outside."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import grpc

from keyraft.proto import rpc_pb2
from tests.support import programs

ROOT: Final = programs.ROOT
SOURCE: Final = programs.SOURCE
ORIGINAL: Final = programs.ORACLE
OURS: Final = programs.OURS
START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.002
QUOTA_BYTES: Final = 8 << 30


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def original_name() -> str:
    """Which etcd is measured: "etcd 3.5.1"."""
    said = subprocess.run([*ORIGINAL, "--version"], capture_output=True, text=True, check=True)
    return "etcd " + said.stdout.splitlines()[0].rpartition(" ")[2]


class Server:
    """One member; a context manager that stops it and removes its data."""

    def __init__(
        self,
        label: str,
        command: tuple[str, ...],
        data_root: str | None,
        flags: tuple[str, ...] = (),
    ) -> None:
        self.label = label
        self._flags = flags
        self._command = command
        self._directory = Path(tempfile.mkdtemp(prefix="keyraft-bench-", dir=data_root))
        self.client_port, self.peer_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The data directory, which the member makes unless it is there."""
        return self._directory / "data"

    @property
    def pid(self) -> int | None:
        """The member's process, while it runs."""
        return None if self._process is None else self._process.pid

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    def start(self) -> float:
        """Starts the member; seconds from the start to the first linearizable answer."""
        client, peer = (f"http://127.0.0.1:{p}" for p in (self.client_port, self.peer_port))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}
        environment["PYTHONPATH"] = SOURCE
        with (self._directory / "log").open("ab") as log:
            begin_s = time.perf_counter()
            self._process = subprocess.Popen(
                [
                    *self._command,
                    f"--data-dir={self.data}",
                    f"--listen-client-urls={client}",
                    f"--advertise-client-urls={client}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}",
                    f"--quota-backend-bytes={QUOTA_BYTES}",
                    "--log-level=warn",
                    *self._flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        while True:
            assert self._process.poll() is None, f"{self.label} ended: {self._directory / 'log'}"
            assert time.perf_counter() - begin_s < START_TIMEOUT_S, f"{self.label} does not answer"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.client_port)) == 0:
                    break
            time.sleep(POLL_S)
        with grpc.insecure_channel(self.endpoint) as channel:
            call = channel.unary_unary("/etcdserverpb.KV/Range")
            request = rpc_pb2.RangeRequest(key=b"first").SerializeToString()
            call(request, timeout=START_TIMEOUT_S, wait_for_ready=True)
        return time.perf_counter() - begin_s

    def resident_mb(self) -> float:
        """Resident memory of the member and its children, MiB; shared pages count once each."""
        assert self._process is not None
        total_kb = 0
        for pid in [self._process.pid, *_children(self._process.pid)]:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total_kb += int(line.split()[1])
        return total_kb / 1024

    def cluster_id(self) -> int:
        """The cluster's id, as every answer's header carries it."""
        with grpc.insecure_channel(self.endpoint) as channel:
            answer = channel.unary_unary("/etcdserverpb.Maintenance/Status")(b"")
        return int(rpc_pb2.StatusResponse.FromString(answer).header.cluster_id)

    def cpu_s(self) -> float:
        """Processor time of the member and its children since they began, seconds, to the µs."""
        assert self._process is not None
        total_ns = 0
        for pid in [self._process.pid, *_children(self._process.pid)]:
            for task in Path(f"/proc/{pid}/task").iterdir():
                total_ns += int((task / "schedstat").read_text().split()[0])
        return total_ns / 1e9

    def disk_mb(self) -> float:
        """What the data directory takes on disk, MiB."""
        blocks = sum(path.stat().st_blocks for path in self._directory.rglob("*") if path.is_file())
        return blocks * 512 / (1 << 20)

    def stop(self) -> None:
        """SIGTERM, and waits."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_children(int(child))]
    return found
