"""`make bench`: every row of the table measured on both servers by turns, ratios printed.

A turn is one life of one server with fresh data; turns alternate, and a row is the median of its
turns, so that what else the machine does falls on both alike. Ratios above 1 are in our favour.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench.loads import PUT, RANGE, h2load, keyraft_bench, put_request, range_request
from bench.servers import ORIGINAL, OURS, Server, original_name

CONNECTIONS: Final = 20
STREAMS: Final = 50
VALUE_BYTES: Final = 256
BIG_KEYS: Final = 1_000_000


@dataclass
class Row:
    """One line of the table; `target` is the ratio that is asked for."""

    name: str
    unit: str
    higher_is_better: bool
    target: float
    values: dict[str, list[float]] = field(default_factory=lambda: {"etcd": [], "keyraft": []})

    @property
    def ratio(self) -> float:
        """Ours against the original's, above 1 when ours is better."""
        original, ours = (statistics.median(self.values[name]) for name in ("etcd", "keyraft"))
        return ours / original if self.higher_is_better else original / ours


class Table:
    """Rows in the order of their first measurement."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def add(
        self, server: Server, name: str, unit: str, value: float, higher: bool, target: float
    ) -> None:
        """One measurement."""
        row = self.rows.setdefault(name, Row(name, unit, higher, target))
        row.values[server.label].append(value)
        print(f"  {server.label:8} {name}: {value:,.3f} {unit}", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        lines = [
            f"{'':44} {original_name():>14} {'Keyraft':>14} {'ratio':>7} {'target':>7}",
        ]
        for row in self.rows.values():
            if not all(row.values.values()):
                continue
            original, ours = (statistics.median(row.values[n]) for n in ("etcd", "keyraft"))
            label = f"{row.name} ({row.unit})"
            met = "" if row.ratio >= row.target else "  missed"
            lines.append(
                f"{label:44} {original:>14,.3f} {ours:>14,.3f} {row.ratio:>7.2f} "
                f"{row.target:>7.2f}{met}"
            )
        return "\n".join(lines)


def throughput(server: Server, table: Table, scale: float) -> None:
    """Many clients on one key, and one client alone."""
    server.start()
    endpoint, put = server.endpoint, put_request(VALUE_BYTES)
    h2load(endpoint, PUT, put, int(5_000 * scale) + 1_000, CONNECTIONS, STREAMS)
    load = f"{CONNECTIONS}×{STREAMS}"
    rate, _ = h2load(endpoint, PUT, put, int(150_000 * scale), CONNECTIONS, STREAMS)
    table.add(server, f"put {VALUE_BYTES} B, {load}", "/s", rate, True, 1.5)
    for name, serializable in (("linearizable", False), ("serializable", True)):
        request = range_request(serializable)
        rate, _ = h2load(endpoint, RANGE, request, int(200_000 * scale), CONNECTIONS, STREAMS)
        table.add(server, f"range one key, {name}, {load}", "/s", rate, True, 1.5)
    _, latency = h2load(endpoint, PUT, put, int(3_000 * scale), 1, 1)
    table.add(server, "put, one client alone", "ms", latency * 1e3, False, 1 / 1.2)
    _, latency = h2load(endpoint, RANGE, range_request(False), int(6_000 * scale), 1, 1)
    table.add(server, "range, one client alone", "ms", latency * 1e3, False, 1 / 1.2)
    server.stop()


def big(server: Server, table: Table, scale: float) -> None:
    """Random puts over a million keys, memory, a restart on them, puts with them loaded."""
    server.start()
    keys = int(BIG_KEYS * scale)
    space = ("--key-size=16", f"--val-size={VALUE_BYTES}", f"--key-space-size={keys}")
    many = keyraft_bench(
        server.endpoint, "--conns=20", "--clients=1000", "put", f"--total={keys}", *space
    )
    table.add(server, f"put, {keys:,} over {keys:,} keys", "/s", many["rate"], True, 1.5)
    table.add(server, "resident memory then", "MiB", server.resident_mb(), False, 1 / 1.5)
    table.add(server, "on disk then", "MiB", server.disk_mb(), False, 0.0)
    few = keyraft_bench(
        server.endpoint, "--conns=4", "--clients=16", "put", f"--total={keys // 20}", *space
    )
    table.add(server, "put p50 then, 16 clients", "ms", few["50%"] * 1e3, False, 0.0)
    table.add(server, "put p99.9 then, 16 clients", "ms", few["99.9%"] * 1e3, False, 1.0)
    server.stop()
    table.add(server, "restart to first answer then", "s", server.start(), False, 1.0)
    server.stop()


def main() -> None:
    """Runs the turns and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--turns", type=int, default=3, help="lives of each server (default 3)")
    parser.add_argument("--big-turns", type=int, default=1, help="the same for the big data")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every count")
    parser.add_argument("--data-root", default=None, help="where the data goes")
    parser.add_argument("--only", choices=("etcd", "keyraft"), default=None)
    options = parser.parse_args()
    table = Table()
    parts: list[tuple[Callable[[Server, Table, float], None], int]] = [
        (throughput, options.turns),
        (big, options.big_turns),
    ]
    for part, turns in parts:
        for _ in range(turns):
            for label, command in (("etcd", ORIGINAL), ("keyraft", OURS)):
                if options.only not in (None, label):
                    continue
                with Server(label, command, options.data_root) as server:
                    part(server, table, options.scale)
    print(f"{platform.machine()}, Python {platform.python_version()}, load generator included")
    print(table)


if __name__ == "__main__":
    main()
