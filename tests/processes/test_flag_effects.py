"""Flags about memory and disk, seen from outside a running member."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

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
        words = f"strace -f -qq -e trace=fsync,fdatasync,msync,pwritev2 -o {trace}".split()
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
