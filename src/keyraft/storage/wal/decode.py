"""From segments back to records: the checksum chain, and telling a crash from damage.

What a crash can leave, and what it cannot. Frames are aligned to 8 bytes and sectors are written
whole. So after a crash each sector of an unsynced batch is either complete or still zero. These are
therefore no traces of a crash but damage:

- a record that fails its check although no sector of it is zero,
- a record of a segment that is not the last,
- a length of zero with bytes behind it in the same sector,
- a length that with its padding is no multiple of 8,
- a length of more than RECORD_BYTES_MAX,
- a record that is sound by the length of its data but not by its own

They are refused with WALDamagedError. Anything else that is wrong at the very end is a torn write
(WALTornError), which `repair` cuts off.

DEVIATION: etcd takes most of the last four for torn writes as well and drops what follows,
acknowledged or not. A flipped bit in a length must not silently lose entries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import Struct
from typing import Final, NoReturn

from keyraft.base.crc import crc32c
from keyraft.base.varints import LOW
from keyraft.storage.files import SECTOR_BYTES, File
from keyraft.storage.wal.encode import _CRC_TOP
from keyraft.storage.wal.record import (
    CRC,
    FRAME_BYTES,
    LENGTH_MASK,
    RECORD_BYTES_MAX,
    WALDamagedError,
    WALTornError,
    decode_record,
    frame_length,
)

READ_BYTES: Final = 1 << 20  # what is read at once
# length; type's tag, type; crc's tag and five bytes; data's tag, first two bytes of its length
_record_start: Final = Struct("<QBB6sBBB")
_RECORD_START: Final = re.compile(
    rb"\x08[\x01-\x05]\x10([\x80-\xff]{0,4}.)\x1a([\x80-\xff]{0,8}.)", re.DOTALL
)
_RECORD_START_BYTES: Final = 24


class WALDecoder:
    """Reads the records of consecutive segments; never more than one record and 1 MiB in memory."""

    __slots__ = ("_files", "_sizes", "crc", "file", "offset")

    def __init__(self, files: list[File]) -> None:
        self._files = files
        self._sizes = [file.size() for file in files]
        self.crc = 0  # the running value
        self.file = 0  # index of the file being read
        self.offset = 0  # in that file, behind the last sound record

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Type and data of each record; the crc records are consumed here.

        Raises WALTornError, WALDamagedError, OSError.
        """
        for position in range(len(self._files)):
            self.file = position
            self.offset = 0
            yield from self._segment(self._files[position], self._sizes[position])

    def _segment(self, file: File, size: int) -> Iterator[tuple[int, bytes]]:
        unpack = frame_length.unpack_from
        unpack_start = _record_start.unpack_from
        lead, top = LOW, _CRC_TOP
        crc = self.crc
        self._check_head(file)
        offset = 0
        base = 0
        buffer = file.pread(READ_BYTES, 0)
        fast_end = len(buffer) - _record_start.size
        while True:
            at = offset - base
            # A record with its fields in order and a crc of five bytes is read in place. The crc is
            # not decoded; instead the expected crc is encoded and the bytes are compared.
            if at <= fast_end:
                length, tag, kind, crc_bytes, data_tag, low, middle = unpack_start(buffer, at)
                if tag == 0x08 and data_tag == 0x1A and kind != CRC:
                    end = at + FRAME_BYTES + (length & LENGTH_MASK)
                    if low < 128:
                        data = buffer[at + 18 : end]
                        fits = len(data) == low
                    else:
                        data = buffer[at + 19 : end]
                        fits = len(data) == low + (middle - 1 << 7) and middle < 128
                    if fits:
                        running = crc32c(data, crc)
                        if (
                            crc_bytes
                            == b"\x10"
                            + lead[running & 0x3FFF]
                            + lead[running >> 14 & 0x3FFF]
                            + top[running >> 28]
                        ):
                            following = end + 7 & ~7 if length >> 63 else end
                            if length >> 56 & 7 == following - end and base + following <= size:
                                self.crc = crc = running
                                self.offset = offset = base + following
                                yield kind, data
                                continue
            if at + FRAME_BYTES > len(buffer):
                base, at = offset, 0
                buffer = file.pread(READ_BYTES, offset)
                fast_end = len(buffer) - _record_start.size
                if len(buffer) < FRAME_BYTES:
                    if buffer:
                        self._torn("ends within a length")
                    return
            (length,) = unpack(buffer, at)
            if not length:
                self._check_end()
                return
            record_bytes = length & LENGTH_MASK
            pad = length >> 56 & 7 if length >> 63 else 0
            if record_bytes + pad & 7:
                self._damaged("a record's length and padding are no multiple of 8")
            start = at + FRAME_BYTES
            end = start + record_bytes + pad
            if base + end > size:
                if record_bytes > RECORD_BYTES_MAX:
                    self._damaged(f"a record of {record_bytes} bytes, which nobody writes")
                self._check_length(record_bytes)
                self._torn("ends within a record")
            if end > len(buffer):
                base, start, end = offset, FRAME_BYTES, FRAME_BYTES + record_bytes + pad
                buffer = file.pread(max(READ_BYTES, end), offset)
                fast_end = len(buffer) - _record_start.size
                if len(buffer) < end:
                    self._torn("became shorter while it was read")
            raw = buffer[start:end]
            try:
                kind, wanted, data = decode_record(raw[:record_bytes])
            except ValueError as error:
                self._bad(raw, record_bytes, f"holds no record ({error})")
            if kind == CRC:
                if crc and crc != wanted:
                    self._damaged("crc mismatch with the segment before")
                crc = wanted
            else:
                crc = crc32c(data, crc)
                if crc != wanted:
                    self._bad(raw, record_bytes, "crc mismatch")
            self.crc = crc
            self.offset = offset = base + end
            if kind != CRC:
                yield kind, data

    # --- what went wrong ----------------------------------------------------------------------

    def _where(self) -> str:
        return f"in file '{self._files[self.file].path}' at position: {self.offset}"

    def _damaged(self, what: str) -> NoReturn:
        raise WALDamagedError(f"wal: {what}: {self._where()}")

    def _torn(self, what: str) -> NoReturn:
        if self.file != len(self._files) - 1:
            self._damaged(what)
        raise WALTornError(f"wal: {what}: {self._where()}", self.offset)

    def _bad(self, raw: bytes, record_bytes: int, what: str) -> NoReturn:
        """A record that fails its check: torn when a sector of it was never written."""
        self._check_length(record_bytes)
        begin = 0
        position = self.offset + FRAME_BYTES
        while begin < len(raw):
            end = min(len(raw), begin + SECTOR_BYTES - position % SECTOR_BYTES)
            if not any(raw[begin:end]):
                self._torn(what)
            position += end - begin
            begin = end
        self._damaged(what)

    def _check_length(self, record_bytes: int) -> None:
        """Refuses a record that is sound by the length of its data but not by `record_bytes`."""
        file = self._files[self.file]
        start = file.pread(_RECORD_START_BYTES, self.offset + FRAME_BYTES)
        match = _RECORD_START.match(start)
        if match is None:
            return
        crc = _varint_value(match[1])
        size = _varint_value(match[2])
        if not 0 < size <= file.size() - self.offset or match.end() + size == record_bytes:
            return
        data = file.pread(size, self.offset + FRAME_BYTES + match.end())
        if len(data) == size and crc32c(data, self.crc) == crc:
            self._damaged("a record's length was altered")

    def _check_head(self, file: File) -> None:
        """A named segment has a durable head, so it must begin with a crc record."""
        head = file.pread(FRAME_BYTES + 2, 0)
        if len(head) < FRAME_BYTES + 2 or head[FRAME_BYTES:] != bytes((0x08, CRC)):
            self._damaged("the segment does not begin with a checksum")

    def _check_end(self) -> None:
        """A zero length ends the segment, unless bytes follow it in the same sector."""
        rest = SECTOR_BYTES - self.offset % SECTOR_BYTES
        tail = self._files[self.file].pread(rest, self.offset)
        if any(tail):
            self._damaged("a record's length was overwritten with zeros")


def _varint_value(data: bytes) -> int:
    value = 0
    for position, byte in enumerate(data):
        value |= (byte & 127) << 7 * position
    return value
