"""The original etcd reads what we write, and we read what it writes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from keyraft.proto import raft_internal_pb2, rpc_pb2
from keyraft.raft import codec
from keyraft.raft.types import ConfChange, Entry, EntryType, HardState
from keyraft.storage.files import OsFiles
from keyraft.storage.wal import (
    WAL,
    WALDamagedError,
    decode_metadata,
    encode_metadata,
    read_wal,
    verify,
)
from tests.support.server import ETCDCTL, ORACLE, Server

pytestmark = pytest.mark.real
FILES = OsFiles()
MEMBER_ID = 0x1234567890ABCDEF


def etcdctl(server: Server, *arguments: str) -> str:
    return subprocess.run(
        [ETCDCTL, f"--endpoints={server.endpoint}", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def put(request_id: int, key: bytes, value: bytes) -> bytes:
    message = raft_internal_pb2.InternalRaftRequest()
    message.header.ID = request_id
    message.put.CopyFrom(rpc_pb2.PutRequest(key=key, value=value))
    return message.SerializeToString()


def member_entry(server: Server) -> Entry:
    context = json.dumps(
        {
            "id": MEMBER_ID,
            "peerURLs": [f"http://127.0.0.1:{server.peer_port}"],
            "name": server.name,
        },
        separators=(",", ":"),
    ).encode()
    change = codec.encode_conf_change(ConfChange(0, MEMBER_ID, context))
    return Entry(1, 1, change, EntryType.CONF_CHANGE)


@pytest.mark.parametrize("segment_bytes", [64_000_000, 20_000])
def test_etcd_starts_on_a_log_that_we_wrote(tmp_path: Path, segment_bytes: int) -> None:
    server = Server(ORACLE, tmp_path / "data", name="m1")
    wal_dir = tmp_path / "data" / "member" / "wal"
    wal_dir.parent.mkdir(parents=True)
    (tmp_path / "data" / "member" / "snap").mkdir()
    wal = WAL.create(
        FILES, str(wal_dir), encode_metadata(MEMBER_ID, 0xABC), segment_bytes=segment_bytes
    )
    wal.append([member_entry(server)], HardState(1, MEMBER_ID, 1))
    for index in range(2, 302):
        data = put(index, b"key-%03d" % index, b"v" * (index * 7 % 900))
        wal.append([Entry(1, index, data)], HardState(1, MEMBER_ID, index))
    wal.append([Entry(1, 302, put(302, b"last", b"one"))], HardState(1, MEMBER_ID, 302))
    wal.close()
    server.start()
    try:
        assert etcdctl(server, "get", "last", "--print-value-only") == "one\n"
        assert etcdctl(server, "get", "key-", "--prefix", "--keys-only").split() == [
            f"key-{index:03d}" for index in range(2, 302)
        ]
    finally:
        server.stop()
    assert read_wal(FILES, str(wal_dir)).last_index > 302


def test_a_log_of_etcd_is_read_and_continued(tmp_path: Path) -> None:
    server = Server(ORACLE, tmp_path / "data").start()
    wal_dir = str(tmp_path / "data" / "member" / "wal")
    try:
        for number in range(20):
            etcdctl(server, "put", f"key-{number}", "value" * number)
    finally:
        server.kill()
    wal, replay = WAL.open(FILES, wal_dir)
    member_id, cluster_id = decode_metadata(replay.metadata)
    assert f'"local-member-id":"{member_id:x}"' in server.log
    assert f'"cluster-id":"{cluster_id:x}"' in server.log
    values = [entry.data for entry in replay.entries if b"key-" in entry.data]
    assert len(values) == 20
    last = replay.entries[-1]
    data = put(99, b"from us", b"hello")
    entry = Entry(last.term, last.index + 1, data)
    wal.append([entry], HardState(last.term, replay.state.vote, entry.index))
    wal.close()
    assert verify(FILES, wal_dir).commit == entry.index
    server.start()
    try:
        assert etcdctl(server, "get", "from us", "--print-value-only") == "hello\n"
    finally:
        server.stop()


def test_both_repair_the_same_torn_tail(tmp_path: Path) -> None:
    server = Server(ORACLE, tmp_path / "data", name="m1")
    wal_dir = tmp_path / "data" / "member" / "wal"
    wal_dir.parent.mkdir(parents=True)
    (tmp_path / "data" / "member" / "snap").mkdir()
    wal = WAL.create(FILES, str(wal_dir), encode_metadata(MEMBER_ID, 0xABC))
    wal.append([member_entry(server)], HardState(1, MEMBER_ID, 1))
    wal.append([Entry(1, 2, put(2, b"whole", b"yes"))], HardState(1, MEMBER_ID, 2))
    batch = wal.encode([Entry(1, 3, put(3, b"torn", b"x" * 5000))], None, True)
    assert batch is not None
    wal.write([batch])
    wal.close()
    segment = next(wal_dir.iterdir())
    content = bytearray(segment.read_bytes())
    content[batch.offset + 2048 - batch.offset % 512 : batch.offset + 6000] = bytes(
        6000 - 2048 + batch.offset % 512
    )
    segment.write_bytes(content)
    replay = read_wal(FILES, str(wal_dir))
    assert [entry.index for entry in replay.entries] == [1, 2]
    server.start()
    try:
        assert etcdctl(server, "get", "whole", "--print-value-only") == "yes\n"
        assert etcdctl(server, "get", "torn") == ""
    finally:
        server.stop()
    assert len(list(wal_dir.glob("*.broken"))) == 1
    read_wal(FILES, str(wal_dir))


def test_both_refuse_a_flipped_bit(tmp_path: Path) -> None:
    server = Server(ORACLE, tmp_path / "data").start()
    try:
        for number in range(5):
            etcdctl(server, "put", f"key-{number}", "value")
    finally:
        server.stop()
    wal_dir = tmp_path / "data" / "member" / "wal"
    segment = next(path for path in wal_dir.iterdir() if path.suffix == ".wal")
    content = bytearray(segment.read_bytes())
    content[content.index(b"key-3")] ^= 1
    segment.write_bytes(content)
    with pytest.raises(WALDamagedError, match="crc mismatch"):
        WAL.open(FILES, str(wal_dir))
    server.spawn()
    assert server.wait() != 0
    assert "crc mismatch" in server.log
