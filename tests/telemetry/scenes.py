"""Faults of real members, for the alerts to tell of."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from keyraft.proto import rpc_pb2
from tests.support.server import Server

TRIES: Final = 6_000
STALLING: Final = str(Path(__file__).resolve().parents[1] / "support" / "stalling.py")


def page(server: Server, path: str = "metrics") -> str | None:
    """What a path gives, refusals included; None of a member that does not answer."""
    try:
        with urllib.request.urlopen(f"http://{server.endpoint}/{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as refusal:
        return str(refusal.read().decode())
    except OSError:
        return None


def value(server: Server, series: str) -> float:
    """A sample, or the sum of those whose names begin so."""
    found = re.findall(rf"^{re.escape(series)}\S* (\S+)$", page(server) or "", re.M)
    return sum(map(float, found))


def until(fact: Callable[[], object], what: str) -> None:
    """Asks again and again."""
    for _ in range(TRIES):
        if fact():
            return
        time.sleep(0.01)  # the member has work to do, too
    raise AssertionError(what)


class Caller:
    """Calls of one member, over one connection."""

    def __init__(self, server: Server) -> None:
        self.channel = grpc.insecure_channel(server.endpoint)

    def begin(self, path: str, request: Any, timeout: float | None = None) -> Any:
        """The call under way."""
        call = self.channel.unary_unary(path)
        return call.future(request.SerializeToString(), timeout=timeout, wait_for_ready=True)

    def put(self, key: bytes, value: bytes = b"v", timeout: float | None = None) -> Any:
        return self.begin("/etcdserverpb.KV/Put", rpc_pb2.PutRequest(key=key, value=value), timeout)

    def get(self, key: bytes, timeout: float | None = None) -> Any:
        return self.begin("/etcdserverpb.KV/Range", rpc_pb2.RangeRequest(key=key), timeout)

    def compact(self) -> None:
        """At the present revision, physically."""
        header = rpc_pb2.RangeResponse.FromString(self.get(b"k").result()).header
        request = rpc_pb2.CompactionRequest(revision=header.revision, physical=True)
        self.begin("/etcdserverpb.KV/Compact", request).result()

    def alarm(self, action: int, member_id: int, alarm: int) -> None:
        request = rpc_pb2.AlarmRequest(action=action, memberID=member_id, alarm=alarm)
        self.begin("/etcdserverpb.Maintenance/Alarm", request).result()

    def move_leader(self, target: int) -> None:
        request = rpc_pb2.MoveLeaderRequest(targetID=target)
        self.begin("/etcdserverpb.Maintenance/MoveLeader", request).result()


@contextmanager
def held(gate: Path) -> Iterator[None]:
    """The disk behind the gate stalls."""
    with open(gate, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def stopped(pids: list[int], at_least_s: float = 0.0) -> Iterator[None]:
    """These processes stand still; not for less time than is given."""
    began_s = time.monotonic()
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
        time.sleep(max(0.0, began_s + at_least_s - time.monotonic()))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def children(server: Server) -> list[int]:
    """The processes that a member has started."""
    assert server.process is not None
    pid = server.process.pid
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        found += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    return [int(child) for child in found]
