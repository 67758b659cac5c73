"""kill -9 under load, torn and flipped logs, a full disk: nothing acknowledged is ever lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import pytest

from keyraft.proto import rpc_pb2
from tests.crash.damage import flip, frames, last_segment, tear
from tests.crash.load import Load
from tests.support.server import OURS, Server

ROUNDS_FAST = 5
ROUNDS_SOAK = 200
WRITERS = 24
DISK_BYTES = 256 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    member = Server(OURS, tmp_path / "data", flags=["--snapshot-count=500"])
    yield member
    member.kill()


def crash_rounds(server: Server, rounds: int, seed: int) -> Load:
    """So many lives, each ended by kill -9 with requests under way."""
    load = Load(seed, WRITERS)
    chance = Random(seed)
    for _ in range(rounds):
        server.start()
        load.check(server.endpoint)
        load.run(server.endpoint, chance.choice((1, 30, 300, chance.randrange(3000))), server.kill)
    server.start()
    load.check(server.endpoint)
    assert server.stop() in (0, -15)
    return load


@pytest.mark.real
def test_kill_9_loses_nothing_acknowledged(server: Server) -> None:
    load = crash_rounds(server, ROUNDS_FAST, seed=7)
    assert load.acknowledged > ROUNDS_FAST


@pytest.mark.soak
def test_kill_9_two_hundred_times(server: Server) -> None:
    load = crash_rounds(server, ROUNDS_SOAK, seed=11)
    print(f"{load.acknowledged} acknowledged writes in {ROUNDS_SOAK} lives")


@pytest.fixture
def written(server: Server) -> tuple[Server, Load]:
    """A member that was killed after some load."""
    load = Load(3, 8)
    server.start()
    load.run(server.endpoint, 400, server.kill)
    server.start()
    load.check(server.endpoint)
    server.kill()
    return server, load


@pytest.mark.real
@pytest.mark.parametrize("keep_bytes", [1, 7, 8, 9, 100, 600, 1500])
def test_a_torn_write_behind_the_log_is_cut_off(
    written: tuple[Server, Load], keep_bytes: int
) -> None:
    server, load = written
    tear(last_segment(server.data_dir), keep_bytes)
    server.start()
    load.check(server.endpoint)


@pytest.mark.real
def test_a_flipped_bit_inside_the_log_stops_the_member_with_one_line(
    written: tuple[Server, Load],
) -> None:
    server, _ = written
    segment = last_segment(server.data_dir)
    spans = frames(segment)
    start, end = spans[len(spans) // 2]
    flip(segment, (start + end) // 2)
    before = len(server.lines)
    server.spawn()
    assert server.wait() == 1
    said = b"".join(server.lines[before:]).decode()
    assert "crc mismatch" in said or "unmarshal" in said, said
    assert "Traceback" not in said, said


@pytest.mark.real
def test_a_damaged_log_never_yields_a_wrong_answer(
    written: tuple[Server, Load], tmp_path: Path
) -> None:
    """Whatever byte is hit: the member refuses, or it has everything that was acknowledged."""
    server, load = written
    chance = Random(5)
    whole = tmp_path / "whole"
    shutil.copytree(server.data_dir, whole)
    for _ in range(4):
        shutil.rmtree(server.data_dir)
        shutil.copytree(whole, server.data_dir)
        segment = last_segment(server.data_dir)
        flip(segment, chance.randrange(frames(segment)[-1][1]), 1 << chance.randrange(8))
        server.spawn()
        if server.wait_ready():
            load.check(server.endpoint)
        server.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can be filled."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def until(what: str, true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline_s, f"{what} never came"
        time.sleep(0.05)


def fill(disk: Path) -> Path:
    """Takes all of a file system's room; the file that has it."""
    ballast = disk / "ballast"
    # Without a buffer, whose rest would be written, in vain, when the file is closed.
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return ballast


def health(server: Server) -> dict[str, str]:
    try:
        with urlopen(f"http://{server.endpoint}/health", timeout=30) as answer:
            told: dict[str, str] = json.load(answer)
    except HTTPError as error:
        told = json.load(error)
    return told


def refused(server: Server) -> str:
    """What a client that writes is told; "" when it is not refused."""
    try:
        with grpc.insecure_channel(server.endpoint) as channel:
            put = channel.unary_unary("/etcdserverpb.KV/Put")
            put(rpc_pb2.PutRequest(key=b"asked").SerializeToString(), timeout=30)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return ""


FULL = "RESOURCE_EXHAUSTED: etcdserver: mvcc: database space exceeded"


@pytest.mark.real
def test_a_full_disk_ends_no_member_and_loses_nothing(small_disk: Path) -> None:
    """Under load, over kill -9, until there is room again, which the member notices by itself."""
    server = Server(OURS, small_disk / "data", flags=["--snapshot-count=500"]).start()
    load = Load(9, 8)
    try:
        load.run(server.endpoint, 300, lambda: None)
        for _ in range(2):
            ballast = fill(small_disk)
            load.run(server.endpoint, 1_000_000, lambda: None)  # until it is refused
            until("a refusal", lambda: refused(server) == FULL)
            assert health(server) == {"health": "false", "reason": "ALARM NOSPACE"}
            load.check(server.endpoint)
            server.kill()
            server.start()
            load.check(server.endpoint)
            until("a refusal after the start", lambda: refused(server) == FULL)
            ballast.unlink()
            until("an accepted write", lambda: not refused(server))
            assert health(server)["health"] == "true"
            load.run(server.endpoint, 100, lambda: None)
            load.check(server.endpoint)
        assert server.stop() in (0, -15)
        assert "Traceback" not in server.log
    finally:
        server.kill()


@pytest.mark.real
def test_a_member_that_stops_on_a_full_disk_stops_in_time(small_disk: Path) -> None:
    server = Server(OURS, small_disk / "data").start()
    load = Load(10, 8)
    try:
        fill(small_disk)
        load.run(server.endpoint, 1_000_000, lambda: None)
        assert server.stop() in (0, -15)
        (small_disk / "ballast").unlink()
        server.start()
        load.check(server.endpoint)
    finally:
        server.kill()
