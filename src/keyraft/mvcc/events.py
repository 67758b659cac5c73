"""Past events, read back from the rows of bucket `key`."""

from __future__ import annotations

from typing import Final

from .backend import KEY, Backend, BackendError
from .hooks import Event
from .revision import MalformedRevisionError, first_key, parse
from .wire import deleted_key_value, stored_key

VALUE_SHIFT: Final = 12

Revisions = list[tuple[int, list[Event]]]
"""(revision, its events in order), ascending.

The last revision may continue in the next portion.
"""


def read_portion(backend: Backend, at: bytes, current: int, rows: int) -> tuple[Revisions, bytes]:
    """Events from row `at` up to revision `current`, about `rows` rows of them; a large value
    counts as a row for each 4 KiB.

    Returns them with the row to continue from, which may be in the middle of a revision; empty when
    all were read. Raises BackendError on rows that are none.
    """
    out: Revisions = []
    last = -1
    seen = 0
    for row, value in backend.range(KEY, at, first_key(current + 1)):
        if seen >= rows:
            return out, row
        try:
            main, _, tombstone = parse(row)
            key = stored_key(value)
        except (MalformedRevisionError, ValueError) as error:
            raise BackendError(f"damaged row {row.hex()}: {error}") from None
        if main != last:
            last = main
            out.append((main, []))
        seen += 1 + (len(value) >> VALUE_SHIFT)
        out[-1][1].append((key, deleted_key_value(key, main) if tombstone else value, tombstone))
    return out, b""
