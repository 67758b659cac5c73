"""`python -m bench.client_library`: `keyraft.client` and the `etcd3` package by turns.

Both drive the same original server with several numbers of calls at once, ours with coroutines,
etcd3 (on grpcio) with threads, and the best of each counts. A row has calls a second and the
client's own processor time for a call; the second does not depend on what else the machine does.
With two cores the server is soon the limit of calls a second: what it needs for a put is more than
what the client does. etcd3 is installed into an environment of its own, which is kept in `.cache`.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from typing import Final

from bench.servers import ORIGINAL, ROOT, Server
from keyraft.client import Client

TURNS: Final = 3
AT_ONCE: Final = (32, 128, 512)
THREADS: Final = (4, 16, 64)
CALLS: Final = 10_000
CALLS_ETCD3: Final = 2_000
VALUE: Final = b"v" * 64
ENVIRONMENT: Final = ROOT / ".cache" / "etcd3"

ETCD3: Final = """
import sys, threading, time, etcd3
port, calls, threads = map(int, sys.argv[1:])
client = etcd3.client(host="127.0.0.1", port=port)
client.put("bench/x", b"v" * 64)

def put(number):
    client.put("bench/%d" % (number % 1000), b"v" * 64)

def get(number):
    client.get("bench/x")

for call in (put, get):
    def work():
        for number in range(calls // threads):
            call(number)
    began, used = time.perf_counter(), time.process_time()
    group = [threading.Thread(target=work) for _ in range(threads)]
    for thread in group:
        thread.start()
    for thread in group:
        thread.join()
    print(calls / (time.perf_counter() - began), (time.process_time() - used) / calls)
"""


def etcd3_turn(port: int, threads: int) -> list[tuple[float, float]]:
    """[(calls a second, processor seconds a call)] of put and get."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        packages = ["etcd3==0.12.0", "protobuf<3.21"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    done = subprocess.run(
        [str(python), "-c", ETCD3, str(port), str(CALLS_ETCD3), str(threads)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    return [(float(rate), float(used)) for rate, used in rows]


async def our_turn(endpoint: str, at_once: int) -> list[tuple[float, float]]:
    """The same of ours."""
    rows = []
    async with Client(endpoint) as client:
        await client.put("bench/x", VALUE)
        for name in ("put", "get"):
            numbers = iter(range(CALLS))

            async def work(name: str = name, numbers: object = numbers) -> None:
                for number in numbers:  # type: ignore[attr-defined]  # shared by the workers
                    if name == "put":
                        await client.put(b"bench/%d" % (number % 1000), VALUE)
                    else:
                        await client.get("bench/x")

            began, used = time.perf_counter(), time.process_time()
            await asyncio.gather(*(work() for _ in range(at_once)))
            rate = CALLS / (time.perf_counter() - began)
            rows.append((rate, (time.process_time() - used) / CALLS))
    return rows


Rows = dict[int, list[list[tuple[float, float]]]]
"""Calls at once -> turns of [(calls a second, processor seconds a call)] of put and get."""


def best(rows: Rows, column: int) -> tuple[int, float, float]:
    """The number of calls at once that does most, its rate and processor time: medians."""
    found = []
    for at_once, turns in rows.items():
        rate, used = (statistics.median(turn[column][n] for turn in turns) for n in (0, 1))
        found.append((at_once, rate, used))
    return max(found, key=lambda each: each[1])


def main() -> None:
    """Measures and prints the best of each side, and the ratios."""
    theirs: Rows = {number: [] for number in THREADS}
    ours: Rows = {number: [] for number in AT_ONCE}
    with Server("etcd", ORIGINAL, None) as server:
        server.start()
        for _ in range(TURNS):
            for threads, at_once in zip(THREADS, AT_ONCE):
                theirs[threads].append(etcd3_turn(server.client_port, threads))
                ours[at_once].append(asyncio.run(our_turn(server.endpoint, at_once)))
    for column, name in enumerate(("put", "get")):
        threads, their_rate, their_used = best(theirs, column)
        at_once, our_rate, our_used = best(ours, column)
        print(
            f"{name}: etcd3 {their_rate:,.0f}/s with {threads} threads, "
            f"{their_used * 1e6:.0f} µs a call; "
            f"keyraft {our_rate:,.0f}/s with {at_once} at once, {our_used * 1e6:.0f} µs a call; "
            f"ratio {our_rate / their_rate:.1f} in calls, "
            f"{their_used / our_used:.1f} in processor time"
        )


if __name__ == "__main__":
    main()
