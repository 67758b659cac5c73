"""Flags whose effect lies between the configuration and the operating system."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from keyraft.app.data_dir import os_files
from keyraft.app.memory_lock import lock_memory, may_lock
from keyraft.app.peer_port import local_host
from keyraft.app.start_checks import StartError
from keyraft.config.arguments import load
from keyraft.config.config import Config


def config(*arguments: str) -> Config:
    return load([*arguments, "--log-outputs=/dev/null"], {})


@pytest.mark.parametrize("unsafe", [False, True])
def test_unsafe_no_fsync_leaves_the_log_unsynced(
    unsafe: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    written = os.pwritev

    def pwritev(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        synced.extend(["pwritev"] if flags & os.RWF_DSYNC else [])
        return written(fd, buffers, offset, flags)

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append("fdatasync"))
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append("fsync"))
    files = os_files(config(f"--unsafe-no-fsync={str(unsafe).lower()}"))
    file = files.open(str(tmp_path / "log"), create=True)
    file.pwrite(b"entry", 0, durable=True)
    file.fdatasync()
    files.sync_dir(str(tmp_path))
    file.close()
    assert synced == ([] if unsafe else ["pwritev", "fdatasync", "fsync"])
    assert (tmp_path / "log").read_bytes() == b"entry"


@pytest.mark.parametrize(
    ("urls", "chosen"),
    [
        ("http://10.1.2.3:2380", "10.1.2.3"),
        ("http://127.0.0.1:2380,http://10.1.2.3:2380", "10.1.2.3"),
        ("http://[fd00::7]:2380", "fd00::7"),
        ("http://127.0.0.1:2380", ""),
    ],
)
def test_the_local_address_is_the_first_advertised_one_that_is_no_loopback(
    urls: str, chosen: str
) -> None:
    advertised = f"--initial-advertise-peer-urls={urls}"
    cluster = f"--initial-cluster={','.join(f'default={url}' for url in urls.split(','))}"
    gate = "--feature-gates=SetMemberLocalAddr=true"
    assert local_host(config(advertised, cluster, gate)) == chosen
    assert local_host(config(advertised, cluster)) == ""


def test_memory_is_locked_only_where_any_amount_may_be() -> None:
    with_capability = "Name:\tetcd\nCapEff:\t0000000000004000\n"
    without = "Name:\tetcd\nCapEff:\t0000000000000000\n"
    assert may_lock(without, resource.RLIM_INFINITY)
    assert may_lock(with_capability, 65_536)
    assert not may_lock(without, 1 << 40)  # the kernel would refuse memory later on


def test_who_may_not_lock_is_told_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyraft.app.memory_lock.may_lock", lambda status, limit: False)
    with pytest.raises(StartError, match="CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK"):
        lock_memory()
