"""The data directory is taken away under a running member: it goes on, says why not, and ends."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.server import OURS, Server, etcdctl

pytestmark = pytest.mark.real


def put(server: Server, number: int) -> bool:
    return etcdctl(server.endpoint, "put", f"k{number}", "v").returncode == 0


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_member_goes_on_with_what_it_has_open_and_ends_when_told(
    tmp_path: Path, how: str
) -> None:
    server = Server(OURS, tmp_path / "data").start()
    try:
        assert put(server, 1)
        if how == "moved":
            server.data_dir.rename(tmp_path / "aside")
        else:
            shutil.rmtree(server.data_dir)
        assert put(server, 2)
        assert put(server, 3)
        assert server.stop() == -15
        assert "Traceback" not in server.log
        if how == "moved":
            (tmp_path / "aside").rename(server.data_dir)
            server.start()
            got = etcdctl(server.endpoint, "get", "k3", "--print-value-only")
            assert got.stdout == b"v\n"
            assert server.stop() == -15
    finally:
        server.kill()


def test_a_member_that_needs_its_directory_and_has_none_says_so_and_ends(tmp_path: Path) -> None:
    server = Server(OURS, tmp_path / "data", flags=["--snapshot-count=5"]).start()
    try:
        shutil.rmtree(server.data_dir)
        number = 0
        while put(server, number) and number < 20:
            number += 1
        assert server.wait() == 1
        assert '"msg":"failed to save snapshot"' in server.log
        assert "no such file or directory" in server.log
        assert "Traceback" not in server.log
    finally:
        server.kill()
