"""The families process_*: this process as Linux sees it (`/proc`), named as Prometheus's clients do.

A value that cannot be read has no sample.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
from collections.abc import Iterable, Iterator

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
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        yield _gauge(
            "virtual_memory_max_bytes",
            "Maximum amount of virtual memory available in bytes.",
            2.0**64 if limit == resource.RLIM_INFINITY else limit,
        )
        for name, value in _traffic():
            yield Family(
                f"process_network_{name}_bytes_total", COUNTER, f"Bytes that this host {name}s."
            ).add(value)
        yield from _interpreter()
        yield _gauge("open_fds", "Number of open file descriptors.", open_fds)
        fds_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield _gauge("max_fds", "Maximum number of open file descriptors.", fds_max)


def _gauge(name: str, text: str, value: float) -> Family:
    return Family(f"process_{name}", GAUGE, text).add(value)


def _interpreter() -> Iterator[Family]:
    """What Prometheus's client for Python tells of the interpreter."""
    import platform  # a start does without

    version = sys.version_info
    yield Family("python_info", GAUGE, "Which Python this is.").add(
        1,
        implementation=platform.python_implementation(),
        major=str(version.major),
        minor=str(version.minor),
        patchlevel=str(version.micro),
        version=platform.python_version(),
    )
    for name, key, text in (
        ("objects_collected", "collected", "Objects that the garbage collector freed."),
        ("objects_uncollectable", "uncollectable", "Objects that it could not free."),
        ("collections", "collections", "How often it ran."),
    ):
        family = Family(f"python_gc_{name}_total", COUNTER, text)
        for generation, found in enumerate(gc.get_stats()):
            family.add(found[key], generation=str(generation))
        yield family


def _traffic() -> Iterator[tuple[str, int]]:
    """What all processes of this network namespace received and sent, as Prometheus's Go client
    counts it: `/proc/self/net/netstat`, IpExt."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/net/netstat") as file:
        lines = [line.split() for line in file if line.startswith("IpExt:")]
        found = dict(zip(*lines, strict=True)) if len(lines) == 2 else {}
        for name, field in (("receive", "InOctets"), ("transmit", "OutOctets")):
            if field in found:
                yield name, int(found[field])


def _boot_unix_s() -> float:
    try:
        with open("/proc/stat", "rb") as file:
            for line in file:
                if line.startswith(b"btime "):
                    return float(line.split()[1])
    except OSError:
        pass
    return 0.0
