"""A local cluster starts, speaks behind its members' names, and stops as one."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.server import environment

PROGRAM = """
import asyncio, sys
from keyraft.lab.local_cluster import Seat, run_cluster
ports = list(map(int, sys.argv[1:]))
seats = [Seat(f"m{n}", ports[2 * n], ports[2 * n + 1], f"m{n}.etcd") for n in range(3)]
sys.exit(asyncio.run(run_cluster(seats)))
"""


@pytest.mark.real
def test_three_members_serve_and_stop_together(tmp_path: Path) -> None:
    ports = free_ports(6)
    runner = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, ports)],
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
    )
    assert runner.stderr is not None
    ready: set[bytes] = set()
    lines: list[str] = []
    try:
        while len(ready) < 3:
            line = runner.stderr.readline()
            assert line, b"".join(lines).decode()[-4000:]
            lines.append(line)
            if b"ready to serve client requests" in line:
                ready.add(line.split(b" | ")[0])
        assert ready == {b"m0", b"m1", b"m2"}
        runner.send_signal(signal.SIGTERM)
        rest = runner.stderr.read()
        assert runner.wait(30) == 0, rest
    finally:
        if runner.poll() is None:
            runner.kill()
            runner.wait()
        runner.stderr.close()
    assert rest.count(b"ended with code -15") == 3
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
