"""What the log's writer takes, its reader reads: the same entries, state and place to go on from."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.base.ids import UINT64_MAX
from keyraft.raft import ConfState, Entry, HardState, codec
from keyraft.raft.limits import MEMBERS_MAX
from keyraft.storage.files import OsFiles
from keyraft.storage.wal import WAL, SnapshotMark, WALDamagedError, WALRefusedError, encode_metadata
from keyraft.storage.wal.encode import WALEncoder
from keyraft.storage.wal.record import ENTRY
from keyraft.storage.wal.segments import segment_name
from tests.support.examples import examples

SEGMENT_BYTES = 2_000  # so small that most logs have several
NUMBERS = st.one_of(
    st.integers(0, 8), st.sampled_from([UINT64_MAX - 1, UINT64_MAX, UINT64_MAX + 1, 1 << 70])
)
SMALL = st.integers(0, 8)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Entry], HardState | None]:
    """Entries in a row, mostly; and perhaps a hard state."""
    first, term = draw(st.one_of(SMALL, NUMBERS)), draw(st.one_of(SMALL, NUMBERS))
    entries = []
    for index in range(first, first + draw(st.integers(0, 4))):
        if draw(st.integers(0, 9)) == 0:
            index = draw(NUMBERS)
        if draw(st.integers(0, 4)) == 0:
            term = draw(NUMBERS)
        kind = draw(st.sampled_from([0, 0, 0, 1, 2, 3]))
        entries.append(Entry(term, index, draw(st.sampled_from([b"", b"x", bytes(300)])), kind))
    state = draw(st.one_of(st.none(), st.builds(HardState, NUMBERS, NUMBERS, NUMBERS)))
    return entries, state


MARKS = st.builds(
    SnapshotMark,
    NUMBERS,
    NUMBERS,
    st.builds(ConfState, st.one_of(st.just([1]), st.lists(NUMBERS), st.just([1] * 2_000))),
)
REOPEN = st.just("reopen")


class Model:
    """What a reader must find behind `mark`."""

    def __init__(self) -> None:
        self.mark = SnapshotMark()
        self.entries: list[Entry] = []
        self.state = HardState()

    def add(self, entries: list[Entry], state: HardState | None) -> None:
        if entries:
            self.entries = [e for e in self.entries if e.index < entries[0].index]
            self.entries += [e for e in entries if e.index > self.mark.index]
        if state is not None and not state.is_empty():
            self.state = state

    def snapshot(self, mark: SnapshotMark) -> None:
        if mark.index > self.mark.index:
            self.mark = mark
            self.entries = [e for e in self.entries if e.index > mark.index]


def reopen(path: str, model: Model) -> WAL:
    wal, replay = WAL.open(OsFiles(), path, model.mark, segment_bytes=SEGMENT_BYTES)
    assert replay.repaired is None
    assert replay.entries == model.entries
    assert replay.state == model.state
    return wal


@pytest.mark.slow
@examples(300)
@given(
    work=st.lists(st.one_of(batches(), batches(), MARKS, REOPEN), max_size=12),
    number=st.integers(0, 1 << 60),
)
def test_whatever_is_taken_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, work: list[object], number: int
) -> None:
    path = str(tmp_path_factory.mktemp("wal") / "wal")
    wal = WAL.create(OsFiles(), path, b"metadata", segment_bytes=SEGMENT_BYTES)
    model = Model()
    try:
        for step in work:
            if step == "reopen":
                wal.close()
                wal = reopen(path, model)
            elif isinstance(step, SnapshotMark):
                wal.save_snapshot(step)
                model.snapshot(step)
            else:
                entries, state = cast("tuple[list[Entry], HardState]", step)
                wal.append(entries, state)
                model.add(entries, state)
    except WALRefusedError:
        pass  # nothing of it is in the log
    wal.close()
    reopen(path, model).close()


GOOD = [Entry(2, 1, b"a"), Entry(2, 2, b"b")]


@pytest.mark.parametrize(
    ("entries", "state"),
    [
        ([Entry(2, 4, b"x")], None),  # a gap
        ([Entry(2, 1, b"x")], None),  # the first one is committed
        ([Entry(1, 3, b"x")], None),  # back in term
        ([Entry(2, 3, b"x"), Entry(2, 5, b"y")], None),
        ([Entry(2, 3, b"x"), Entry(1, 4, b"y")], None),
        ([Entry(2, 3, b"", 1)], None),  # a change of the configuration without content
        ([Entry(2, 3, b"x", 7)], None),
        ([Entry(UINT64_MAX + 1, 3, b"x")], None),
        ([], HardState(1, 1, 1)),  # earlier than the last entry
        ([], HardState(0, 0, 1)),
        ([], HardState(UINT64_MAX + 1, 1, 1)),
        ([], HardState(3, UINT64_MAX + 1, 1)),
        ([], HardState(3, 1, UINT64_MAX + 1)),
    ],
)
def test_what_could_not_be_read_again_is_refused(
    tmp_path: Path, entries: list[Entry], state: HardState | None
) -> None:
    path = str(tmp_path / "wal")
    wal = WAL.create(OsFiles(), path, b"metadata")
    wal.append(GOOD, HardState(2, 1, 1))
    with pytest.raises(WALRefusedError, match="wal: refused to write"):
        wal.append(entries, state)
    wal.close()
    again, replay = WAL.open(OsFiles(), path)
    assert replay.entries == GOOD
    assert replay.state == HardState(2, 1, 1)
    again.close()


def test_the_entry_before_counts_wherever_the_log_is_cut_back_to(tmp_path: Path) -> None:
    """An overwritten tail may have had a later term than what takes its place."""
    path = str(tmp_path / "wal")
    wal = WAL.create(OsFiles(), path, b"metadata")
    wal.append([Entry(1, 1), Entry(3, 2), Entry(5, 3)], HardState(5, 1, 1))
    wal.append([Entry(4, 3)], HardState(6, 1, 1))
    wal.close()
    wal, replay = WAL.open(OsFiles(), path)
    assert [entry.term for entry in replay.entries] == [1, 3, 4]
    with pytest.raises(WALRefusedError):
        wal.append([Entry(2, 3)])
    wal.close()


def test_a_configuration_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    wal = WAL.create(OsFiles(), str(tmp_path / "wal"), b"metadata")
    members = ConfState(list(range(1, MEMBERS_MAX + 2)))
    with pytest.raises(WALRefusedError):
        wal.save_snapshot(SnapshotMark(1, 1, members))
    wal.close()


def test_a_log_begins_in_a_directory_that_holds_something_else(tmp_path: Path) -> None:
    """A disk of its own has its `lost+found`."""
    place = tmp_path / "wal"
    (place / "lost+found").mkdir(parents=True)
    wal = WAL.create(OsFiles(), str(place), b"metadata")
    wal.append(GOOD, HardState(2, 1, 1))
    wal.close()
    assert sorted(path.name for path in place.iterdir()) == [
        "0000000000000000-0000000000000000.wal",
        "lost+found",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["wal"], "nothing is left beside it"
    again, replay = WAL.open(OsFiles(), str(place))
    assert replay.entries == GOOD
    again.close()


def test_a_log_begins_where_a_disk_is_mounted(tmp_path: Path) -> None:
    class Mounted(OsFiles):
        def rename(self, old: str, new: str) -> None:
            if new == str(tmp_path / "wal"):
                raise OSError(errno.EBUSY, "Device or resource busy")
            super().rename(old, new)

    (tmp_path / "wal").mkdir()
    wal = WAL.create(Mounted(), str(tmp_path / "wal"), b"metadata")
    wal.append(GOOD)
    wal.close()
    again, replay = WAL.open(OsFiles(), str(tmp_path / "wal"))
    assert replay.entries == GOOD
    again.close()


@pytest.mark.parametrize("bits", [30, 40, 55])
def test_a_length_that_nobody_writes_is_damage_and_not_a_torn_tail(
    tmp_path: Path, bits: int
) -> None:
    """At the end of a short segment: `repair` would cut off what was there."""
    wal = WAL.create(OsFiles(), str(tmp_path / "wal"), encode_metadata(7, 9), segment_bytes=4096)
    wal.append([Entry(1, 1, b"first"), Entry(1, 2, b"acknowledged")], HardState(1, 1, 2))
    wal.close()
    (path,) = (tmp_path / "wal").glob("*.wal")
    content = path.read_bytes().rstrip(b"\0")
    content += bytes(-len(content) % 8)
    path.write_bytes(content + (1 << bits).to_bytes(8, "little") + b"\x09garbage")
    with pytest.raises(WALDamagedError, match="which nobody writes"):
        WAL.open(OsFiles(), str(tmp_path / "wal"))
    assert list((tmp_path / "wal").iterdir()) == [path]


@pytest.mark.parametrize("index", [4, 1 << 31, 1 << 62, UINT64_MAX])
def test_an_entry_far_behind_the_others_is_damage(tmp_path: Path, index: int) -> None:
    """CVE-2020-15112: etcd made a list as long as the index said."""
    encoder = WALEncoder(encode_metadata(7, 9))
    content = encoder.head() + encoder.snapshot(SnapshotMark()).data
    for entry in (Entry(1, 1, b"first"), Entry(1, index, b"far away")):
        content += encoder._record(ENTRY, codec.encode_entry(entry))
    (tmp_path / "wal").mkdir()
    (tmp_path / "wal" / segment_name(0, 0)).write_bytes(content)
    with pytest.raises(WALDamagedError, match=f"entry {index} follows entry 1"):
        WAL.open(OsFiles(), str(tmp_path / "wal"))
