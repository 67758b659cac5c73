"""Entries as etcd's protobuf bytes: what the log, the peers and the snapshots carry most of.

    Entry             Type 1, Term 2, Index 3, Data 4

The common shape, a normal entry with data, is written and read in place; every other, also what a
damaged disk or a hostile peer makes of it, by the general form. See `codec` for the rest and for
the two dialects.
"""

from __future__ import annotations

from typing import Final

from keyraft.base.protofields import check_wire_type, read_length, skip
from keyraft.base.varints import LOW, VARINTS, CodecError, encode_varint, read_varint, varint_size
from keyraft.raft.types import Entry, EntryType


def encode_entry(entry: Entry) -> bytes:
    """An entry as the log and the peers carry it."""
    data = entry.data
    index = entry.index
    if data and not entry.type and 0 < index < 268_435_456 and entry.term:
        # The common case: a normal entry with data.
        return b"".join(
            (
                b"\x10",
                encode_varint(entry.term),
                b"\x18",
                VARINTS[index] if index < 16384 else LOW[index & 0x3FFF] + VARINTS[index >> 14],
                b'"',
                encode_varint(len(data)),
                data,
            )
        )
    head = b""
    if entry.type:
        head = b"\x08" + encode_varint(entry.type)
    if entry.term:
        head += b"\x10" + encode_varint(entry.term)
    if index:
        head += b"\x18" + encode_varint(index)
    if data:
        return head + b'"' + encode_varint(len(data)) + data
    return head


def entry_size(entry: Entry) -> int:
    """The length of `encode_entry` without making it."""
    size = 0
    length = len(entry.data)
    if length:
        size = length + (2 if length < 128 else 1 + varint_size(length))
    if entry.type:
        size += 1 + varint_size(entry.type)
    if entry.term:
        size += 1 + varint_size(entry.term)
    if entry.index:
        size += 1 + varint_size(entry.index)
    return size


def decode_entry(buf: bytes) -> Entry:
    """The entry whose whole encoding is `buf`; raises CodecError."""
    return decode_entry_at(buf, 0, len(buf))


_FIELDS: Final = frozenset({1, 2, 3, 4})


def decode_entry_at(buf: bytes, pos: int, end: int) -> Entry:
    """The entry between two places of a buffer; raises CodecError."""
    # A normal entry with its fields in order, a short term, an index below 2^28 and less than
    # 16 KiB of data, is read without a loop; whatever differs starts over below.
    try:
        p = pos
        if buf[p] == 0x08 and buf[p + 1] == 0:
            p += 2
        term = buf[p + 1]
        if buf[p] == 0x10 and term < 128 and buf[p + 2] == 0x18:
            index = buf[p + 3]
            p += 4
            if index > 127:
                byte = buf[p]
                index += (byte - 1) << 7
                p += 1
                if byte > 127:
                    byte = buf[p]
                    index += (byte - 1) << 14
                    p += 1
                    if byte > 127:
                        byte = buf[p]
                        index += (byte - 1) << 21
                        p += 1
                        if byte > 127:
                            return _decode_any_entry(buf, pos, end)
            if buf[p] == 0x22:
                length = buf[p + 1]
                p += 2
                if length > 127:
                    length += (buf[p] - 1) << 7
                    p += 1
                # A longer length has a value of 16 KiB or more by now.
                if p + length == end and length < 16384:
                    return Entry(term, index, buf[p:end])
    except IndexError:
        pass
    return _decode_any_entry(buf, pos, end)


def _decode_any_entry(buf: bytes, pos: int, end: int) -> Entry:
    type_ = term = index = 0
    data = b""
    while pos < end:
        key = buf[pos]
        pos += 1
        if key == 0x22:
            byte = buf[pos] if pos < end else 128
            if byte < 128:
                pos += 1
                stop = pos + byte
                if stop > end:
                    raise CodecError("a field is longer than what holds it")
            else:
                pos, stop = read_length(buf, pos, end)
            data = buf[pos:stop]
            pos = stop
        elif key == 0x10 or key == 0x18 or key == 0x08:
            byte = buf[pos] if pos < end else 128
            if byte < 128:
                value = byte
                pos += 1
            else:
                value, pos = read_varint(buf, pos, end)
            if key == 0x18:
                index = value
            elif key == 0x10:
                term = value
            else:
                type_ = value
        else:
            if key > 127:
                key, pos = read_varint(buf, pos - 1, end)
            check_wire_type(key, _FIELDS)
            pos = skip(buf, pos, end, key)
    if type_ > EntryType.CONF_CHANGE_V2:
        raise CodecError(f"entry type {type_}")
    return Entry(term, index, data, type_)
