"""check perf and check datascale, with the original's loads and limits."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from keyraft.base.gotext import quote
from keyraft.cli.ctl.context import FOREVER_S, Context, error_text
from keyraft.cli.ctl.exits import BAD_FEATURE, ERROR, INVALID_INPUT, Exit
from keyraft.cli.ctl.gofmt import raw
from keyraft.cli.ctl.printers.base import line

if TYPE_CHECKING:
    from keyraft.client import Client

PERF_S: Final = 60
PERF_KEY_BYTES: Final = 256
PERF_VALUE_BYTES: Final = 1024
SCALE_KEY_BYTES: Final = 512
SCALE_VALUE_BYTES: Final = 512
SLOWEST_S_MAX: Final = 0.5
STDDEV_S_MAX: Final = 0.1
RATE_SHARE_MIN: Final = 0.9
CLEANUP_S: Final = 30.0
CONNECTIONS_MAX: Final = 50  # the original opens one for each client; so many are enough
MEMORY: Final = "process_resident_memory_bytes"

_NAMES: Final = {
    "s": "s",
    "small": "s",
    "m": "m",
    "medium": "m",
    "l": "l",
    "large": "l",
    "xl": "xl",
    "xLarge": "xl",
}
# load: (clients, puts per second that it asks for)
_PERF: Final = {"s": (50, 150), "m": (200, 1_000), "l": (500, 8_000), "xl": (1_000, 15_000)}
# load: (clients, keys)
_SCALE: Final = {
    "s": (50, 10_000),
    "m": (200, 100_000),
    "l": (500, 1_000_000),
    "xl": (1_000, 3_000_000),
}


class Report:
    """Times and errors of many requests; times in seconds."""

    def __init__(self) -> None:
        self.count = 0
        self.errors: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._sum = 0.0
        self._squares = 0.0

    async def measure(self, call: Awaitable[object]) -> None:
        """Carries out one request."""
        from keyraft.client.errors import EtcdError, RawError

        started = time.monotonic()
        try:
            await call
        except (EtcdError, RawError) as error:
            self.errors[error_text(error)] += 1
            return
        took_s = time.monotonic() - started
        self.count += 1
        self._sum += took_s
        self._squares += took_s * took_s
        self.slowest_s = max(self.slowest_s, took_s)

    @property
    def stddev_s(self) -> float:
        """The standard deviation of the times."""
        if not self.count:
            return 0.0
        mean = self._sum / self.count
        return math.sqrt(max(self._squares / self.count - mean * mean, 0.0))


class Bar:
    """A progress bar on standard error, when that is a terminal."""

    WIDTH: Final = 40

    def __init__(self, total: int) -> None:
        self._total = total
        self._on = sys.stderr.isatty()
        self._drawn = -1

    def show(self, done: int) -> None:
        """Draws the bar if it has changed."""
        filled = min(done * self.WIDTH // self._total, self.WIDTH)
        if self._on and filled != self._drawn:
            self._drawn = filled
            bar = "=" * filled + " " * (self.WIDTH - filled)
            sys.stderr.write(f"\r[{bar}] {done}/{self._total}")
            sys.stderr.flush()

    def end(self) -> None:
        """Goes on to the next line."""
        if self._on:
            sys.stderr.write("\n")


def _load(context: Context) -> str:
    name = _NAMES.get(context["load"])
    if name is None:
        raise Exit(BAD_FEATURE, f"unknown load option {context['load']}")
    return name


async def _must_be_empty(client: Client, prefix: bytes, quoted_command: bool) -> None:
    found = await client.get(prefix, prefix=True, limit=1, timeout_s=FOREVER_S)
    if found.kvs:
        text = prefix.decode("utf-8", "surrogateescape")
        command = f"etcdctl del --prefix {text}"
        shown = f"'{command}'" if quoted_command else command
        raise Exit(INVALID_INPUT, f"prefix {quote(prefix)} has keys. Delete with {shown} first")


def _key(prefix: bytes, size: int) -> bytes:
    return prefix + os.urandom(8).hex().encode().ljust(size, b"\0")


async def _tidy(context: Context, client: Client, prefix: bytes) -> None:
    """Deletes the keys; compacts and defragments if asked."""
    from keyraft.client.errors import EtcdError, RawError

    try:
        gone = await client.delete(prefix, prefix=True, timeout_s=CLEANUP_S)
    except (EtcdError, RawError) as error:
        line(f"FAIL: Cleanup failed during key deletion: ERROR({error_text(error)})")
        return
    if context["auto-compact"]:
        revision = gone.header.revision
        line(f"Compacting with revision {revision}")
        await client.compact(revision, physical=True, timeout_s=CLEANUP_S)
        line(f"Compacted with revision {revision}")
    if context["auto-defrag"]:
        for endpoint in client.endpoints:
            line(f"Defragmenting {quote(endpoint)}")
            await client.maintenance.defragment(endpoint, timeout_s=CLEANUP_S)
            line(f"Defragmented {quote(endpoint)}")


@asynccontextmanager
async def _clients(context: Context, workers: int) -> AsyncIterator[list[Client]]:
    """A connection for each worker, up to CONNECTIONS_MAX."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(context.client())
            for _ in range(min(workers, CONNECTIONS_MAX))
        ]


async def _puts(
    clients: list[Client],
    report: Report,
    workers: int,
    key: Callable[[], bytes | None],
    value: bytes,
) -> None:
    """`workers` tasks put the keys that `key` returns until it returns None."""

    async def work(client: Client) -> None:
        while (next_key := key()) is not None:
            await report.measure(client.put(next_key, value, timeout_s=FOREVER_S))

    await asyncio.gather(*(work(clients[number % len(clients)]) for number in range(workers)))


async def perf(context: Context) -> None:
    """Puts at the load's rate for a minute and judges rate, slowest request and deviation."""
    workers, rate = _PERF[_load(context)]
    prefix = raw(context["prefix"])
    report = Report()
    async with _clients(context, workers) as clients:
        await _must_be_empty(clients[0], prefix, True)
        took_s = await _paced(clients, report, workers, rate, prefix)
        await _tidy(context, clients[0], prefix)
    if not _judged(report, rate, took_s):
        line("FAIL")
        raise Exit(ERROR)
    line("PASS")


async def _paced(
    clients: list[Client], report: Report, workers: int, rate: int, prefix: bytes
) -> float:
    """Puts `rate` keys a second, at most `workers` at once; returns the seconds that it took."""
    value = bytes(PERF_VALUE_BYTES)
    loop = asyncio.get_running_loop()
    started = loop.time()
    bar = Bar(PERF_S)
    under_way: set[asyncio.Task[None]] = set()
    sent = 0
    while (now_s := loop.time() - started) < PERF_S:
        bar.show(int(now_s))
        due = min(int(now_s * rate) + 1 - sent, workers - len(under_way))
        for _ in range(due):
            client = clients[sent % len(clients)]
            put = client.put(_key(prefix, PERF_KEY_BYTES), value, timeout_s=FOREVER_S)
            task = asyncio.ensure_future(report.measure(put))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            sent += 1
        await asyncio.sleep(max((sent / rate) - (loop.time() - started), 0.0005))
    await asyncio.gather(*under_way)
    bar.end()
    return loop.time() - started


def _judged(report: Report, rate: int, took_s: float) -> bool:
    """Prints the verdicts; whether all are good."""
    good = True
    if report.errors:
        line("FAIL: too many errors")
        for text, count in report.errors.items():
            line(f"FAIL: ERROR({text}) -> {count}")
        good = False
    reached = report.count / took_s
    if reached / rate <= RATE_SHARE_MIN:
        line(f"FAIL: Throughput too low: {int(reached) + 1} writes/s")
        good = False
    else:
        line(f"PASS: Throughput is {int(reached) + 1} writes/s")
    if report.slowest_s > SLOWEST_S_MAX:
        line(f"Slowest request took too long: {report.slowest_s:f}s")
        good = False
    else:
        line(f"PASS: Slowest request took {report.slowest_s:f}s")
    if report.stddev_s > STDDEV_S_MAX:
        line(f"Stddev too high: {report.stddev_s:f}s")
        good = False
    else:
        line(f"PASS: Stddev is {report.stddev_s:f}s")
    return good


async def datascale(context: Context) -> None:
    """Puts many keys and shows by how much the first endpoint's memory grows."""
    workers, keys = _SCALE[_load(context)]
    prefix = raw(context["prefix"])
    report = Report()
    async with _clients(context, workers) as clients:
        await _must_be_empty(clients[0], prefix, False)
        before = await _memory(context, "before")
        size = SCALE_KEY_BYTES + SCALE_VALUE_BYTES
        line(
            f"Start data scale check for work load [{keys} key-value pairs, {size} bytes per "
            f"key-value, {workers} concurrent clients]."
        )
        bar = Bar(keys)
        left = keys

        def key() -> bytes | None:
            nonlocal left
            left -= 1
            bar.show(keys - left)
            return _key(prefix, SCALE_KEY_BYTES) if left >= 0 else None

        await _puts(clients, report, workers, key, bytes(SCALE_VALUE_BYTES))
        bar.end()
        after = await _memory(context, "after")
        await _tidy(context, clients[0], prefix)
    if report.errors:
        line("FAIL: too many errors")
        for text, count in report.errors.items():
            line(f"FAIL: ERROR({text}) -> {count}")
        raise Exit(ERROR)
    line(f"PASS: Approximate system memory used : {(after - before) / (1024 * 1024):.2f} MB.")


async def _memory(context: Context, when: str) -> float:
    """The first endpoint's resident memory in bytes, from its metrics."""
    import urllib.request

    endpoint = context.endpoints[0]
    if not endpoint.startswith(("http://", "https://")):
        endpoint = "http://" + endpoint
    tls = context.tls()
    found = 0.0

    def fetch() -> bytes:
        secure = tls.context() if tls is not None and endpoint.startswith("https") else None
        if secure is not None:
            secure.set_alpn_protocols(["http/1.1"])
        with urllib.request.urlopen(endpoint + "/metrics", context=secure, timeout=10) as page:
            text: bytes = page.read()
            return text

    try:
        text = await asyncio.to_thread(fetch)
    except OSError as error:
        line(f"fetch error: {error}")
    else:
        for row in text.decode("utf-8", "replace").splitlines():
            if row.startswith(MEMORY + " "):
                found = float(row.split()[1])
    if not found:
        line(f"FAIL: Could not read {MEMORY} {when} the put operations.")
        raise Exit(ERROR)
    return found
