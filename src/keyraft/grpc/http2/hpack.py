"""HPACK (RFC 7541): header blocks in both directions.

Each direction has a table, which both ends change in the same way. So every block is decoded, in
order, even if its stream is refused.

`generation` counts the changes of a table. If it stays the same while a block is decoded or
encoded, the block does not depend on changes it made, and means the same until `generation` rises.
So such a block may be remembered.

Invariants: the size of a table (each entry its name, its value and 32, §4.1) never exceeds its
maximum; the maximum never exceeds what the decoding side allowed; `generation` never falls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from . import huffman
from .constants import STATIC_TABLE
from .errors import HpackError

Header = tuple[bytes, bytes]

ENTRY_OVERHEAD_BYTES: Final = 32  # RFC 7541 §4.1
TABLE_BYTES_DEFAULT: Final = 4096  # RFC 9113 §6.5.2, SETTINGS_HEADER_TABLE_SIZE
INTEGER_OCTETS_MAX: Final = 5  # no length, index or size that we accept needs more
_STATIC_COUNT: Final = len(STATIC_TABLE)
_STATIC_FULL: Final = {header: i + 1 for i, header in reversed(list(enumerate(STATIC_TABLE)))}
_STATIC_NAME: Final = {name: i + 1 for i, (name, _) in reversed(list(enumerate(STATIC_TABLE)))}


def header_size(name: bytes, value: bytes) -> int:
    """Bytes that a header counts for in a table and in a list (§4.1, RFC 9113 §6.5.2)."""
    return len(name) + len(value) + ENTRY_OVERHEAD_BYTES


class DynamicTable:
    """The headers that earlier blocks added, the newest last; the oldest are evicted."""

    __slots__ = ("entries", "generation", "size_bytes", "size_bytes_max")

    def __init__(self, size_bytes_max: int) -> None:
        self.entries: list[Header] = []
        self.size_bytes = 0
        self.size_bytes_max = size_bytes_max
        self.generation = 0

    def add(self, header: Header) -> None:
        """Inserts a header; one larger than the table empties it (§4.4)."""
        self.generation += 1
        name, value = header
        size = len(name) + len(value) + ENTRY_OVERHEAD_BYTES
        entries = self.entries  # the decoder relies on it staying the same object
        total = self.size_bytes + size
        while total > self.size_bytes_max and entries:
            name, value = entries.pop(0)
            total -= len(name) + len(value) + ENTRY_OVERHEAD_BYTES
        if total <= self.size_bytes_max:
            entries.append(header)
        else:
            total -= size
        self.size_bytes = total

    def resize(self, size_bytes_max: int) -> None:
        """Sets the maximum and evicts down to it."""
        self.generation += 1
        self.size_bytes_max = size_bytes_max
        while self.size_bytes > size_bytes_max:
            self.size_bytes -= header_size(*self.entries.pop(0))

    def check(self) -> None:
        """Asserts the invariants; for tests and verify runs."""
        total = sum(header_size(name, value) for name, value in self.entries)
        assert total == self.size_bytes, (total, self.size_bytes)
        assert total <= self.size_bytes_max, (total, self.size_bytes_max)


class HpackDecoder:
    """The receiving half: blocks to headers.

    `list_bytes_max` limits the decoded size of one block (RFC 9113 §6.5.2). The rest of a larger
    block is still decoded, because it may change the table, but dropped; `oversize` tells.
    """

    __slots__ = ("allowed_bytes", "list_bytes_max", "oversize", "table")

    def __init__(self, list_bytes_max: int, table_bytes_max: int = TABLE_BYTES_DEFAULT) -> None:
        self.table = DynamicTable(table_bytes_max)
        self.allowed_bytes = table_bytes_max
        self.list_bytes_max = list_bytes_max
        self.oversize = False

    def decode(self, block: bytes) -> list[Header]:
        """The headers of one whole block; raises HpackError."""
        headers = self.decode_unmeasured(block)
        self.measure(headers)
        return headers

    def measure(self, headers: list[Header]) -> None:
        """Cuts a list above the limit off and says so in `oversize`."""
        total = 0
        for count, (name, value) in enumerate(headers):
            total += len(name) + len(value) + ENTRY_OVERHEAD_BYTES
            if total > self.list_bytes_max:
                self.oversize = True
                del headers[count:]
                return

    def decode_unmeasured(self, block: bytes) -> list[Header]:
        """`decode` for a caller that knows the list or measures it: only the count is limited."""
        table = self.table
        entries, static = table.entries, STATIC_TABLE
        headers: list[Header] = []
        pos, end = 0, len(block)
        while pos < end:
            byte = block[pos]
            pos += 1
            if byte > 0xBD:  # §6.1 indexed, in the dynamic table
                index = byte - 0x80
                if index == 0x7F:
                    index, pos = _integer_tail(block, pos, 0x7F)
                index -= _STATIC_COUNT
                if index > len(entries):
                    raise HpackError("an index beyond the table")
                headers.append(entries[-index])
            elif byte > 0x80:  # §6.1 indexed, in the static table
                headers.append(static[byte - 0x81])
            elif byte == 0x80:
                raise HpackError("index zero")
            elif byte & 0xE0 == 0x20:  # §6.3 size update: before the first field only
                if headers:
                    raise HpackError("a table size update after a field")
                size, pos = _integer(block, pos - 1, 0x1F)
                if size > self.allowed_bytes:
                    raise HpackError("a table size above the one allowed")
                table.resize(size)
            else:  # §6.2 literal: with indexing (01), without (0000), never (0001)
                mask = 0x3F if byte & 0x40 else 0x0F
                index = byte & mask
                if index == mask:
                    index, pos = _integer_tail(block, pos, mask)
                if index:
                    name = self._lookup(index)[0]
                else:
                    name, pos = _string(block, pos)
                value, pos = _string(block, pos)
                header = (name, value)
                if mask == 0x3F:
                    table.add(header)
                headers.append(header)
        count_max = self.list_bytes_max // ENTRY_OVERHEAD_BYTES
        self.oversize = len(headers) > count_max
        if self.oversize:
            del headers[count_max:]
        return headers

    def _lookup(self, index: int) -> Header:
        if index <= _STATIC_COUNT:
            if index == 0:
                raise HpackError("index zero")
            return STATIC_TABLE[index - 1]
        entries = self.table.entries
        if index - _STATIC_COUNT > len(entries):
            raise HpackError("an index beyond the table")
        return entries[_STATIC_COUNT - index]


class HpackEncoder:
    """The sending half: headers to blocks.

    `indexed` holds names or whole headers that get a place in the table, `secret` the names that no
    table on the way may keep (§7.1.3). All others are plain literals, which do not change the
    table, so blocks can be remembered.
    """

    __slots__ = ("_resizes", "indexed", "secret", "table")

    def __init__(
        self,
        indexed: frozenset[bytes | Header],
        secret: frozenset[bytes] = frozenset(),
    ) -> None:
        self.table = DynamicTable(TABLE_BYTES_DEFAULT)
        self.indexed = indexed
        self.secret = secret
        self._resizes: list[int] = []

    @property
    def generation(self) -> int:
        """Rises with every change of the table."""
        return self.table.generation

    def limit(self, size_bytes_max: int) -> None:
        """Obeys the peer's SETTINGS_HEADER_TABLE_SIZE; the next block says so (§4.2)."""
        size = min(size_bytes_max, TABLE_BYTES_DEFAULT)
        if size != self.table.size_bytes_max:
            self.table.resize(size)
            # If it fell and rose between two blocks, both are sent: the lowest and the last.
            lowest = min([size, *self._resizes])
            self._resizes = [lowest, size] if lowest < size else [size]

    def encode(self, headers: Iterable[Header]) -> bytes:
        """One whole block."""
        out = bytearray()
        if self._resizes:
            for size in self._resizes:
                _put_integer(out, size, 0x1F, 0x20)
            self._resizes = []
            self.table.generation += 1  # this block must not be reused
        for header in headers:
            self._field(out, header)
        return bytes(out)

    def settled(self, headers: Iterable[Header]) -> bool:
        """Whether encoding `headers` would leave the table as it is."""
        if self._resizes:
            return False
        room = self.table.size_bytes_max
        return not any(
            (header[0] in self.indexed or header in self.indexed)
            and header[0] not in self.secret
            and header not in _STATIC_FULL
            and header not in self.table.entries
            and header_size(*header) <= room
            for header in headers
        )

    def _field(self, out: bytearray, header: Header) -> None:
        name, value = header
        index = _STATIC_FULL.get(header)
        if index is None and name not in self.secret and header in self.table.entries:
            entries = self.table.entries
            index = _STATIC_COUNT + len(entries) - entries.index(header)
        if index is not None:
            _put_integer(out, index, 0x7F, 0x80)
            return
        name_index = _STATIC_NAME.get(name, 0)
        if name in self.secret:
            _put_integer(out, name_index, 0x0F, 0x10)
        elif (name in self.indexed or header in self.indexed) and header_size(
            name, value
        ) <= self.table.size_bytes_max:
            _put_integer(out, name_index, 0x3F, 0x40)
            self.table.add(header)
        else:
            _put_integer(out, name_index, 0x0F, 0x00)
        if name_index == 0:
            _put_string(out, name)
        _put_string(out, value)


def _integer(block: bytes, pos: int, mask: int) -> tuple[int, int]:
    """(value, position after it) of an integer whose prefix is `mask` (§5.1)."""
    value = block[pos] & mask
    if value < mask:
        return value, pos + 1
    return _integer_tail(block, pos + 1, mask)


def _integer_tail(block: bytes, pos: int, value: int) -> tuple[int, int]:
    shift = 0
    for octet in block[pos : pos + INTEGER_OCTETS_MAX]:
        pos += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, pos
        shift += 7
    raise HpackError("an integer that is cut short or too long")


def _string(block: bytes, pos: int) -> tuple[bytes, int]:
    """(string, position after it), §5.2."""
    if pos >= len(block):
        raise HpackError("a header block ends before a string")
    first = block[pos]
    coded, length = first & 0x80, first & 0x7F
    pos += 1
    if length == 0x7F:
        length, pos = _integer_tail(block, pos, length)
    stop = pos + length
    if stop > len(block):
        raise HpackError("a string longer than its header block")
    text = block[pos:stop]
    return (huffman.decode(text) if coded else text), stop


def _put_integer(out: bytearray, value: int, mask: int, flags: int) -> None:
    if value < mask:
        out.append(flags | value)
        return
    out.append(flags | mask)
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _put_string(out: bytearray, text: bytes) -> None:
    size = huffman.encoded_size(text)
    if size < len(text):
        _put_integer(out, size, 0x7F, 0x80)
        out += huffman.encode(text)
    else:
        _put_integer(out, len(text), 0x7F, 0x00)
        out += text
