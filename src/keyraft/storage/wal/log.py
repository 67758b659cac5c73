"""The write-ahead log of one member: created, opened and repaired, appended to, cut, released.

Invariants:

- what `write` was given with `sync` is on the disk when it returns;
- a segment gets its name only once its head is on the disk, so every named segment is sound from
  its first byte;
- after the last record of the last segment there are only zeros: what a torn write left is wiped
  before anything new is written over part of it;
- once a write has failed, every later one fails (WALWriteError): nobody knows what is on the disk.
  Only where there was no room it comes again (`segment_writer`).

`encode` belongs to the loop; `write`, `release_to` and `close` are called one at a time, from
whichever thread the owner likes; `reserve` may run beside them.
"""

from __future__ import annotations

import errno
import gc
import posixpath
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from keyraft.base.log import Logger, NullLogger
from keyraft.base.protofields import fields
from keyraft.raft import codec
from keyraft.raft.types import Entry, EntryType, HardState
from keyraft.storage.files import NO_ROOM, File, FileLockedError, Files
from keyraft.storage.wal.decode import READ_BYTES, WALDecoder
from keyraft.storage.wal.encode import WALBatch, WALEncoder
from keyraft.storage.wal.record import (
    ENTRY,
    FRAME_BYTES,
    METADATA,
    SEGMENT_BYTES,
    SNAPSHOT,
    STATE,
    SnapshotMark,
    WALDamagedError,
    WALError,
    WALLockedError,
    WALNotFoundError,
    WALTornError,
    decode_snapshot_mark,
)
from keyraft.storage.wal.segment_writer import SegmentWriter
from keyraft.storage.wal.segments import parse_segment_name, segment_name, segments_from, wal_exists

BROKEN_SUFFIX: Final = ".broken"
_NOT_REPLACED: Final = frozenset((errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.EXDEV))


class Replay:
    """What a log holds from a snapshot on."""

    __slots__ = ("entries", "last_index", "metadata", "repaired", "state")

    def __init__(self) -> None:
        self.metadata = b""  # etcdserverpb.Metadata
        self.state = HardState()
        self.entries: list[Entry] = []  # consecutive, the first right behind the snapshot
        self.last_index = 0  # of the last entry or snapshot met, also before the start
        self.repaired: str | None = None  # where a torn tail was set aside


class WAL:
    """An open log, ready to append."""

    __slots__ = ("_encoder", "_size", "_writer", "encode", "write")

    def __init__(
        self,
        files: Files,
        path: str,
        segments: list[tuple[int, File]],
        encoder: WALEncoder,
        size: int,
        log: Logger,
        reserved: bool = True,
    ) -> None:
        self._writer = SegmentWriter(files, path, segments, size, log, reserved)
        self._encoder = encoder
        self._size = size
        # The two steps of every append are those of encoder and writer, without a call between.
        self.encode: Final = encoder.entries
        """The bytes of one `write`; None when nothing has to be written now."""
        self.write: Final = self._writer.write
        """Carries out batches in the order in which they were encoded: one write, one sync.

        Raises WALFullError, after which what was not written comes again, and WALWriteError, from
        then on always.
        """

    # --- beginning ----------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        files: Files,
        path: str,
        metadata: bytes,
        *,
        entries: Sequence[Entry] = (),
        state: HardState | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        log: Logger | None = None,
    ) -> WAL:
        """A new log with its head, the empty snapshot and the first entries of a new cluster.

        It appears whole or not at all. A directory that is there already, and cannot be replaced
        because it holds something else or is a file system's root, is used as it is. (etcd removes
        what it holds, and does not start where it is mounted.)

        Raises WALError when there is one; OSError.
        """
        if wal_exists(files, path):
            raise WALError(f"wal: '{path}' holds a log already")
        encoder = WALEncoder(metadata, segment_bytes)
        head = encoder.head()
        encoder.offset = len(head)
        content = head + encoder.snapshot(SnapshotMark()).data
        batch = encoder.entries(entries, state, True)
        if batch is not None:
            content += batch.data
        temporary = path.rstrip("/") + ".tmp"
        files.remove_tree(temporary)
        files.make_dirs(temporary)
        name = segment_name(0, 0)
        file = _first_segment(files, posixpath.join(temporary, name), content, segment_bytes)
        try:
            files.sync_dir(temporary)
            files.rename(temporary, path)
            files.sync_dir(posixpath.dirname(path.rstrip("/")) or ".")
        except OSError as error:
            file.close()
            files.remove_tree(temporary)
            if error.errno not in _NOT_REPLACED:
                raise
            unnamed = posixpath.join(path, "0.tmp")
            file = _first_segment(files, unnamed, content, segment_bytes)
            try:
                files.rename(unnamed, posixpath.join(path, name))
                files.sync_dir(path)
            except BaseException:
                file.close()
                raise
        except BaseException:
            file.close()
            raise
        return cls(files, path, [(0, file)], encoder, segment_bytes, log or NullLogger())

    @classmethod
    def open(
        cls,
        files: Files,
        path: str,
        start: SnapshotMark | None = None,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        log: Logger | None = None,
    ) -> tuple[WAL, Replay]:
        """Locks the segments, reads everything behind `start`, and makes the log ready to append.

        A torn tail is copied to `NAME.broken` and wiped, once. Raises WALNotFoundError,
        WALLockedError, WALDamagedError, OSError.
        """
        log = log or NullLogger()
        start = start or SnapshotMark()
        names = segments_from(files, path, start.index)
        opened: list[File] = []
        try:
            for name in names:
                try:
                    opened.append(files.open_locked(posixpath.join(path, name)))
                except FileLockedError as error:
                    raise WALLockedError(
                        f"wal: '{posixpath.join(path, name)}' is locked by another process"
                    ) from error
            repaired: str | None = None
            try:
                replay, decoder = read(opened, start)
            except WALTornError as error:
                repaired = _repair(files, opened[-1], error, log)
                replay, decoder = _read_repaired(opened, start)
            replay.repaired = repaired
            tail = opened[-1]
            _wipe(tail, decoder.offset)
            reserved = _allocated(tail, segment_bytes)
            tail.fdatasync()
        except BaseException:
            for file in opened:
                file.close()
            raise
        encoder = WALEncoder(replay.metadata, segment_bytes)
        encoder.crc = decoder.crc
        encoder.offset = decoder.offset
        encoder.order.begin(start, replay.entries, replay.last_index, replay.state)
        if not replay.state.is_empty():
            encoder.state = codec.encode_hard_state(replay.state)
        segments: list[tuple[int, File]] = []
        for name, file in zip(names, opened):
            parsed = parse_segment_name(name)
            assert parsed is not None, name
            encoder.sequence, index = parsed
            segments.append((index, file))
        return cls(files, path, segments, encoder, segment_bytes, log, reserved), replay

    # --- appending ----------------------------------------------------------------------------

    @property
    def metadata(self) -> bytes:
        """What stands at the head of every segment."""
        return self._encoder.metadata

    @property
    def last_index(self) -> int:
        """Of the last entry or snapshot encoded."""
        return self._encoder.order.last_index

    def encode_snapshot(self, mark: SnapshotMark) -> WALBatch:
        """The record that says a snapshot is durable; without it the snapshot does not count."""
        return self._encoder.snapshot(mark)

    @property
    def behind(self) -> bool:
        """Whether batches wait for room."""
        return self._writer.behind

    @property
    def room_bytes(self) -> int:
        """So much can be written for sure, whatever else fills the disk. About: of the batch under
        way all is counted as written."""
        writer = self._writer
        spare = self._size if writer.has_spare else 0
        if self._encoder.offset >= self._size or not writer.reserved:
            return spare
        return self._size - self._encoder.offset + spare

    @property
    def wants_room(self) -> bool:
        """Whether it is time for `reserve`."""
        writer = self._writer
        return not writer.reserved or (
            not writer.has_spare and self._encoder.offset >= self._size // 2
        )

    def reserve(self) -> None:
        """Reserves room ahead. Blocks. Raises OSError."""
        self._writer.reserve()

    def append(
        self, entries: Sequence[Entry], state: HardState | None = None, must_sync: bool = True
    ) -> None:
        """`encode` and `write` in one, for tools and tests."""
        batch = self.encode(entries, state, must_sync)
        if batch is not None:
            self.write((batch,))

    def save_snapshot(self, mark: SnapshotMark) -> None:
        """`encode_snapshot` and `write` in one."""
        self.write((self.encode_snapshot(mark),))

    # --- letting go ---------------------------------------------------------------------------

    def release_to(self, index: int) -> None:
        """Gives up the locks of segments that hold only entries before `index`, for `purge`.

        The newest segment that begins before `index` is kept.
        """
        self._writer.release_to(index)

    def close(self) -> None:
        """Writes what was held back, syncs and lets go of all locks. Raises WALError.

        Behind batches that wait for room nothing is written: nobody was told of them.
        """
        try:
            writer = self._writer
            batch = self._encoder.flush(sync=True)
            if batch is not None and not writer.failed and not writer.behind:
                writer.write((batch,))
        finally:
            self._writer.close()

    def check(self) -> None:
        """The encoder's place is within the segment that is written."""
        assert self._writer.segments, "closed"
        assert self._encoder.offset < self._size or self._encoder.sequence == 0, (
            self._encoder.offset,
            self._size,
        )


def _wipe(file: File, offset: int) -> None:
    """Zeros from there on. The file is not cut, which would give its room back."""
    try:
        file.wipe(offset)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        file.truncate(offset)  # a file system that writes nothing in place


def _allocated(file: File, size: int) -> bool:
    """Whether there is room for all of it. Without, a member starts all the same."""
    try:
        file.allocate(size)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return False
    return True


def _first_segment(files: Files, path: str, content: bytes, segment_bytes: int) -> File:
    """A durable segment under a name that does not count yet."""
    file = files.open_locked(path, create=True)
    try:
        file.truncate(0)
        file.allocate(segment_bytes)
        file.pwrite(content, 0)
        file.fdatasync()
    except BaseException:
        file.close()
        raise
    return file


def read(
    opened: list[File],
    start: SnapshotMark,
    *,
    torn_ends: bool = False,
    want_entries: bool = True,
) -> tuple[Replay, WALDecoder]:
    """Everything behind `start` in consecutive segments; entries may be there never committed.

    `torn_ends`: a torn tail counts as the end. Without `want_entries` they are checked but not
    kept, and may leave a gap, as behind a received snapshot. Raises WALTornError otherwise, WALDamagedError,
    WALNotFoundError.
    """
    replay = Replay()
    decoder = WALDecoder(opened)
    entries = replay.entries
    append = entries.append
    decode_entry = codec.decode_entry
    first = start.index + 1
    following = first  # the index that would continue `entries`
    term = 0  # of the last of `entries`
    found = False
    metadata: bytes | None = None
    # The garbage collector is off here: a million entries are made and no cycles.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for kind, data in decoder:
            if kind == ENTRY:
                if not want_entries:
                    continue
                entry = decode_entry(data)
                index = entry.index
                replay.last_index = index
                if index < first:
                    continue
                if index != following:
                    if index > following:
                        raise ValueError(f"entry {index} follows entry {following - 1}")
                    if index <= replay.state.commit:
                        raise ValueError(f"entry {index} replaces a committed one")
                    del entries[index - first :]
                    term = entries[-1].term if entries else 0
                if entry.term != term or entry.type:
                    _check_entry(entry, term)
                    term = entry.term
                append(entry)
                following = index + 1
            elif kind == STATE:
                replay.state = _hard_state(data, term)
            elif kind == METADATA:
                if metadata is not None and metadata != data:
                    raise ValueError("conflicting metadata found")
                metadata = data
            elif kind == SNAPSHOT:
                mark = decode_snapshot_mark(data)
                replay.last_index = max(replay.last_index, mark.index)
                if mark.index == start.index:
                    if mark.term != start.term:
                        raise ValueError(
                            f"snapshot mismatch: index {mark.index} has term {mark.term}, "
                            f"not {start.term}"
                        )
                    found = True
            else:
                raise ValueError(f"unexpected block type {kind}")
    except WALTornError:
        if not torn_ends:
            raise
    except ValueError as error:
        raise WALDamagedError(
            f"wal: {error}: in file '{opened[decoder.file].path}' before position {decoder.offset}"
        ) from error
    finally:
        if collecting:
            gc.enable()
    if metadata is None:
        raise WALDamagedError(f"wal: no metadata found: in file '{opened[0].path}'")
    if not found:
        raise WALNotFoundError(f"wal: snapshot not found: index {start.index}, term {start.term}")
    replay.metadata = metadata
    return replay, decoder


# A record's type is not covered by its checksum. An entry taken for a hard state, or the other way
# round, shows in what neither Raft nor any writer ever makes.


def _check_entry(entry: Entry, term_before: int) -> None:
    if entry.term < term_before:
        raise ValueError(
            f"entry {entry.index} of term {entry.term} follows one of term {term_before}"
        )
    if entry.type == EntryType.CONF_CHANGE and not entry.data:
        raise ValueError(f"entry {entry.index} is an empty configuration change")


def _hard_state(data: bytes, term: int) -> HardState:
    """A hard state is written behind its entries, so its term is not lower than theirs."""
    if any(number > 3 for number, _ in fields(data)):
        raise ValueError("a hard state has an unknown field")
    state = codec.decode_hard_state(data)
    if not state.term or state.term < term:
        raise ValueError(f"a hard state of term {state.term} follows an entry of term {term}")
    return state


def _read_repaired(opened: list[File], start: SnapshotMark) -> tuple[Replay, WALDecoder]:
    try:
        return read(opened, start)
    except WALTornError as error:
        raise WALDamagedError(f"wal: still torn after repair: {error}") from error


def _repair(files: Files, tail: File, torn: WALTornError, log: Logger) -> str:
    """Copies the last segment to `NAME.broken`, where there is room, then wipes it behind its last
    sound record; the copy's name, or ""."""
    broken = tail.path + BROKEN_SUFFIX
    log.warn("repairing the write-ahead log", path=tail.path, error=str(torn))
    try:
        _copy(files, tail, broken)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        with suppress(OSError):
            files.remove(broken)
        log.warn("no room for a copy of the torn segment", path=broken, error=str(error))
        broken = ""
    _wipe(tail, torn.offset)
    if tail.size() % FRAME_BYTES:  # cut short by hand: not to end within a frame's length again
        tail.truncate(tail.size() + -tail.size() % FRAME_BYTES)
    tail.fdatasync()
    log.warn("repaired the write-ahead log", path=tail.path, broken=broken, size=torn.offset)
    return broken


def _copy(files: Files, tail: File, broken: str) -> None:
    copy = files.open(broken, create=True)
    try:
        copy.truncate(0)
        offset = 0
        while data := tail.pread(READ_BYTES, offset):
            copy.pwrite(data, offset)
            offset += len(data)
        copy.fdatasync()
    finally:
        copy.close()
    files.sync_dir(posixpath.dirname(broken) or ".")
