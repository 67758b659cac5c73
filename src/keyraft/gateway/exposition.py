"""Prometheus text: families and their samples as lines (exposition format 0.0.4).

Written by hand, because the client library gives every counter the suffix `_total`, and some of
etcd's have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from keyraft.base.histograms import Histogram, Histograms

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"

Labels = Mapping[str, str]


@dataclass(slots=True)
class Family:
    """All samples of one name."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)
    """(suffix, labels, value)"""

    def add(self, value: float, **labels: str) -> Family:
        """One plain sample."""
        self.samples.append(("", labels, value))
        return self

    def add_histogram(self, histogram: Histogram, **labels: str) -> Family:
        """The samples of a histogram, buckets cumulated."""
        total = 0
        for bound, count in zip(histogram.bounds, histogram.buckets):
            total += count
            self.samples.append(("_bucket", {**labels, "le": number(bound)}, total))
        self.samples.append(("_bucket", {**labels, "le": "+Inf"}, histogram.count))
        self.samples.append(("_sum", labels, histogram.sum))
        self.samples.append(("_count", labels, histogram.count))
        return self


Source = Callable[[], Iterable[Family]]
"""A source of families, in any order; called at each scrape."""


def histograms(name: str, text: str, found: Histograms, labels: tuple[str, ...]) -> Family:
    """A family with a histogram for each combination of label values."""
    family = Family(name, HISTOGRAM, text)
    for values, histogram in sorted(found.series.items()):
        family.add_histogram(histogram, **dict(zip(labels, values)))
    return family


def number(value: float) -> str:
    """A float as Go prints it: no needless point, an exponent from 1e+06 on or below 1e-4."""
    if abs(value) < 1e6:
        return str(int(value)) if value == int(value) else repr(float(value))
    from decimal import Decimal  # a start does without

    sign, digits, exponent = Decimal(repr(float(value))).normalize().as_tuple()
    assert isinstance(exponent, int), value
    first, rest = str(digits[0]), "".join(map(str, digits[1:]))
    mantissa = f"{first}.{rest}" if rest else first
    return f"{'-' * sign}{mantissa}e+{exponent + len(digits) - 1:02}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def render(families: Iterable[Family]) -> bytes:
    """The whole page, families by name."""
    lines: list[str] = []
    for family in sorted(families, key=lambda family: family.name):
        if not family.samples:
            continue
        lines.append(f"# HELP {family.name} {_escape(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for suffix, labels, value in family.samples:
            inner = ",".join(f'{name}="{_escape(labels[name])}"' for name in labels)
            braces = f"{{{inner}}}" if inner else ""
            lines.append(f"{family.name}{suffix}{braces} {number(value)}")
    lines.append("")
    return "\n".join(lines).encode()
