"""From entries to the bytes of one write. Pure: knows offsets and checksums, touches no file.

The encoder runs ahead of the disk. It alone knows the running checksum and the offset at which the
next batch begins. So the loop can encode a batch while the storage thread still writes the one
before. Therefore the encoder also decides when a segment is full, and makes the head of the next
segment together with the last batch of this one.

A hard state that only moved the commit index needs no sync. It is held back and written in front of
the next batch that needs one. This saves a write, and losing it in a crash does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from keyraft.base.crc import crc32c
from keyraft.base.varints import LOW
from keyraft.raft import codec
from keyraft.raft.types import Entry, HardState
from keyraft.storage.wal.order import Order
from keyraft.storage.wal.record import (
    CRC,
    ENTRY,
    METADATA,
    SEGMENT_BYTES,
    SNAPSHOT,
    STATE,
    SnapshotMark,
    encode_snapshot_mark,
    frame_length,
)

CUT_AT_SNAPSHOT_BYTES: Final = 4 << 20  # so large a segment ends with a snapshot mark
HELD_BYTES_MAX: Final = 65_536  # held-back records beyond this are written without a sync
_LENGTHS_KEPT_MAX: Final = 16_384  # lengths whose framing is remembered

_varint = codec.encode_varint

# A crc's varint, 14 bits at a time: almost every crc needs all five bytes.
_CRC_TOP: Final = [bytes((top,)) for top in range(16)]
_LOW7: Final = [bytes((low | 128,)) for low in range(128)]
_PADDING: Final = [bytes(size) for size in range(8)]


def _crc_varint(crc: int) -> bytes:
    if crc < 1 << 28:
        return _varint(crc)
    return LOW[crc & 0x3FFF] + LOW[crc >> 14 & 0x3FFF] + _CRC_TOP[crc >> 28]


def frame(kind: int, crc: int, data: bytes | None) -> bytes:
    """One framed record; `crc` is the running value including `data`."""
    body = bytes((0x08, kind, 0x10)) + _crc_varint(crc)
    if data is not None:
        body += b"\x1a" + _varint(len(data)) + data
    pad = -len(body) & 7
    length = len(body) | ((0x80 | pad) << 56 if pad else 0)
    return frame_length.pack(length) + body + _PADDING[pad]


class WALBatch:
    """Bytes for one write at one place. The encoder makes it; it is written once, in order."""

    __slots__ = ("data", "entries_last", "head", "offset", "sequence", "sync")

    def __init__(self, sequence: int, offset: int, data: bytes, sync: bool) -> None:
        self.sequence = sequence  # the segment it belongs to
        self.offset = offset  # bytes from the segment's start
        self.data = data
        self.sync = sync  # must be on the disk before it is acknowledged
        self.head: bytes | None = None  # if any: the next segment's; this one ends
        self.entries_last = 0  # index of the last entry so far; names the next segment


class WALEncoder:
    """The log's running checksum, offset and hard state."""

    __slots__ = (
        "_framing",
        "_held",
        "_held_bytes",
        "_segment_bytes",
        "crc",
        "metadata",
        "offset",
        "order",
        "sequence",
        "state",
    )

    def __init__(self, metadata: bytes, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.metadata = metadata
        self._segment_bytes = segment_bytes
        self.crc = 0
        self.sequence = 0
        self.offset = 0  # where the next batch begins, held-back bytes not counted
        self.order = Order()  # what was encoded so far, and what may follow
        self.state = b""  # the last hard state, encoded; empty: none yet
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._framing: dict[int, tuple[bytes, bytes, bytes]] = {}

    def head(self) -> bytes:
        """The records that open a segment. They are part of the checksum's chain."""
        parts = [frame(CRC, self.crc, None), self._record(METADATA, self.metadata)]
        if self.state:
            parts.append(self._record(STATE, self.state))
        return b"".join(parts)

    def entries(
        self, entries: Sequence[Entry], state: HardState | None, must_sync: bool
    ) -> WALBatch | None:
        """A batch of entries and then the hard state; None when nothing has to be written now.

        `must_sync`: there are entries, or term or vote changed (`raft` knows). Raises
        WALRefusedError; then nothing may be written behind it.
        """
        parts = self._held
        if state is not None and state.is_empty():
            state = None
        # Checked first, so that either all of it is written or nothing.
        if entries:
            self.order.add_entries(entries)
        if state is not None:
            self.order.add_state(state)
        if entries:
            self._append_entries(entries, parts)
        if state is not None:
            self.state = codec.encode_hard_state(state)
            record = self._record(STATE, self.state)
            parts.append(record)
            self._held_bytes += len(record)
        if not must_sync and not entries and self._held_bytes < HELD_BYTES_MAX:
            return None
        return self.flush(must_sync)

    def snapshot(self, mark: SnapshotMark) -> WALBatch:
        """The record of a snapshot that is durable already; always synced. Raises WALRefusedError.

        It ends a segment of some size, so that a start, which begins at the newest mark, reads
        little of what was before it.
        """
        assert mark.index == 0 or mark.conf_state is not None, mark
        self.order.add_mark(mark)
        self._held.append(self._record(SNAPSHOT, encode_snapshot_mark(mark)))
        batch = self.flush(sync=True)
        assert batch is not None, mark
        if batch.head is None and mark.index and self.offset >= CUT_AT_SNAPSHOT_BYTES:
            self._cut(batch)
        return batch

    def flush(self, sync: bool) -> WALBatch | None:
        """What is held back, as a batch of its own; None when there is nothing."""
        if not self._held:
            return None
        batch = WALBatch(self.sequence, self.offset, b"".join(self._held), sync)
        self._held.clear()
        self._held_bytes = 0
        self.offset += len(batch.data)
        batch.entries_last = self.order.last_index
        if self.offset >= self._segment_bytes:
            self._cut(batch)
        return batch

    def _cut(self, batch: WALBatch) -> None:
        """The segment ends with `batch`."""
        batch.head = self.head()
        self.sequence += 1
        self.offset = len(batch.head)

    def _record(self, kind: int, data: bytes) -> bytes:
        self.crc = crc32c(data, self.crc)
        return frame(kind, self.crc, data)

    def _append_entries(self, entries: Sequence[Entry], parts: list[bytes]) -> None:
        # This is the hot loop of the log, about 1 µs an entry. What repeats from entry to entry is
        # made once: the term, all but seven bits of the index, the length, and so the whole
        # framing.
        crc = self.crc
        framing = self._framing
        extend = parts.extend
        term = -1
        high = -1
        length = -1
        before_index = after_index = b""
        for entry in entries:
            data = entry.data
            index = entry.index
            if entry.type or index < 128 or not data:
                body = codec.encode_entry(entry)
            else:
                if entry.term != term:
                    term = entry.term
                    before_index = (b"\x10" + _varint(term) if term else b"") + b"\x18"
                if index >> 7 != high or len(data) != length:
                    high = index >> 7
                    length = len(data)
                    after_index = _varint(high) + b'"' + _varint(length)
                body = before_index + _LOW7[index & 127] + after_index + data
            crc = crc32c(body, crc)
            size = len(body)
            if crc < 1 << 28:
                parts.append(frame(ENTRY, crc, body))
                continue
            around = framing.get(size)
            if around is None:
                around = self._frame_around(size)
            extend(
                (
                    around[0],
                    LOW[crc & 0x3FFF],
                    LOW[crc >> 14 & 0x3FFF],
                    _CRC_TOP[crc >> 28],
                    around[1],
                    body,
                    around[2],
                )
            )
        self.crc = crc

    def _frame_around(self, size: int) -> tuple[bytes, bytes, bytes]:
        """The bytes before a five-byte crc, between crc and data, and behind the data."""
        before_data = b"\x1a" + _varint(size)
        record = 8 + len(before_data) + size
        pad = -record & 7
        length = record | ((0x80 | pad) << 56 if pad else 0)
        around = (
            frame_length.pack(length) + bytes((0x08, ENTRY, 0x10)),
            before_data,
            _PADDING[pad],
        )
        if len(self._framing) >= _LENGTHS_KEPT_MAX:
            self._framing.clear()
        self._framing[size] = around
        return around
