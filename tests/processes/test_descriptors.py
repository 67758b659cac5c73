"""Idle connections take the descriptors that are left to them, and no others."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import OURS, Server, etcdctl, needs_oracle

pytestmark = [pytest.mark.real, needs_oracle()]

LIMIT = 200
PLACES = LIMIT - 150
PEER_PLACES = 64


@contextlib.contextmanager
def idle(port: int, count: int, open_most: int) -> Iterator[list[socket.socket]]:
    """Connections that say nothing, once all but `open_most` of them have been closed again."""
    with contextlib.ExitStack() as stack:
        opened: list[socket.socket] = []
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port))
            stack.enter_context(connection)
            opened.append(connection)
        closed: set[socket.socket] = set()
        while len(closed) < count - open_most:
            readable, _, _ = select.select([c for c in opened if c not in closed], [], [], 20)
            assert readable, f"{count - len(closed)} connections stay open"
            for connection in readable:
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
                closed.add(connection)
        yield [connection for connection in opened if connection not in closed]


def test_a_member_with_more_idle_clients_than_descriptors_goes_on(tmp_path: Path) -> None:
    server = Server(
        OURS,
        tmp_path / "data",
        flags=("--snapshot-count=5",),  # files are opened all the time
        prefix=("prlimit", f"--nofile={LIMIT}:{LIMIT}"),
    )
    server.start()
    try:
        with (
            idle(server.peer_port, PEER_PLACES + 20, PEER_PLACES),
            idle(server.client_port, PLACES + 200, PLACES) as clients,
        ):
            for connection in clients[:5]:
                connection.close()
            for i in range(30):
                done = etcdctl(server.endpoint, "put", f"k{i}", "v")
                assert done.returncode == 0, done.stderr
            saved = etcdctl(server.endpoint, "snapshot", "save", str(tmp_path / "saved"))
            assert saved.returncode == 0, saved.stderr
        assert server.log.count("refused connections") == 2  # once for each port
        assert server.stop() in (0, -15)
    finally:
        server.kill()


def test_too_few_descriptors_are_said_before_anything_is_written(tmp_path: Path) -> None:
    server = Server(OURS, tmp_path / "data", prefix=("prlimit", "--nofile=150:150"))
    server.spawn()
    assert server.wait() == 1
    assert "file descriptor limit of etcd process is too low; please set higher" in server.log
    assert not (tmp_path / "data" / "member" / "wal").exists()


def test_the_soft_limit_is_lifted(tmp_path: Path) -> None:
    server = Server(OURS, tmp_path / "data", prefix=("prlimit", "--nofile=64:400"))
    server.start()
    try:
        with idle(server.client_port, 300, 250):
            assert server.process is not None and server.process.poll() is None
    finally:
        server.kill()
