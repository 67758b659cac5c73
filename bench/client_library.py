"""`python -m bench.client_library`: `keyraft.client` and the `etcd3` package by turns.

Both drive the same original server with as many calls at once as they take well: ours with
coroutines, etcd3 (on grpcio) with threads. A row has calls a second and the client's own processor
time for a call; the second does not depend on what else the machine does. etcd3 is installed into
an environment of its own, which is kept in `.cache`.
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
AT_ONCE: Final = 64
THREADS: Final = 32
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


def etcd3_turn(port: int) -> list[tuple[float, float]]:
    """[(calls a second, processor seconds a call)] of put and get."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        packages = ["etcd3==0.12.0", "protobuf<3.21"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    done = subprocess.run(
        [str(python), "-c", ETCD3, str(port), str(CALLS_ETCD3), str(THREADS)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    return [(float(rate), float(used)) for rate, used in rows]


async def our_turn(endpoint: str) -> list[tuple[float, float]]:
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
            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
            rate = CALLS / (time.perf_counter() - began)
            rows.append((rate, (time.process_time() - used) / CALLS))
    return rows


def main() -> None:
    """Measures and prints the medians and their ratios."""
    turns: dict[str, list[list[tuple[float, float]]]] = {"etcd3": [], "keyraft": []}
    with Server("etcd", ORIGINAL, None) as server:
        server.start()
        for _ in range(TURNS):
            turns["etcd3"].append(etcd3_turn(server.client_port))
            turns["keyraft"].append(asyncio.run(our_turn(server.endpoint)))
    for column, name in enumerate(("put", "get")):
        rate, used = (
            {
                label: statistics.median(turn[column][what] for turn in found)
                for label, found in turns.items()
            }
            for what in (0, 1)
        )
        print(
            f"{name}: etcd3 {rate['etcd3']:,.0f}/s, {used['etcd3'] * 1e6:.0f} µs a call; "
            f"keyraft {rate['keyraft']:,.0f}/s, {used['keyraft'] * 1e6:.0f} µs a call; "
            f"ratio {rate['keyraft'] / rate['etcd3']:.1f} in calls, "
            f"{used['etcd3'] / used['keyraft']:.1f} in processor time"
        )


if __name__ == "__main__":
    main()
