"""The original tools take what the bulk writer writes, and bbolt goes on writing to it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from keyraft.storage.bolt import BoltFile, check, write_file
from tests.support.server import ORACLE, ORACLE_DIRECTORY, Server, etcdctl

pytestmark = pytest.mark.real
GOLDEN = Path(__file__).parent / "data" / "etcd-3.5.1.snapshot.db"
KEYS = 20_000


def etcdutl(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [str(ORACLE_DIRECTORY / "etcdutl"), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def key_value(number: int) -> tuple[bytes, bytes]:
    """Revision 100 + number puts key-NUMBER."""
    main = 100 + number
    revision = main.to_bytes(8, "big") + b"_" + bytes(8)
    key = b"key-%06d" % number
    value = b"x" * (number * 37 % 800)
    varint = bytes((main & 127 | 128, main >> 7 & 127 | 128, main >> 14))
    size = bytes((len(value) & 127 | 128, len(value) >> 7))
    return revision, (
        b"\x0a\x0a" + key + b"\x10" + varint + b"\x18" + varint + b"\x20\x01\x2a" + size + value
    )


def big_snapshot(path: Path) -> Path:
    """The golden snapshot with 20,000 keys more, written by us, with its digest."""
    with BoltFile(GOLDEN) as db:
        model = {name: dict(bucket.items()) for name, bucket in db.buckets()}
    model[b"key"].update(key_value(number) for number in range(KEYS))
    with path.open("w+b") as file:
        write_file(file, [(name, sorted(items.items())) for name, items in sorted(model.items())])
        file.seek(0)
        digest = hashlib.sha256(file.read()).digest()
        file.write(digest)
    return path


def test_the_original_tool_accepts_what_we_write(tmp_path: Path) -> None:
    path = big_snapshot(tmp_path / "big.db")
    status = json.loads(etcdutl("snapshot", "status", str(path), "-w", "json", cwd=tmp_path))
    assert status["revision"] == 100 + KEYS - 1
    assert status["totalKey"] == 20 + KEYS
    assert status["totalSize"] == path.stat().st_size - 32


def test_the_original_restores_and_serves_what_we_write(tmp_path: Path) -> None:
    path = big_snapshot(tmp_path / "big.db")
    server = Server(ORACLE, tmp_path / "data", name="default")
    peer = f"http://127.0.0.1:{server.peer_port}"
    etcdutl(
        "snapshot",
        "restore",
        str(path),
        f"--data-dir={server.data_dir}",
        f"--initial-cluster=default={peer}",
        f"--initial-advertise-peer-urls={peer}",
        cwd=tmp_path,
    )
    server.start()
    try:
        counted = etcdctl(server.endpoint, "get", "key-", "--prefix", "--keys-only").stdout
        assert len(counted.split()) == KEYS
        for number in range(0, KEYS, 997):
            assert etcdctl(server.endpoint, "put", f"key-{number:06d}", "new").returncode == 0
        assert etcdctl(server.endpoint, "del", "key-0000", "--prefix").stdout == b"100\n"
        assert etcdctl(server.endpoint, "compaction", "20000").returncode == 0
        assert etcdctl(server.endpoint, "defrag").returncode == 0
    finally:
        server.stop()
    with BoltFile(server.data_dir / "member" / "snap" / "db") as db:
        assert check(db) == []
