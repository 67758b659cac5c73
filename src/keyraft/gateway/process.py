"""The families process_*: this process as Linux sees it (`/proc`), named as Prometheus's clients do.

A value that cannot be read has no sample.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable

from keyraft.gateway.exposition import COUNTER, GAUGE, Family


class ProcessFamilies:
    """Reads the values at each scrape."""

    def __init__(self) -> None:
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._boot_unix_s = _boot_unix_s()

    def collect(self) -> Iterable[Family]:
        """The families now."""
        try:
            with open("/proc/self/stat", "rb") as file:
                # The fields behind the name, which may hold any characters: proc(5), from field 3
                # on.
                stat = file.read().rpartition(b")")[2].split()
            open_fds = len(os.listdir("/proc/self/fd"))
        except OSError:
            return
        ticks = self._ticks_per_s
        yield _gauge("virtual_memory_bytes", "Virtual memory size in bytes.", int(stat[20]))
        yield _gauge(
            "resident_memory_bytes",
            "Resident memory size in bytes.",
            int(stat[21]) * self._page_bytes,
        )
        yield _gauge(
            "start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            int(stat[19]) / ticks + self._boot_unix_s,
        )
        yield Family(
            "process_cpu_seconds_total", COUNTER, "Total user and system CPU time spent in seconds."
        ).add((int(stat[11]) + int(stat[12])) / ticks)
        yield _gauge("open_fds", "Number of open file descriptors.", open_fds)
        fds_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield _gauge("max_fds", "Maximum number of open file descriptors.", fds_max)


def _gauge(name: str, text: str, value: float) -> Family:
    return Family(f"process_{name}", GAUGE, text).add(value)


def _boot_unix_s() -> float:
    try:
        with open("/proc/stat", "rb") as file:
            for line in file:
                if line.startswith(b"btime "):
                    return float(line.split()[1])
    except OSError:
        pass
    return 0.0
