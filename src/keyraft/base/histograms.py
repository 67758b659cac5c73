"""Histograms as Prometheus has them: plain counts, read only when somebody scrapes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


def exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Upper bounds of `count` buckets: start, start x factor, ..."""
    return tuple(start * factor**step for step in range(count))


class Histogram:
    """Observations in buckets, as Prometheus counts them (not yet cumulative)."""

    __slots__ = ("bounds", "buckets", "count", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.buckets = [0] * (len(self.bounds) + 1)
        self.count = 0
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Adds `times` observations of `value`."""
        self.buckets[bisect_left(self.bounds, value)] += times
        self.count += times
        self.sum += value * times


class Histograms:
    """A histogram per combination of label values, made on first use."""

    __slots__ = ("bounds", "series")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.series: dict[tuple[str, ...], Histogram] = {}

    def of(self, *labels: str) -> Histogram:
        """The series of these label values."""
        found = self.series.get(labels)
        if found is None:
            found = self.series[labels] = Histogram(self.bounds)
        return found
