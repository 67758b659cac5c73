"""How many bytes entries take, and how many entries fit into so many bytes.

Encoded size is what `codec.encode_entry` would make of an entry; payload size is its data alone.
Both are asked for whole batches, so they run over the batch in C where its entries are alike.
"""

from __future__ import annotations

from itertools import accumulate
from operator import attrgetter
from typing import Final

from keyraft.raft.codec import entry_size, varint_size
from keyraft.raft.types import NO_LIMIT, Entry

_data = attrgetter("data")
_type = attrgetter("type")
_CHUNK_ENTRIES: Final = 1024  # how far is looked ahead before a limit is checked


def payload_size(entries: list[Entry]) -> int:
    """Bytes of data of all entries together."""
    return sum(map(len, map(_data, entries)))


def encoded_size(entries: list[Entry]) -> int:
    """Bytes of all entries of a consecutive piece of a log, encoded one by one."""
    if len(entries) < 4:
        return sum(map(entry_size, entries))
    first = entries[0]
    last = entries[-1]
    lengths = list(map(len, map(_data, entries)))
    shortest = min(lengths)
    length_size = varint_size(max(lengths))
    index_size = varint_size(first.index)
    if (
        shortest
        and varint_size(shortest) == length_size
        and first.term == last.term
        and varint_size(last.index) == index_size
        and not any(map(_type, entries))
    ):
        # All alike: three tags, a term, an index and a length of the same size each.
        each = 3 + varint_size(first.term) + index_size + length_size
        return sum(lengths) + each * len(entries)
    return sum(map(entry_size, entries))


def limit(entries: list[Entry], start: int, stop: int, size_max: int) -> tuple[list[Entry], int]:
    """The longest piece of `entries[start:stop]` from its start within `size_max` bytes.

    At least one entry if there is any. Returns it with its encoded size; with NO_LIMIT the size
    is not worked out and is 0. The list is a copy.
    """
    if size_max >= NO_LIMIT:
        return entries[start:stop], 0
    total = 0
    for begin in range(start, stop, _CHUNK_ENTRIES):
        end = min(begin + _CHUNK_ENTRIES, stop)
        chunk = entries[begin:end]
        size = encoded_size(chunk)
        if total + size > size_max:
            taken = 0
            for count, running in enumerate(accumulate(map(entry_size, chunk)), 1):
                if total + running > size_max:
                    break
                taken = count
            fit = begin + taken
            if fit == start:
                return entries[start : start + 1], entry_size(entries[start])
            kept = entries[start:fit]
            return kept, total + encoded_size(chunk[:taken])
        if begin == start and end == stop:
            return chunk, size
        total += size
    return entries[start:stop], total
