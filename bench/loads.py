"""The loads: h2load for one request over and over, `keyraft bench` where keys must differ."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.servers import ROOT
from keyraft.proto import rpc_pb2

RUN_TIMEOUT_S: Final = 900.0

PUT: Final = "/etcdserverpb.KV/Put"
RANGE: Final = "/etcdserverpb.KV/Range"


def h2load(
    endpoint: str,
    method: str,
    request: bytes,
    total: int,
    connections: int,
    streams: int,
    token: str = "",
) -> tuple[float, float]:
    """Requests a second, and the mean latency in seconds; `token` is shown with each."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(struct.pack(">BI", 0, len(request)) + request)
        body.flush()
        done = subprocess.run(
            [
                "h2load",
                f"-n{total}",
                f"-c{connections}",
                f"-m{streams}",
                "-t1",
                f"-d{body.name}",
                "-Hcontent-type: application/grpc",
                "-Hte: trailers",
                *([f"-Htoken: {token}"] if token else []),
                f"http://{endpoint}{method}",
            ],
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=True,
        )
    rate = re.search(r"([0-9.]+) req/s", done.stdout)
    succeeded = re.search(r"([0-9]+) succeeded", done.stdout)
    latency = re.search(r"time for request: +\S+ +\S+ +([0-9.]+)(us|ms|s)", done.stdout)
    assert rate and succeeded and latency, done.stdout
    assert int(succeeded[1]) == total, done.stdout
    scale = {"us": 1e-6, "ms": 1e-3, "s": 1.0}[latency[2]]
    return float(rate[1]), float(latency[1]) * scale


def keyraft_bench(endpoint: str, *words: str) -> dict[str, float]:
    """`rate` a second, `average` and percentiles ("99.9%") in seconds, of one run."""
    before = [word for word in words if word.startswith(("--conns", "--clients"))]
    after = [word for word in words if word not in before]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "keyraft.cli.keyraft",
            "bench",
            f"--endpoints={endpoint}",
            *before,
            *after,
        ],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": str(Path(sys.executable).parent)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {"rate": float(re.search(r"Requests/sec:\t([0-9.]+)", done.stdout)[1])}  # type: ignore[index]
    found["average"] = float(re.search(r"Average:\t([0-9.]+)", done.stdout)[1])  # type: ignore[index]
    for percent, seconds in re.findall(r"([0-9.]+%) in ([0-9.]+) secs", done.stdout):
        found[percent] = float(seconds)
    return found


def put_request(size: int) -> bytes:
    """A put of a value of `size` bytes under one key."""
    return rpc_pb2.PutRequest(key=b"benchmark", value=b"v" * size).SerializeToString()


def range_request(serializable: bool) -> bytes:
    """A range of the key that `put_request` writes."""
    return rpc_pb2.RangeRequest(key=b"benchmark", serializable=serializable).SerializeToString()
