"""Work that is carried out in steps is a generator: it hands control back at each `yield`, and its
value is what the work comes to."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, TypeVar

FREED_ITEMS: Final = 2_000  # objects that are freed in one step

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


def finished(work: Generator[None, None, T]) -> T:
    """The value of steps that are gone through at once."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            value: T = end.value
            return value


def emptied(items: dict[K, V], slice_items: int = FREED_ITEMS) -> Generator[None, None, None]:
    """Takes what nobody uses any more apart: freeing a million objects takes its time, too."""
    while items:
        for _ in range(min(slice_items, len(items))):
            items.popitem()
        yield
