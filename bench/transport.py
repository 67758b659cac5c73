"""The transport alone: an echo handler behind `net`, with h2load as the load.

    PYTHONPATH=src python -m bench.transport            server, load and table
    PYTHONPATH=src python -m bench.transport serve PORT the server only
    PYTHONPATH=src python -m bench.transport machine    no socket: microseconds per request

h2load sends 20 connections × 50 streams, one request message each. CPU seconds are the server's
own, so that the last column means one core also when the load generator shares it.
"""

from __future__ import annotations

import asyncio
import gc
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from keyraft.grpc import PREFACE, ClientConnection, Limits, Router, ServerConnection
from keyraft.net import serve

CONNECTIONS, STREAMS, REQUESTS = 20, 50, 400_000
SIZES = (0, 280)


def router() -> Router:
    """/b.B/Echo answers at once, /b.B/Later in the next turn of the loop, as a Put does."""
    made = Router()
    held: list[tuple[object, bytes]] = []

    def answer() -> None:
        batch = held[:]
        held.clear()
        for call, request in batch:
            call.respond(request)  # type: ignore[attr-defined]

    def later(call: object, request: bytes) -> None:
        if not held:
            asyncio.get_running_loop().call_soon(answer)
        held.append((call, request))

    made.unary("/b.B/Echo", lambda call, request: request)
    made.unary("/b.B/Later", later)
    return made


def serve_forever(port: int) -> None:
    """Prints the CPU seconds used so far for every line read from its input."""

    gc.freeze()
    gc.set_threshold(50_000)  # as a member does

    async def main() -> None:
        server = await serve([f"http://127.0.0.1:{port}"], router())
        print(server.addresses[0], flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            used = resource.getrusage(resource.RUSAGE_SELF)
            print(used.ru_utime + used.ru_stime, used.ru_maxrss, flush=True)
        await server.stop()

    uvloop.run(main())


def load(address: str, path: str, size: int) -> float:
    """Requests per second that h2load reports."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + size.to_bytes(4, "big") + b"x" * size)
        body.flush()
        command = [
            "h2load", "-n", str(REQUESTS), "-c", str(CONNECTIONS), "-m", str(STREAMS), "-t", "1",
            "-d", body.name, "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"http://{address}{path}",
        ]  # fmt: skip
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{REQUESTS} succeeded" in out, out
    found = re.search(r"([\d.]+) req/s", out)
    assert found is not None, out
    return float(found[1])


def table() -> None:
    """Starts the server and measures every row."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.transport", "serve", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert process.stdin is not None and process.stdout is not None

    def used() -> tuple[float, int]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        cpu, resident = process.stdout.readline().split()
        return float(cpu), int(resident)

    try:
        address = process.stdout.readline().strip()
        print(
            f"{'method':8}{'bytes':>7}{'req/s':>10}{'cpu us/req':>12}{'req/s a core':>14}{'KiB':>9}"
        )
        for path in ("/b.B/Echo", "/b.B/Later"):
            for size in SIZES:
                before, _ = used()
                rate = load(address, path, size)
                after, resident = used()
                cost = (after - before) / REQUESTS
                print(
                    f"{path[5:]:8}{size:7}{rate:10,.0f}{cost * 1e6:12.2f}{1 / cost:14,.0f}{resident:9,}"
                )
    finally:
        process.stdin.close()
        process.wait(20)


def heads_first(data: bytes) -> bytes:
    """The same frames with all HEADERS before all DATA, the order in which nghttp2 sends."""
    heads: list[bytes] = []
    rest: list[bytes] = []
    pos = 0
    while pos < len(data):
        stop = pos + 9 + int.from_bytes(data[pos : pos + 3], "big")
        (heads if data[pos + 3] == 1 else rest).append(data[pos:stop])
        pos = stop
    return b"".join(heads + rest)


def machine() -> None:
    """The sans-IO half: the fifth percentile over reads of 50 requests."""
    rows = (
        ("plain", 0, None),
        ("plain", 280, None),
        ("heads first", 280, None),
        ("timeout", 280, 5.0),
    )
    for name, size, timeout_s in rows:
        server = ServerConnection(router(), Limits(), 0.0)
        client = ClientConnection(Limits(), 0.0, authority="here")
        client.take_output()
        server.receive(PREFACE + b"\0\0\x06\x04\0\0\0\0\0\0\4\x7f\xff\xff\xff", 0.0)
        server.take_output()
        client.receive(b"\0\0\0\x04\0\0\0\0\0", 0.0)
        ours, theirs = [], []
        for round_ in range(1200):
            start = time.perf_counter()
            for i in range(50):
                left = timeout_s and 3 + (i * 50 + round_) * 1e-6
                client.unary(
                    b"/b.B/Echo", b"x" * size, lambda *end: None, float(round_), timeout_s=left
                )
            data = client.take_output()
            called = time.perf_counter() - start
            if name == "heads first":
                data = heads_first(data)
            server.send_window = client.send_window = 1 << 30
            start = time.perf_counter()
            server.receive(data, 0.0)
            answers = server.take_output()
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            client.receive(answers, 0.0)
            theirs.append(time.perf_counter() - start + called)
        a, b = sorted(ours)[60] / 50 * 1e6, sorted(theirs)[60] / 50 * 1e6
        print(f"{name:12}{size:5} bytes: server {a:6.2f}, client {b:6.2f} us a request")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve_forever(int(sys.argv[2]))
    elif sys.argv[1:2] == ["machine"]:
        machine()
    else:
        table()
