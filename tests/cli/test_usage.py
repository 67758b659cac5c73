"""`keyraft usage` and the warning with the largest prefixes, from a running member."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from keyraft.cli.usage import table
from keyraft.client import Client
from keyraft.proto import operations_pb2
from tests.support.server import OURS, Server, keyraft

pytestmark = pytest.mark.real


def test_a_member_tells_its_usage_to_root_and_its_largest_prefixes_to_its_log(
    tmp_path: Path,
) -> None:
    flags = ("--quota-backend-bytes=1000000", "--bcrypt-cost=4")
    member = Server(OURS, tmp_path / "data", flags=flags)
    member.ready = b"ready to serve client requests"
    member.start()

    async def use() -> None:
        async with Client(member.endpoint) as client:
            for number in range(3):
                await client.put(f"a/b/{number}", "v" * 1_000)
            await client.put("a/b/0", "v")
            await client.put("c", "v")
            await client.delete("c")
            for number in range(50):
                await client.put(f"large/part/{number}", "v" * 16_000)
            for name in ("root", "alice"):
                await client.auth.user_add(name, "p")
            await client.auth.role_add("root")
            await client.auth.user_grant_role("root", "root")
            await client.auth.enable()

    try:
        asyncio.run(use())
        done = keyraft(member, "usage", "--user=root:p", "--interval=0.01", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        first, second, third = found["prefixes"]
        assert [one["prefix"] for one in (first, second, third)] == ["large/part/", "a/b/", ""]
        assert (first["keys"], second["keys"], third["keys"]) == (50, 3, 0)
        assert (second["revisions"], third["revisions"]) == (4, 2)
        assert first["bytes"] > 800_000 and 1_000 < second["history_bytes"] < 1_200
        assert found["total"]["keys"] == 53 and found["others"]["keys"] == 0
        top = keyraft(
            member,
            "usage",
            "--user=root:p",
            "--interval=0.01",
            "--prefix=a/",
            "--top=1",
            "--depth=1",
        )
        lines = top.stdout.splitlines()
        assert lines[0].split() == ["PREFIX", "KEYS", "BYTES", "HISTORY", "REVISIONS", "WRITES/S"]
        assert lines[1].split()[:2] == ["a/", "3"] and lines[-1].split()[:2] == ["(total)", "3"]
        for words in ((), ("--user=alice:p",)):
            refused = keyraft(member, "usage", *words)
            assert refused.returncode == 1 and not refused.stdout
            assert "user name is empty" in refused.stderr or "permission denied" in refused.stderr
    finally:
        member.stop()
    warned = [json.loads(line) for line in member.log.splitlines() if "largest prefixes" in line]
    assert warned and str(warned[0]["prefixes"][0]).startswith("large/part/: ")


def test_strange_prefixes_stand_in_one_line() -> None:
    answer = operations_pb2.UsageResponse(
        prefixes=[
            operations_pb2.PrefixUsage(prefix=name, keys=1) for name in (b"", b"a\n/", b"\xff/")
        ],
        others=operations_pb2.PrefixUsage(revisions=3),
    )
    names = [line.split()[0] for line in table(answer)]
    assert names == ["PREFIX", "''", r"'a\n/'", r"\xff/", "(others)", "(total)"]
