"""A table of what both servers did by turns: the medians and their ratio."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from bench.servers import original_name


class Medians:
    """Rows by name; `etcd` and `keyraft` add their values in turns."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, list[float]]] = {}

    def add(self, label: str, rows: Mapping[str, float]) -> None:
        """One turn of the server `label`."""
        for name, value in rows.items():
            self._found.setdefault(name, {"etcd": [], "keyraft": []})[label].append(value)

    def show(self, heading: str = "") -> None:
        """Prints the table."""
        print(f"{heading:39} {original_name():>12} {'Keyraft':>12} {'ratio':>7}")
        for name, row in self._found.items():
            original, ours = (statistics.median(row[label]) for label in ("etcd", "keyraft"))
            print(f"{name:39} {original:12,.0f} {ours:12,.0f} {ours / original:7.2f}")
