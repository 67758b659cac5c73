"""What a member tells by signals: its state and stacks, and more or less of its requests."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.support.server import OURS, Server, etcdctl, serving

pytestmark = pytest.mark.real


def lines(server: Server) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]


def await_line(server: Server, message: str, count: int = 1) -> dict[str, object]:
    end_s = time.monotonic() + 20.0
    while time.monotonic() < end_s:
        found = [line for line in lines(server) if line["msg"] == message]
        if len(found) >= count:
            return found[-1]
        time.sleep(0.01)
    raise AssertionError(f"{message!r} was not said {count} times:\n{server.log[-3000:]}")


def test_signals_tell_the_state_and_change_the_level(tmp_path: Path) -> None:
    server = Server(OURS, tmp_path / "data")
    with serving(server):
        assert server.process is not None
        etcdctl(server.endpoint, "put", "k", "v")
        server.process.send_signal(signal.SIGUSR1)
        state = await_line(server, "state of this member, as asked for by SIGUSR1")
        assert state["leads"] is True and state["store-keys"] == 1
        assert state["committed-index"] == state["applied-index"]
        await_line(server, "stack of a thread")
        task = await_line(server, "stack of a task")
        assert isinstance(task["waits-in"], list)

        assert not [line for line in lines(server) if line["msg"] == "request stats"]
        said = "the level of the log was changed, as asked for by SIGUSR2"
        server.process.send_signal(signal.SIGUSR2)
        assert await_line(server, said)["level"] == "debug"
        etcdctl(server.endpoint, "put", "k", "v")
        put = await_line(server, "request stats")
        assert put["level"] == "debug" and put["response type"] == "/etcdserverpb.KV/Put"
        before = server.log.count('"request stats"')
        server.process.send_signal(signal.SIGUSR2)
        assert await_line(server, said, 2)["level"] == "info"
        etcdctl(server.endpoint, "put", "k", "v")
        server.process.send_signal(signal.SIGUSR1)
        await_line(server, "state of this member, as asked for by SIGUSR1", 2)
        assert server.log.count('"request stats"') == before
