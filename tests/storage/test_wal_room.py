"""The log on a full disk: nothing is lost, and what waits is written once there is room."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from keyraft.raft.types import Entry, HardState
from keyraft.storage.files import OsFile, OsFiles
from keyraft.storage.wal import WAL, WALFullError, encode_metadata, read_wal
from keyraft.storage.wal.segments import segment_name

FILES = OsFiles()
METADATA_BYTES = encode_metadata(1, 2)


class FullFile(OsFile):
    """Room for `room` more bytes."""

    room = 0

    def pwrite(self, data: bytes, offset: int, durable: bool = False) -> None:
        if len(data) > FullFile.room:
            super().pwrite(data[: FullFile.room], offset, durable)
            FullFile.room = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        FullFile.room -= len(data)
        super().pwrite(data, offset, durable)


class FullFiles(OsFiles):
    def open(self, path: str, *, write: bool = False, create: bool = False) -> OsFile:
        plain = super().open(path, write=write, create=create)
        return FullFile(plain.fileno(), path)


def test_a_full_disk_ends_no_log_and_what_waits_is_written_once_there_is_room(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "wal")
    FullFile.room = 1 << 20
    wal = WAL.create(FullFiles(), path, METADATA_BYTES, segment_bytes=1 << 16)
    FullFile.room = 1000
    batches = []
    for index in range(1, 20):
        batch = wal.encode([Entry(1, index, b"x" * 200)], HardState(1, 1, index - 1), True)
        assert batch is not None
        batches.append(batch)
    while batches:
        for room in (0, 100):  # nothing of it, or a part
            FullFile.room = room
            with pytest.raises(WALFullError, match="No space left on device") as refusal:
                wal.write(batches[:2])
            assert refusal.value.written == 0
            assert wal.behind
        FullFile.room = 1 << 20
        wal.write(batches[:2])
        assert not wal.behind
        del batches[:2]
    wal.close()
    again, replay = WAL.open(FILES, path, segment_bytes=1 << 16)
    again.close()
    assert [entry.index for entry in replay.entries] == list(range(1, 20))
    assert replay.repaired is None


def test_a_member_that_dies_on_a_full_disk_starts_again_without_room_for_a_copy(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "wal")
    FullFile.room = 1 << 20
    wal = WAL.create(FullFiles(), path, METADATA_BYTES, segment_bytes=1 << 16)
    wal.append([Entry(1, 1, b"x")], HardState(1, 1, 0))
    torn = wal.encode([Entry(1, 2, b"\xff" * 2000)], None, True)
    assert torn is not None
    name = Path(path) / segment_name(0, 0)
    with name.open("r+b") as file:
        file.seek(torn.offset)
        file.write(torn.data[:700])
    wal.close()
    FullFile.room = 0
    again, replay = WAL.open(FullFiles(), path, segment_bytes=1 << 16)
    assert [entry.index for entry in replay.entries] == [1]
    assert replay.repaired == ""
    FullFile.room = 1 << 20
    again.append([Entry(1, 2, b"y")])
    again.close()
    assert [entry.data for entry in read_wal(FILES, path).entries] == [b"x", b"y"]
    assert os.listdir(path) == [segment_name(0, 0)]


def test_what_was_not_synced_before_a_refused_write_is_written_again(tmp_path: Path) -> None:
    path = str(tmp_path / "wal")
    FullFile.room = 1 << 20
    wal = WAL.create(FullFiles(), path, METADATA_BYTES, segment_bytes=1 << 16)
    wal.append([Entry(1, 1, b"x")], HardState(1, 1, 0))
    unsynced = wal.encode([Entry(1, 2, b"y" * 100)], None, False)
    synced = wal.encode([Entry(1, 3, b"z" * 100)], None, True)
    assert unsynced is not None
    assert synced is not None
    assert not unsynced.sync
    wal.write([unsynced])
    FullFile.room = 10
    with pytest.raises(WALFullError):
        wal.write([synced])
    # The sync that failed has lost it, as some file systems do.
    name = Path(path) / segment_name(0, 0)
    content = bytearray(name.read_bytes())
    content[unsynced.offset : synced.offset] = bytes(len(unsynced.data))
    name.write_bytes(content)
    FullFile.room = 1 << 20
    wal.write([synced])
    wal.close()
    assert [entry.index for entry in read_wal(FILES, path).entries] == [1, 2, 3]


class NoRoomFiles(OsFiles):
    """Room for no further segment while `full`."""

    full = False

    def open(self, path: str, *, write: bool = False, create: bool = False) -> OsFile:
        plain = super().open(path, write=write, create=create)
        return NoRoom(plain.fileno(), path) if path.endswith(".tmp") else plain


class NoRoom(OsFile):
    def allocate(self, size: int) -> None:
        if NoRoomFiles.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().allocate(size)


def test_a_full_disk_at_the_cut(tmp_path: Path) -> None:
    path = str(tmp_path / "wal")
    NoRoomFiles.full = False
    wal = WAL.create(NoRoomFiles(), path, METADATA_BYTES, segment_bytes=1024)
    NoRoomFiles.full = True
    batches = []
    for index in range(1, 7):
        batch = wal.encode([Entry(1, index, b"x" * 700)], None, True)
        assert batch is not None
        batches.append(batch)
    with pytest.raises(WALFullError) as refusal:
        wal.write(batches)
    assert refusal.value.written == 0
    assert len(read_wal(FILES, path).entries) >= 1
    NoRoomFiles.full = False
    wal.write(batches)
    wal.close()
    assert [entry.index for entry in read_wal(FILES, path).entries] == list(range(1, 7))
    assert len([name for name in os.listdir(path) if name.endswith(".wal")]) == 4


def test_room_for_the_next_segment_is_reserved_ahead(tmp_path: Path) -> None:
    path = str(tmp_path / "wal")
    NoRoomFiles.full = False
    wal = WAL.create(NoRoomFiles(), path, METADATA_BYTES, segment_bytes=4096)
    assert not wal.wants_room
    assert 3000 < wal.room_bytes < 4096
    wal.append([Entry(1, 1, b"x" * 2000)])
    assert wal.wants_room
    NoRoomFiles.full = True
    with pytest.raises(OSError, match="No space"):
        wal.reserve()
    assert wal.wants_room
    NoRoomFiles.full = False
    wal.reserve()
    assert not wal.wants_room
    assert wal.room_bytes > 4096
    NoRoomFiles.full = True
    wal.append([Entry(1, 2, b"x" * 3000)])  # cut: in the spare one
    assert wal.room_bytes < 4096
    wal.append([Entry(1, 3, b"x")])
    wal.close()
    assert [entry.index for entry in read_wal(FILES, path).entries] == [1, 2, 3]
    assert not [name for name in os.listdir(path) if name.endswith(".tmp")]


def test_a_start_gives_no_room_back_and_wipes_what_a_torn_write_left(tmp_path: Path) -> None:
    path = str(tmp_path / "wal")
    wal = WAL.create(FILES, path, METADATA_BYTES, segment_bytes=1 << 22)
    wal.append([Entry(1, 1, b"x")])
    end = wal.encode([], HardState(1, 1, 0), True)
    assert end is not None
    wal.close()
    name = Path(path) / segment_name(0, 0)
    with name.open("r+b") as file:
        file.seek(1 << 21)
        file.write(b"left")
    before = name.stat()
    again, _ = WAL.open(FILES, path, segment_bytes=1 << 22)
    assert name.read_bytes()[1 << 20 :] == bytes((1 << 22) - (1 << 20))
    assert name.stat().st_blocks >= before.st_blocks
    again.close()
