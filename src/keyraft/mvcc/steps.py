"""Work in steps is a generator: it pauses at each `yield`, and its value is the result."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, TypeVar

FREED_ITEMS: Final = 2_000  # objects that are freed in one step

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


def finished(work: Generator[None, None, T]) -> T:
    """Runs all steps at once and returns their value."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            value: T = end.value
            return value


def emptied(items: dict[K, V], slice_items: int = FREED_ITEMS) -> Generator[None, None, None]:
    """Frees unused objects in steps: freeing a million of them takes time, too."""
    while items:
        for _ in range(min(slice_items, len(items))):
            items.popitem()
        yield
