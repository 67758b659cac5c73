"""What a member tells of itself under /debug, asked as an operator would."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from keyraft.app.debug import DebugPaths, published
from keyraft.app.debug.profile import CodePlace, Profile, as_pprof, as_speedscope, as_text
from keyraft.app.debug.sampling import memory, processor, stacks
from keyraft.app.request_stats import RequestStats
from keyraft.grpc import CallEnd, Router
from keyraft.logs.zap import ZapLogger
from tests.gateway.test_routes import FakeRequest
from tests.server.harness import OneMember

INNER, OUTER = CodePlace("inner", "/a.py", 7), CodePlace("Outer.run", "/b.py", 300)
TWO = Profile(
    (("samples", "count"), ("cpu", "nanoseconds")),
    10_000_000,
    {(INNER, OUTER): (2, 20_000_000), (OUTER,): (1, 5_000_000)},
    1_700_000_000_000_000_000,
    1_000_000_000,
)


def fields(message: bytes) -> list[tuple[int, Any]]:
    """A protobuf message, read by a reader that knows no schema."""
    found: list[tuple[int, Any]] = []
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(message):
        key = varint()
        if key & 7 == 0:
            found.append((key >> 3, varint()))
        else:
            assert key & 7 == 2
            size = varint()
            found.append((key >> 3, message[position : position + size]))
            position += size
    return found


def test_a_profile_is_a_pprof_message() -> None:
    told = fields(gzip.decompress(as_pprof(TWO)))
    texts = [value.decode() for number, value in told if number == 6]
    assert texts[0] == ""
    assert {"samples", "cpu", "nanoseconds", "inner", "Outer.run", "/a.py", "/b.py"} <= set(texts)
    samples = [dict(fields(value)) for number, value in told if number == 2]
    assert samples[0][1] == b"\x01\x02"
    assert samples[1][1] == b"\x02"
    places = [dict(fields(value)) for number, value in told if number == 4]
    assert [place[1] for place in places] == [1, 2]
    assert dict(fields(places[1][4])) == {1: 2, 2: 300}
    assert dict(told)[12] == 10_000_000
    assert dict(told)[10] == 1_000_000_000


def test_go_reads_it(tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go")
    file = tmp_path / "profile"
    file.write_bytes(as_pprof(TWO))
    done = subprocess.run(
        [go, "tool", "pprof", "-top", str(file)], capture_output=True, text=True, timeout=300
    )
    if "no such tool" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["20ms", "80.00%", "80.00%", "20ms", "80.00%", "inner"] in rows, done.stdout
    assert ["5ms", "20.00%", "100%", "25ms", "100%", "Outer.run"] in rows, done.stdout


def test_speedscope_and_people_read_it() -> None:
    told = json.loads(as_speedscope(TWO, "m"))
    profile = told["profiles"][0]
    assert profile["samples"] == [[0, 1], [0]]
    assert told["shared"]["frames"][0] == {"name": "Outer.run", "file": "/b.py", "line": 300}
    assert profile["weights"] == [20_000_000, 5_000_000] and profile["endValue"] == 25_000_000
    assert b"2 20000000\n#\tinner\t/a.py:7\n#\tOuter.run\t/b.py:300\n" in as_text(TWO)


def test_only_threads_that_work_weigh() -> None:
    ended, found = threading.Event(), threading.Event()

    def works() -> None:
        while not ended.is_set():
            sum(range(2_000))

    def waits() -> None:
        ended.wait()

    threads = [threading.Thread(target=one) for one in (works, waits)]
    for thread in threads:
        thread.start()
    profile = processor(0.5, found)
    ended.set()
    for thread in threads:
        thread.join()
    seen = {
        place.function.rpartition(".")[2]: values[1]
        for stack, values in profile.values.items()
        for place in stack
    }
    assert seen["works"] > 1_000_000
    assert seen.get("waits", 0) < seen["works"] / 10


def test_what_is_allocated_and_stays_is_seen() -> None:
    ended = threading.Event()
    kept: list[bytes] = []

    def allocate() -> None:
        while not ended.is_set():
            if len(kept) < 100:
                kept.append(bytes(10_000))
            time.sleep(0)

    thread = threading.Thread(target=allocate)
    thread.start()
    profile = memory(0.3, threading.Event())
    ended.set()
    thread.join()
    sizes = {stack[0]: values[1] for stack, values in profile.values.items()}
    assert any(size >= 100_000 and place.file == __file__ for place, size in sizes.items())


def test_stacks_of_threads_and_tasks() -> None:
    async def look() -> set[str]:
        task = asyncio.create_task(asyncio.sleep(10), name="sleeper")
        await asyncio.sleep(0)
        found = {place.function for stack in stacks().values for place in stack}
        task.cancel()
        return found

    assert {"sleep", "stack_of"} & asyncio.run(look()) >= {"sleep"}


class Paths:
    """The paths over one member."""

    def __init__(self) -> None:
        self.one = OneMember()
        self.one.run(1.0)
        self.lines: list[bytes] = []
        self.log = ZapLogger((self,))
        self.router = Router()
        stats = RequestStats(self.log, lambda: 0.0)
        stats.watch(self.router, 0.3)
        self.paths = DebugPaths(self.one.member, self.router, self.log, stats, 0.3)

    def write(self, line: bytes) -> None:
        self.lines.append(line)

    def ask(self, path: str, method: str = "GET", body: bytes = b"", **query: str) -> FakeRequest:
        request = FakeRequest(path, method)
        request.body = body
        taken = self.paths.handle(request, [], path, {k: [v] for k, v in query.items()})
        assert taken
        return request


def test_profiles_over_http() -> None:
    asyncio.run(ask_for_profiles(Paths()))


async def ask_for_profiles(paths: Paths) -> None:
    request = paths.ask("/debug/pprof/profile", seconds="0.05")
    assert not request.status
    second = paths.ask("/debug/pprof/heap")
    assert second.status == 500 and b"being made already" in second.content
    while not request.status:
        await asyncio.sleep(0.01)
    assert request.status == 200
    assert request.sent[b"content-disposition"] == b'attachment; filename="profile"'
    assert fields(gzip.decompress(request.content))
    # A client that leaves ends its profile.
    left = paths.ask("/debug/pprof/profile", seconds="300", format="speedscope")
    assert left.on_close is not None
    left.on_close()
    while not left.status:
        await asyncio.sleep(0.01)
    assert json.loads(left.content)["exporter"] == "keyraft"
    assert paths.ask("/debug/pprof/profile", seconds="301").status == 400
    assert paths.ask("/debug/pprof/profile", seconds="nan").status == 400
    assert paths.ask("/debug/pprof/threadcreate").status == 404
    assert b"goroutine" in paths.ask("/debug/pprof/").content
    assert b"ask_for_profiles" in paths.ask("/debug/pprof/goroutine", debug="1").content
    assert paths.ask("/debug/pprof/cmdline").content.split(b"\0")[0] == sys.argv[0].encode()
    assert not paths.paths.handle(FakeRequest("/debug/x"), [], "/debug/x", {})


def test_slow_calls_are_kept_without_their_messages() -> None:
    paths = Paths()
    ended = CallEnd("/p", None, "10.0.0.1:5", None, 0, "", 0.5, b"secret", b"secret", 6, 7)
    for listener_s, listener in paths.router.ends._listeners:
        if listener_s <= ended.took_s:
            listener(ended)
    told = json.loads(paths.ask("/debug/requests").content)
    assert told["proposals_waiting"] == 0
    slow = told["slow"][0]
    assert (slow["method"], slow["peer"], slow["took_s"]) == ("/p", "10.0.0.1:5", 0.5)
    assert (slow["code"], slow["received_bytes"], slow["sent_bytes"]) == ("OK", 6, 7)
    assert b"secret" not in paths.ask("/debug/requests").content


def test_the_level_of_the_log_is_changed() -> None:
    paths = Paths()
    log = "/config/local/log"
    assert json.loads(paths.ask(log).content) == {"Level": "INFO"}
    assert paths.ask(log, "PUT", b'{"Level":"DEBUG"}').status == 204
    assert paths.log.is_enabled("debug")
    assert b"the level of the log was changed" in paths.lines[-1]
    for body in (b"", b"[]", b'{"Level":"LOUD"}', b'{"Level":7}', b"[" * 100_000):
        assert paths.ask(log, "PUT", body).status == 400, body
    assert paths.ask(log, "POST").status == 405
    assert json.loads(paths.ask(log).content) == {"Level": "DEBUG"}


def test_variables_have_etcds_shape() -> None:
    one = OneMember()
    one.run(1.0)
    page = published(one.member)
    assert page.startswith(b'{\n"cmdline": [') and page.endswith(b"}\n}\n")
    told = json.loads(page)
    assert set(told) == {"cmdline", "file_descriptor_limit", "memstats", "raft.status"}
    own = f"{one.settings.member_id:x}"
    status = told["raft.status"]
    assert (status["id"], status["lead"], status["raftState"]) == (own, own, "StateLeader")
    assert status["progress"][own]["state"] == "StateReplicate"
    assert status["leadtransferee"] == "0"
    assert list(status) == [
        *("id", "term", "vote", "commit", "lead", "raftState", "applied", "progress"),
        "leadtransferee",
    ]
