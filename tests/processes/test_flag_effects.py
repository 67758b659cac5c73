"""Flags about memory and disk, seen from outside a running member."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
from pathlib import Path

import pytest

from tests.grpc.wire import PING, PREFACE, SETTINGS, Peer, settings
from tests.support.ports import free_ports
from tests.support.server import OURS, Server, etcdctl, needs_oracle, serving

pytestmark = pytest.mark.real


def _locked_kb(pid: int) -> int:
    found = re.search(r"^VmLck:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1])


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@needs_oracle()
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nothing_is_synced_with_unsafe_no_fsync(tmp_path: Path) -> None:
    counts: dict[bool, int] = {}
    for unsafe in (False, True):
        trace = tmp_path / f"trace-{unsafe}"
        words = f"strace -D -f -qq -e trace=fsync,fdatasync,msync,pwritev2 -o {trace}".split()
        flags = (f"--unsafe-no-fsync={str(unsafe).lower()}",)
        server = Server(OURS, tmp_path / f"m-{unsafe}", flags=flags, prefix=words)
        with serving(server):
            for number in range(5):
                assert etcdctl(server.endpoint, "put", f"k{number}", "v").returncode == 0
            lines = trace.read_text().splitlines()
        counts[unsafe] = sum("pwritev2" not in line or "RWF_DSYNC" in line for line in lines)
    assert counts[False] >= 5
    assert counts[True] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="locks memory, which takes root")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_memory_is_locked_or_the_member_refuses(tmp_path: Path) -> None:
    server = Server(OURS, tmp_path / "m", flags=("--memory-mlock",))
    with serving(server):
        assert server.process is not None
        (storage,) = _children(server.process.pid)
        assert _locked_kb(server.process.pid) > 10_000
        assert _locked_kb(storage) > 1_000
    words = ["prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set=-ipc_lock"]
    refused = Server(OURS, tmp_path / "r", flags=("--memory-mlock",), prefix=words)
    refused.spawn()
    assert refused.wait() == 1
    assert "the limit is 65536 bytes; it needs CAP_IPC_LOCK" in refused.log


@needs_oracle()
def test_limits_of_requests_and_connections_are_the_flags(tmp_path: Path) -> None:
    flags = (
        "--max-txn-ops=2",
        "--max-request-bytes=2000",
        "--max-concurrent-streams=3",
        "--grpc-keepalive-interval=1s",
        "--grpc-keepalive-timeout=1s",
        "--quota-backend-bytes=-1",
        "--max-learners=2",
    )
    server = Server(OURS, tmp_path / "m", flags=flags)
    with serving(server):
        silent = socket.create_connection(("127.0.0.1", server.client_port), 60.0)
        silent.sendall(PREFACE + settings())
        operations = b"\n" + b"put a b\n" * 3 + b"\n\n"
        done = etcdctl(server.endpoint, "txn", stdin=operations)
        assert b"etcdserver: too many operations in txn request" in done.stderr
        done = etcdctl(server.endpoint, "put", "k", "v" * 2_500)
        assert b"etcdserver: request is too large" in done.stderr
        done = etcdctl(server.endpoint, "endpoint", "status", "-w", "json")
        assert done.returncode == 0
        for port in free_ports(2):
            peer = f"--peer-urls=http://127.0.0.1:{port}"
            done = etcdctl(server.endpoint, "member", "add", f"l{port}", "--learner", peer)
            assert done.returncode == 0, done.stderr
        done = etcdctl(
            server.endpoint, "member", "add", "l3", "--learner", "--peer-urls=http://a:1"
        )
        assert b"too many learner members" in done.stderr
        # A client that says nothing is asked whether it lives, and left when it does not answer.
        peer_frames, kinds = Peer(), list[int]()
        with silent:
            while data := silent.recv(65_536):
                for got in peer_frames.read(data):
                    kinds.append(got.kind)
                    if got.kind == SETTINGS and not got.flags and got.payload:
                        assert struct.pack(">HI", 3, 3) in got.payload  # streams at once
        assert PING in kinds
