"""Snapshot files: etcd's bytes, and which of several files counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.raft.types import ConfState, Snapshot, SnapshotMeta
from keyraft.storage.files import OsFiles
from keyraft.storage.snap import SnapDir, SnapError, decode_snap, encode_snap, snap_name
from keyraft.storage.wal import SnapshotMark

GOLDEN = Path(__file__).parent / "data" / "0000000000000002-0000000000000012.snap"


def snapshot(index: int, term: int = 1, data: bytes = b"state") -> Snapshot:
    return Snapshot(data, SnapshotMeta(ConfState([1, 2, 3]), index, term))


def test_a_file_of_etcd_is_read_and_written_byte_for_byte() -> None:
    content = GOLDEN.read_bytes()
    decoded = decode_snap(content, GOLDEN.name)
    assert decoded.meta == SnapshotMeta(ConfState([0xA8D2679C17DF77A2]), 0x12, 2)
    assert decoded.data.startswith(b'{"Root":{"Path":"/"')
    assert encode_snap(decoded) == content


def test_golden_bytes_of_our_own() -> None:
    assert encode_snap(Snapshot(b"", SnapshotMeta(ConfState([1]), 2, 3))).hex() == (
        "08eaaaba24" + "120c" + "120a0a0408012800" + "10021803"
    )


def test_the_newest_saved_snapshot_is_loaded(tmp_path: Path) -> None:
    snaps = SnapDir(OsFiles(), str(tmp_path))
    assert snaps.load_newest() is None
    path = snaps.save(snapshot(5))
    assert Path(path).name == "0000000000000001-0000000000000005.snap"
    assert [entry.name for entry in tmp_path.iterdir()] == [Path(path).name]
    snaps.save(snapshot(9, 2))
    assert snaps.load_newest() == snapshot(9, 2)


def test_only_what_the_log_vouches_for_counts(tmp_path: Path) -> None:
    snaps = SnapDir(OsFiles(), str(tmp_path))
    for index in (5, 9, 20):
        snaps.save(snapshot(index))
    marks = [SnapshotMark(), SnapshotMark(5, 1), SnapshotMark(9, 1), SnapshotMark(20, 7)]
    assert snaps.load_newest(marks) == snapshot(9)
    assert snaps.load_newest([]) is None
    assert len(snaps.names()) == 3


def test_a_broken_file_is_set_aside_and_an_older_one_taken(tmp_path: Path) -> None:
    snaps = SnapDir(OsFiles(), str(tmp_path))
    snaps.save(snapshot(5))
    snaps.save(snapshot(9))
    newest = tmp_path / snap_name(1, 9)
    newest.write_bytes(newest.read_bytes()[:-1])
    (tmp_path / snap_name(1, 12)).write_bytes(b"")
    assert snaps.load_newest() == snapshot(5)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        snap_name(1, 5),
        snap_name(1, 9) + ".broken",
        snap_name(1, 12) + ".broken",
    ]


def test_a_renamed_file_is_not_believed(tmp_path: Path) -> None:
    snaps = SnapDir(OsFiles(), str(tmp_path))
    Path(snaps.save(snapshot(5))).rename(tmp_path / snap_name(1, 50))
    with pytest.raises(SnapError, match="another term or index"):
        snaps.load(snap_name(1, 50))


@given(position=st.integers(0, 60), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(position: int, bit: int) -> None:
    content = bytearray(encode_snap(snapshot(5)))
    content[position % len(content)] ^= 1 << bit
    with pytest.raises(SnapError):
        decode_snap(bytes(content), "x")


@given(content=st.binary(max_size=80))
def test_hostile_bytes_give_one_kind_of_error(content: bytes) -> None:
    with pytest.raises(SnapError):
        decode_snap(content, "x")


@given(cut=st.integers(0, 40))
def test_a_cut_file_is_noticed(cut: int) -> None:
    content = encode_snap(snapshot(5))
    with pytest.raises(SnapError):
        decode_snap(content[: cut % len(content)], "x")


def test_purge_keeps_the_newest(tmp_path: Path) -> None:
    snaps = SnapDir(OsFiles(), str(tmp_path))
    for index in range(1, 8):
        snaps.save(snapshot(index))
    assert snaps.purge(5) == [snap_name(1, 1), snap_name(1, 2)]
    assert snaps.purge(5) == []
    assert snaps.names() == [snap_name(1, index) for index in (7, 6, 5, 4, 3)]


def test_leftovers_are_cleaned(tmp_path: Path) -> None:
    snaps = SnapDir(OsFiles(), str(tmp_path))
    snaps.save(snapshot(5))
    kept = {snap_name(1, 5), "db", "0000000000000005.snap.db", snap_name(1, 3) + ".broken"}
    for name in kept - {snap_name(1, 5)}:
        (tmp_path / name).write_bytes(b"x")
    for name in ("tmp123", "db.tmp.9", "0000000000000004.snap.db", snap_name(1, 9) + ".tmp"):
        (tmp_path / name).write_bytes(b"x")
    assert len(snaps.clean(5)) == 4
    assert {entry.name for entry in tmp_path.iterdir()} == kept
    assert Path(snaps.received_path(5)).name == "0000000000000005.snap.db"
