"""The write-ahead log against a list of records, and against bytes that etcd 3.5.1 wrote."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.raft.types import ConfState, Entry, HardState
from keyraft.storage.files import File, OsFile, OsFiles
from keyraft.storage.wal import (
    WAL,
    SnapshotMark,
    WALDamagedError,
    WALError,
    WALLockedError,
    WALNotFoundError,
    decode_metadata,
    encode_metadata,
    newest_snapshot,
    purge_segments,
    read_wal,
    valid_snapshots,
    verify,
    wal_exists,
)
from keyraft.storage.wal.decode import WALDecoder
from keyraft.storage.wal.encode import frame
from keyraft.storage.wal.record import (
    CRC,
    ENTRY,
    METADATA,
    SNAPSHOT,
    STATE,
    encode_snapshot_mark,
)
from keyraft.storage.wal.segments import segment_name
from tests.support.examples import examples

FILES = OsFiles()
METADATA_BYTES = encode_metadata(0xBDAE9BBC11DD390D, 7)
GOLDEN = Path(__file__).parent / "data" / "etcd-3.5.1.wal.hex"


def golden() -> bytes:
    return bytes.fromhex(GOLDEN.read_text())


def write_segment(path: Path, content: bytes, size: int = 8192) -> str:
    path.mkdir(exist_ok=True)
    (path / segment_name(0, 0)).write_bytes(content.ljust(size, b"\0"))
    return str(path)


def sample(path: Path, count: int = 6, segment_bytes: int = 4096) -> str:
    """A log of `count` entries whose data has no zero byte."""
    wal = WAL.create(FILES, str(path), METADATA_BYTES, segment_bytes=segment_bytes)
    for index in range(1, count + 1):
        wal.append([Entry(4, index, b"value-%d" % index * index)], HardState(4, 1 << 60, index))
    wal.close()
    return str(path)


def records(path: str) -> list[tuple[int, int]]:
    """Offset behind each record, and its type, of the first segment."""
    decoder = WALDecoder([FILES.open(path)])
    return [(decoder.offset, kind) for kind, _ in decoder]


# --- the format ------------------------------------------------------------------------------


def test_bytes_written_by_etcd_are_read(tmp_path: Path) -> None:
    replay = read_wal(FILES, write_segment(tmp_path / "wal", golden()))
    member_id, cluster_id = decode_metadata(replay.metadata)
    assert (member_id, cluster_id) == (0xBDAE9BBC11DD390D, 0xD1CFAF999EB97A2A)
    assert [(entry.index, entry.term, entry.type) for entry in replay.entries] == [
        (1, 1, 1),
        (2, 2, 0),
        (3, 2, 0),
        (4, 2, 0),
        (5, 2, 0),
        (6, 2, 0),
        (7, 2, 0),
    ]
    assert replay.entries[1].data == b""
    assert b"\x0a\x02k3\x12\x02v3" in replay.entries[6].data
    assert replay.state == HardState(2, 0xBDAE9BBC11DD390D, 7)
    assert replay.last_index == 7


def test_head_is_byte_for_byte_that_of_etcd(tmp_path: Path) -> None:
    replay = read_wal(FILES, write_segment(tmp_path / "wal", golden()))
    WAL.create(FILES, str(tmp_path / "ours"), replay.metadata).close()
    ours = (tmp_path / "ours" / segment_name(0, 0)).read_bytes()
    head = golden()[:0x50]
    assert ours[:0x50] == head
    assert not any(ours[0x50:])
    assert len(ours) == 64_000_000


def test_every_record_of_etcd_is_framed_the_same_way() -> None:
    """Framing its data with its crc gives its bytes again."""
    content = golden()
    from keyraft.storage.wal.record import LENGTH_MASK, decode_record, frame_length

    offset = 0
    kinds = []
    while offset < len(content):
        (length,) = frame_length.unpack_from(content, offset)
        size = length & LENGTH_MASK
        end = offset + 8 + size + (-size % 8)
        kind, crc, data = decode_record(content[offset + 8 : offset + 8 + size])
        assert frame(kind, crc, None if kind == CRC else data) == content[offset:end]
        kinds.append(kind)
        offset = end
    assert kinds[:5] == [CRC, METADATA, SNAPSHOT, ENTRY, STATE]


def test_golden_frames_of_our_own() -> None:
    assert frame(CRC, 0, None).hex() == "0400000000000084" + "0804100000000000"
    assert frame(STATE, 0x3930AF43, bytes.fromhex("080110001801")).hex() == (
        "1000000000000000" + "080310c3dec2c9031a06080110001801"
    )
    assert encode_snapshot_mark(SnapshotMark()).hex() == "08001000"
    assert encode_snapshot_mark(SnapshotMark(5, 2, ConfState([1]))).hex() == (
        "080510021a0408012800"
    )


# --- appending and reading back --------------------------------------------------------------

entry_data = st.one_of(
    st.binary(max_size=40), st.integers(0, 20_000).map(bytes), st.binary(min_size=120, max_size=140)
)


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[list[Entry], HardState | None]]:
    """What a member saves: entries that continue the log or overwrite its end."""
    term = draw(st.sampled_from([1, 127, 128, 1 << 40]))
    last = base = draw(st.sampled_from([0, 100, 126, (1 << 28) - 3, (1 << 63)]))
    out: list[tuple[list[Entry], HardState | None]] = []
    saved_term = 0
    state: HardState | None
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.booleans()):
            last = draw(st.integers(base, last)) if last - base < 1000 else last
            term += 1
        entries = [
            Entry(term, last + 1 + position, data, draw(st.sampled_from([0, 0, 1, 2])) * bool(data))
            for position, data in enumerate(draw(st.lists(entry_data, max_size=12)))
        ]
        last += len(entries)
        state = HardState(term, draw(st.sampled_from([0, 3])), base)
        if term == saved_term and draw(st.booleans()):
            state = None
        saved_term = term
        out.append((entries, state))
    return out


@examples(60)
@given(saved=batches(), segment_bytes=st.sampled_from([1024, 9000, 1 << 20]), again=st.booleans())
def test_what_was_appended_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    saved: list[tuple[list[Entry], HardState | None]],
    segment_bytes: int,
    again: bool,
) -> None:
    path = str(tmp_path_factory.mktemp("wal") / "wal")
    wal = WAL.create(FILES, path, METADATA_BYTES, segment_bytes=segment_bytes)
    model: list[Entry] = []
    state = HardState()
    base = next((entries[0].index - 1 for entries, _ in saved if entries), 0)
    mark = SnapshotMark()
    if base:
        mark = SnapshotMark(base, 1, ConfState([3]))
        wal.save_snapshot(mark)
    for entries, hard_state in saved:
        wal.append(entries, hard_state, must_sync=bool(entries))
        for entry in entries:
            del model[entry.index - base - 1 :]
            model.append(entry)
        state = hard_state or state
        wal.check()
        if again:
            wal.close()
            wal, replay = WAL.open(FILES, path, mark, segment_bytes=segment_bytes)
            assert replay.entries == model
    wal.close()
    wal, replay = WAL.open(FILES, path, mark, segment_bytes=segment_bytes)
    assert replay.entries == model
    assert replay.state == state
    assert replay.metadata == METADATA_BYTES
    assert replay.repaired is None
    wal.close()
    shutil.rmtree(path)


def test_commit_alone_costs_no_write(tmp_path: Path) -> None:
    wal = WAL.create(FILES, str(tmp_path / "wal"), METADATA_BYTES)
    wal.append([Entry(1, 1, b"a")], HardState(1, 1, 0))
    assert wal.encode([], HardState(1, 1, 1), False) is None
    batch = wal.encode([Entry(1, 2, b"b")], None, True)
    assert batch is not None
    wal.write([batch])
    assert wal.encode([], HardState(1, 1, 2), False) is None
    wal.close()
    assert read_wal(FILES, str(tmp_path / "wal")).state == HardState(1, 1, 2)


def test_held_back_records_are_bounded(tmp_path: Path) -> None:
    wal = WAL.create(FILES, str(tmp_path / "wal"), METADATA_BYTES)
    batch = None
    for commit in range(1, 10_000):
        batch = wal.encode([], HardState(1, 1, commit), False)
        if batch is not None:
            break
    assert batch is not None
    assert not batch.sync
    assert len(batch.data) < 70_000
    wal.close()


def test_several_batches_are_one_write(tmp_path: Path) -> None:
    wal = WAL.create(FILES, str(tmp_path / "wal"), METADATA_BYTES, segment_bytes=3000)
    made = [wal.encode([Entry(1, index, bytes(500))], None, True) for index in range(1, 20)]
    wal.write([batch for batch in made if batch is not None])
    wal.close()
    assert len(read_wal(FILES, str(tmp_path / "wal")).entries) == 19
    assert len(os.listdir(tmp_path / "wal")) > 2


def test_creation_leaves_nothing_half_made(tmp_path: Path) -> None:
    (tmp_path / "wal.tmp").mkdir()
    (tmp_path / "wal.tmp" / segment_name(0, 0)).write_bytes(b"half")
    WAL.create(FILES, str(tmp_path / "wal"), METADATA_BYTES).close()
    assert os.listdir(tmp_path) == ["wal"]
    with pytest.raises(WALError, match="holds a log already"):
        WAL.create(FILES, str(tmp_path / "wal"), METADATA_BYTES)


def test_modes_are_private(tmp_path: Path) -> None:
    WAL.create(FILES, str(tmp_path / "wal"), METADATA_BYTES).close()
    assert (tmp_path / "wal").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "wal" / segment_name(0, 0)).stat().st_mode & 0o777 == 0o600


# --- crashes and damage ----------------------------------------------------------------------


def test_cut_off_anywhere_it_is_repaired_to_the_last_whole_record(tmp_path: Path) -> None:
    path = sample(tmp_path / "wal")
    name = Path(path) / segment_name(0, 0)
    whole = name.read_bytes()
    ends = records(str(name))
    entries = read_wal(FILES, path).entries
    first_entry = ends[1][0]
    for cut in range(first_entry, ends[-1][0]):
        name.write_bytes(whole[:cut])
        wal, replay = WAL.open(FILES, path, segment_bytes=4096)
        wal.close()
        kept = sum(1 for end, kind in ends if kind == ENTRY and end <= cut)
        assert replay.entries == entries[:kept], cut
        on_boundary = any(end == cut for end, _ in ends)
        assert (replay.repaired is None) == on_boundary, cut
        if replay.repaired is not None:
            assert Path(replay.repaired).read_bytes() == whole[:cut]
            os.unlink(replay.repaired)


def test_missing_sectors_are_repaired_and_missing_acknowledged_ones_are_not_invented(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "wal")
    wal = WAL.create(FILES, path, METADATA_BYTES, segment_bytes=16384)
    wal.append([Entry(1, 1, b"\xff" * 1000)])
    start = records(os.path.join(path, segment_name(0, 0)))[-1][0]
    wal.append([Entry(1, index, b"\xee" * 700) for index in range(2, 6)])
    wal.close()
    name = Path(path) / segment_name(0, 0)
    whole = name.read_bytes()
    ends = records(str(name))
    sectors = range(start // 512 + 1, (ends[-1][0] + 511) // 512)
    for sector in sectors:
        name.write_bytes(whole[: sector * 512] + bytes(512) + whole[(sector + 1) * 512 :])
        wal, replay = WAL.open(FILES, path, segment_bytes=16384)
        kept = sum(1 for end, kind in ends if kind == ENTRY and end <= sector * 512)
        assert len(replay.entries) == kept
        wal.append([Entry(2, kept + 1, b"new")])
        wal.close()
        assert read_wal(FILES, path).entries[-1] == Entry(2, kept + 1, b"new")


def test_a_flipped_bit_is_refused_or_harmless(tmp_path: Path) -> None:
    """Never fewer entries without a word, wherever the bit."""
    path = sample(tmp_path / "wal")
    name = Path(path) / segment_name(0, 0)
    whole = name.read_bytes()
    original = read_wal(FILES, path)
    end = records(str(name))[-1][0]
    refused = 0
    for position in range(end):
        for bit in (0, 3, 6, 7):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            name.write_bytes(damaged)
            try:
                replay = read_wal(FILES, path)
            except WALDamagedError:
                refused += 1
                continue
            assert (replay.entries, replay.state) == (original.entries, original.state), position
    assert refused > 3 * end


def test_damage_in_an_earlier_segment_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    path = sample(tmp_path / "wal", count=40, segment_bytes=1024)
    names = sorted(os.listdir(path))
    assert len(names) > 3
    first = Path(path) / names[0]
    whole = first.read_bytes()
    for damaged in (whole[:-8], whole[:-1], whole[: len(whole) // 2], b"", whole[:-20] + bytes(20)):
        first.write_bytes(damaged)
        with pytest.raises(WALDamagedError, match=r"wal: .*in file '.*0000\.wal'"):
            WAL.open(FILES, path)
        assert first.read_bytes() == damaged
        assert sorted(os.listdir(path)) == names


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    path = sample(tmp_path / "wal", count=40, segment_bytes=1024)
    os.unlink(os.path.join(path, sorted(os.listdir(path))[1]))
    with pytest.raises(WALDamagedError, match="do not increase continuously"):
        WAL.open(FILES, path)


def test_an_emptied_last_segment_is_refused(tmp_path: Path) -> None:
    path = sample(tmp_path / "wal", count=40, segment_bytes=1024)
    last = Path(path) / max(os.listdir(path))
    last.write_bytes(b"")
    with pytest.raises(WALDamagedError, match="does not begin with a checksum"):
        WAL.open(FILES, path)


def test_foreign_bytes_are_refused(tmp_path: Path) -> None:
    for content in (b"hello world, this is no log at all", bytes(range(256)) * 40, bytes(4096)):
        path = write_segment(tmp_path / "wal", content)
        with pytest.raises(WALDamagedError):
            WAL.open(FILES, path)


@given(content=st.binary(max_size=600), keep=st.integers(0, 200))
def test_hostile_bytes_give_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, keep: int
) -> None:
    path = write_segment(tmp_path_factory.mktemp("wal") / "wal", golden()[:keep] + content)
    try:
        wal, _ = WAL.open(FILES, path, segment_bytes=4096)
    except WALError:
        pass
    else:
        wal.close()
    shutil.rmtree(path)


def test_sound_records_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    def segment(*parts: tuple[int, bytes]) -> str:
        from crc32c import crc32c

        crc = 0
        out = frame(CRC, 0, None)
        for kind, data in parts:
            crc = crc32c(data, crc)
            out += frame(kind, crc, data)
        return write_segment(tmp_path / "wal", out)

    meta = (METADATA, METADATA_BYTES)
    snapshot = (SNAPSHOT, b"\x08\x00\x10\x00")
    cases = {
        "conflicting metadata": (meta, snapshot, (METADATA, b"\x08\x01")),
        "entry 3 follows entry 0": (meta, snapshot, (ENTRY, b"\x10\x01\x18\x03")),
        "unexpected block type 9": (meta, snapshot, (9, b"x")),
        "no metadata": (snapshot,),
        "varint": (meta, snapshot, (ENTRY, b"\x18\xff")),
        "wal: ": (meta, snapshot, (STATE, b"\xff")),
    }
    for text, parts in cases.items():
        with pytest.raises(WALDamagedError, match=text):
            read_wal(FILES, segment(*parts))


# --- snapshots, locks, purging ---------------------------------------------------------------


def test_snapshot_marks(tmp_path: Path) -> None:
    path = str(tmp_path / "wal")
    wal = WAL.create(FILES, path, METADATA_BYTES, segment_bytes=2048)
    conf_state = ConfState([1, 2], [3])
    for index in range(1, 41):
        wal.append([Entry(1, index, b"x" * 100)], HardState(1, 1, index))
        if index % 10 == 0:
            wal.save_snapshot(SnapshotMark(index, 1, conf_state))
    wal.save_snapshot(SnapshotMark(45, 1, conf_state))  # ahead of the commit index
    wal.append([Entry(1, 46, b"behind a received snapshot")], None)
    wal.close()
    marks = valid_snapshots(FILES, path)
    assert [mark.index for mark in marks] == [0, 10, 20, 30, 40]
    assert marks[1].conf_state == conf_state
    replay = read_wal(FILES, path, SnapshotMark(45, 1, conf_state))
    assert [entry.index for entry in replay.entries] == [46]
    assert verify(FILES, path, SnapshotMark(40, 1)) == HardState(1, 1, 40)
    with pytest.raises(WALDamagedError, match="snapshot mismatch"):
        verify(FILES, path, SnapshotMark(30, 2))
    with pytest.raises(WALNotFoundError, match="snapshot not found"):
        verify(FILES, path, SnapshotMark(33, 1))


def test_released_segments_are_purged_and_the_rest_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "wal")
    wal = WAL.create(FILES, path, METADATA_BYTES, segment_bytes=1024)
    for index in range(1, 61):
        wal.append([Entry(1, index, b"x" * 100)], HardState(1, 1, index))
    mark = SnapshotMark(50, 1, ConfState([1]))
    wal.save_snapshot(mark)
    assert purge_segments(FILES, path, 1) == []
    wal.release_to(50)
    removed = purge_segments(FILES, path, 2)
    assert removed
    left = sorted(os.listdir(path))
    assert int(left[0][17:33], 16) <= 50 <= int(left[1][17:33], 16)
    wal.append([Entry(1, 61, b"y")], None)
    wal.close()
    wal, replay = WAL.open(FILES, path, mark, segment_bytes=1024)
    assert [entry.index for entry in replay.entries] == list(range(51, 62))
    wal.close()
    with pytest.raises(WALNotFoundError, match="matches the snapshot index '0'"):
        WAL.open(FILES, path)


def test_a_log_in_use_cannot_be_opened(tmp_path: Path) -> None:
    path = sample(tmp_path / "wal")
    wal, _ = WAL.open(FILES, path)
    with pytest.raises(WALLockedError, match="is locked by another process"):
        WAL.open(FILES, path)
    wal.close()
    WAL.open(FILES, path)[0].close()


def test_a_directory_without_segments_holds_no_log(tmp_path: Path) -> None:
    assert not wal_exists(FILES, str(tmp_path / "nothing"))
    with pytest.raises(WALNotFoundError):
        WAL.open(FILES, str(tmp_path / "nothing"))
    (tmp_path / "0.tmp").write_bytes(b"")
    assert not wal_exists(FILES, str(tmp_path))
    assert wal_exists(FILES, sample(tmp_path / "wal"))


def test_files_protocol_is_kept() -> None:
    file: File = OsFile(-1, "x")
    assert file.path == "x"


def test_a_snapshot_ends_a_full_segment_and_is_found_from_the_back(tmp_path: Path) -> None:
    path = str(tmp_path / "wal")
    files = OsFiles()
    wal = WAL.create(files, path, b"m")
    conf_state = ConfState([1])
    index = 0
    for round_number in range(3):
        for _ in range(6):
            index += 1
            wal.append([Entry(1, index, b"v" * 1_000_000)], HardState(1, 1, index))
        wal.save_snapshot(SnapshotMark(index - round_number, 1, conf_state))
    wal.close()
    assert len([name for name in files.list(path) if name.endswith(".wal")]) == 4
    assert newest_snapshot(files, path) == SnapshotMark(16, 1, conf_state)
    assert newest_snapshot(files, path, 15) == SnapshotMark(11, 1, conf_state)
    assert newest_snapshot(files, path, 5) == SnapshotMark()
    assert valid_snapshots(files, path)[1:] == [
        SnapshotMark(at, 1, conf_state) for at in (6, 11, 16)
    ]
    reopened, replay = WAL.open(files, path, SnapshotMark(16, 1, conf_state))
    assert [entry.index for entry in replay.entries] == [17, 18]
    reopened.close()
