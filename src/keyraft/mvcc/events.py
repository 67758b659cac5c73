"""Past events, read back from the rows of bucket `key`."""

from __future__ import annotations

from typing import Final

from .backend import KEY, Backend, BackendError
from .hooks import Event
from .revision import MalformedRevisionError, first_key, parse
from .wire import deleted_key_value, stored_key

VALUE_SHIFT: Final = 12

Revisions = list[tuple[int, list[Event]]]


def read_events(backend: Backend, start: int, current: int, rows: int) -> tuple[Revisions, int]:
    """Whole revisions from `start` up to `current`, about `rows` rows of them; a large value
    counts as a row for each 4 KiB.

    Returns them with the revision to go on from; that is `current` + 1 when all were read. Raises
    BackendError on rows that are none.
    """
    out: Revisions = []
    last = -1
    found = backend.range(KEY, first_key(max(start, 0)), first_key(current + 1))
    seen = 0
    for row, value in found:
        try:
            main, _, tombstone = parse(row)
            key = stored_key(value)
        except (MalformedRevisionError, ValueError) as error:
            raise BackendError(f"damaged row {row.hex()}: {error}") from None
        if main != last:
            if seen >= rows:
                return out, main
            last = main
            out.append((main, []))
        seen += 1 + (len(value) >> VALUE_SHIFT)
        out[-1][1].append((key, deleted_key_value(key, main) if tombstone else value, tombstone))
    return out, current + 1
