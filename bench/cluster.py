"""Clusters by turns: three members of ours, three of the original, on this machine.

    python -m bench.cluster [--members 3] [--turns 3]

All load goes to the leader, as a client that knows it would send it. Ratios above 1 are in our
favour.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import grpc

from bench.loads import PUT, RANGE, h2load, put_request, range_request
from bench.medians import Medians
from bench.servers import ORIGINAL, OURS, SOURCE, free_port
from keyraft.proto import rpc_pb2

START_TIMEOUT_S: Final = 60.0
PUTS: Final = 30_000
RANGES: Final = 30_000
ALONE: Final = 1_000


class Members:
    """A running cluster; a context manager that ends it and removes its data."""

    def __init__(self, command: tuple[str, ...], count: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="keyraft-bench-"))
        ports = [(free_port(), free_port()) for _ in range(count)]
        initial = ",".join(f"m{n}=http://127.0.0.1:{peer}" for n, (_, peer) in enumerate(ports))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}
        environment["PYTHONPATH"] = SOURCE
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for number, (client, peer) in enumerate(ports):
            with (self._folder / f"log{number}").open("wb") as log:
                self.processes[f"127.0.0.1:{client}"] = subprocess.Popen(
                    [
                        *command,
                        f"--name=m{number}",
                        f"--data-dir={self._folder / f'm{number}'}",
                        f"--listen-client-urls=http://127.0.0.1:{client}",
                        f"--advertise-client-urls=http://127.0.0.1:{client}",
                        f"--listen-peer-urls=http://127.0.0.1:{peer}",
                        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                        f"--initial-cluster={initial}",
                        "--log-level=error",
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                )

    def leader(self) -> str:
        """The leader's endpoint, once every member names one."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            for endpoint in self.processes:
                try:
                    with grpc.insecure_channel(endpoint) as channel:
                        call = channel.unary_unary("/etcdserverpb.Maintenance/Status")
                        status = rpc_pb2.StatusResponse.FromString(
                            call(b"", timeout=START_TIMEOUT_S, wait_for_ready=True)
                        )
                except grpc.RpcError:
                    continue
                if status.leader and status.leader == status.header.member_id:
                    return endpoint
        raise TimeoutError("no leader")

    def pause_one(self, leader: str) -> int:
        """Stops a follower's process; its id, for SIGCONT."""
        process = next(p for endpoint, p in self.processes.items() if endpoint != leader)
        process.send_signal(signal.SIGSTOP)
        return process.pid

    def __enter__(self) -> Members:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def measure(command: tuple[str, ...], count: int) -> dict[str, float]:
    """One life of one cluster."""
    with Members(command, count) as members:
        leader = members.leader()
        put, get = put_request(256), range_request(serializable=False)
        h2load(leader, PUT, put, 2_000, 20, 50)
        rows = {
            "put, 20 x 50 (1/s)": h2load(leader, PUT, put, PUTS, 20, 50)[0],
            "linearizable range, 20 x 50 (1/s)": h2load(leader, RANGE, get, RANGES, 20, 50)[0],
            "one client's put (1/s)": h2load(leader, PUT, put, ALONE, 1, 1)[0],
        }
        if count > 2:
            paused = members.pause_one(leader)
            rows["put, a follower paused (1/s)"] = h2load(leader, PUT, put, PUTS, 20, 50)[0]
            os.kill(paused, signal.SIGCONT)
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    medians = Medians()
    for _ in range(options.turns):
        for label, command in (("etcd", ORIGINAL), ("keyraft", OURS)):
            medians.add(label, measure(command, options.members))
    medians.show(f"{options.members} members")


if __name__ == "__main__":
    main()
