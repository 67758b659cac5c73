"""The audit log of a real member: every door, every kind of caller, a process that dies, a full disk."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyraft.client import Client, errors
from keyraft.net import Http1Client
from keyraft.proxy.grpcproxy import GrpcProxy
from tests.support.proxies import through_proxy
from tests.support.server import OURS, Server

pytestmark = pytest.mark.real
WAIT_S = 30.0


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first such line, when it is there."""
    by = time.monotonic() + WAIT_S
    while time.monotonic() < by:
        for line in lines(path):
            if wanted(line):
                return line
        time.sleep(0.01)
    raise AssertionError(path.read_text()[-2000:])


def keyed(key: str, code: str = "OK") -> Callable[[dict[str, Any]], bool]:
    return lambda line: line.get("request", {}).get("key") == key and line["code"] == code


async def make_users(client: Client) -> None:
    for name in ("root", "alice"):
        await client.auth.user_add(name, "p")
    await client.auth.role_add("root")
    await client.auth.user_grant_role("root", "root")
    await client.auth.enable()


async def post(endpoint: str, path: str, body: dict[str, Any], token: str = "") -> int:
    http = Http1Client()
    headers = {"Authorization": token} if token else {}
    answer = await http.request(
        "POST", f"http://{endpoint}", path, headers=headers, body=json.dumps(body).encode()
    )
    http.close()
    return answer.status


def test_every_call_is_there_with_its_user_and_its_end(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    flags = (f"--audit-log={log}", "--bcrypt-cost=4")
    member = Server(OURS, tmp_path / "data", flags=flags).start()

    async def use(proxy: GrpcProxy, through: Client) -> None:
        async with Client(member.endpoint) as client:
            await client.put("before", "1")
            async with client.watch("w/", prefix=True):
                pass
            await client.cluster.members()
            await make_users(client)
        address = proxy.server.addresses[0]
        async with Client(address, user="root", password="p") as root:
            await root.put("by-proxy", "1")
            token = (await root.auth.authenticate("root", "p")).token
        assert await post(member.endpoint, "/v3/kv/put", {"key": "anNvbg=="}, token) == 200
        async with Client(member.endpoint, user="alice", password="p") as alice:
            with pytest.raises(errors.PermissionDeniedError):
                await alice.put("denied", "1")
            with pytest.raises(errors.PermissionDeniedError):
                async with alice.watch("denied-watch"):
                    pass
        async with Client(member.endpoint, user="alice", password="wrong") as stranger:
            with pytest.raises(errors.EtcdError):
                await stranger.get("k")

    try:
        through_proxy(use, member.endpoint)
        assert wait_for(log, keyed("before"))["revision"] == 2
        watch = wait_for(log, keyed("w/"))
        assert (watch["stage"], watch["request"]["range_end"]) == ("watch", "w0")
        assert wait_for(log, lambda line: line["method"].endswith("Cluster/MemberList"))
        assert wait_for(log, lambda line: line.get("request") == {"name": "alice"})
        proxied = wait_for(log, keyed("by-proxy"))
        assert (proxied["user"], proxied["via"]) == ("root", "grpc")
        json_put = wait_for(log, keyed("json"))
        assert (json_put["user"], json_put["via"]) == ("root", "json")
        denied = wait_for(log, keyed("denied", "PermissionDenied"))
        assert (denied["user"], denied["error"]) == ("alice", "etcdserver: permission denied")
        refused = wait_for(log, keyed("denied-watch", "PermissionDenied"))
        assert (refused["user"], refused["stage"]) == ("alice", "watch")
        failed = wait_for(log, lambda line: line["code"] == "InvalidArgument")
        assert failed["method"].endswith("Auth/Authenticate")
        assert failed["request"] == {"name": "alice"} and failed["user"] == ""
    finally:
        member.stop()
    ends = [line for line in lines(log) if line.get("stage") == "end"]
    assert any(line["method"].endswith("Watch/Watch") for line in ends)


def children(member: Server) -> list[int]:
    assert member.process is not None
    path = f"/proc/{member.process.pid}/task/{member.process.pid}/children"
    return [int(pid) for pid in Path(path).read_text().split()]


def audit_process(member: Server) -> int:
    (found,) = (
        pid
        for pid in children(member)
        if b"audit/writer.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    return found


def test_no_line_is_lost_when_the_process_dies_or_the_file_moves(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    member = Server(OURS, tmp_path / "data", flags=(f"--audit-log={log}",)).start()

    async def put(*keys: str) -> None:
        async with Client(member.endpoint) as client:
            for key in keys:
                await client.put(key, "1")

    try:
        asyncio.run(put("a"))
        wait_for(log, keyed("a"))
        os.kill(audit_process(member), signal.SIGKILL)
        asyncio.run(put("b", "c"))
        wait_for(log, keyed("c"))
        assert "the audit process has ended and is started again" in member.log
        old = log.rename(tmp_path / "moved")
        asyncio.run(put("d"))
        wait_for(old, keyed("d")) if not log.exists() else wait_for(log, keyed("d"))
        asyncio.run(put("last"))
    finally:
        member.stop()
    found = [line["request"]["key"] for line in lines(old) + lines(log)]
    assert set(found) == {"a", "b", "c", "d", "last"}


def test_a_file_that_cannot_be_opened_or_written(tmp_path: Path) -> None:
    nowhere = Server(OURS, tmp_path / "data", flags=(f"--audit-log={tmp_path}/no/where",))
    nowhere.spawn()
    assert nowhere.wait() == 1
    assert "--audit-log: open" in nowhere.log and "No such file or directory" in nowhere.log
    full = Server(OURS, tmp_path / "full", flags=("--audit-log=/dev/full",)).start()

    async def use() -> str:
        async with Client(full.endpoint) as client:
            await client.put("k", "v")
            http = Http1Client()
            while True:
                answer = await http.request(
                    "GET", f"http://{full.endpoint}", "/metrics", answer_bytes_max=1 << 22
                )
                text = answer.body.decode()
                if "keyraft_audit_recorded_total 1" in text:
                    http.close()
                    return text

    try:
        metrics = asyncio.run(use())
        assert "keyraft_audit_lost_total 0" in metrics
    finally:
        full.stop()
    assert "the audit log cannot be written; trying again" in full.log
    assert "calls are missing in the audit log" in full.log
