"""Clusters of the original taken over by ours, one member after the other, on the same directories.

After every step there is a leader, all keys are there, and all members tell the same about each
other: names, client URLs, who is a learner. Once with a cluster as it was founded, once with one
that a snapshot was restored to, by either tool; in both cases also after members came, were
promoted and left, and with snapshot files and without.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import TRIES, LocalCluster
from tests.support.ports import free_ports
from tests.support.server import (
    ORACLE,
    ORACLE_DIRECTORY,
    OURS,
    Server,
    environment,
    etcdctl,
    needs_oracle,
)

pytestmark = [pytest.mark.real, needs_oracle()]

TOOLS = {
    "theirs": (str(ORACLE_DIRECTORY / "etcdutl"),),
    "ours": (sys.executable, "-m", "keyraft.cli.etcdutl"),
}
KEYS = 12
SNAPSHOTS = ("--snapshot-count=5",)


class Upgraded(LocalCluster):
    """A cluster whose members are asked what they know of each other."""

    def put(self, key: str) -> None:
        self.ask(self.running()[0], "put", key, key)

    def keys(self, server: Server) -> list[str]:
        return self.ask(server, "get", "", "--from-key", "--keys-only").split()

    def listed(self, server: Server) -> list[Any]:
        """A member's own list, by name."""
        told = json.loads(self.ask(server, "member", "list", "-w", "json"))["members"]
        return sorted(told, key=lambda member: str(member.get("name")))

    def check(self, keys: list[str]) -> None:
        """A leader, all keys and one list at all running members."""
        self.leader()
        for server in self.running():
            assert self.keys(server) == sorted(keys), server.name
        self.agree()

    def agree(self) -> None:
        """All running members have the same list, with the names and URLs that are right."""
        wanted = sorted(
            (server.name, [f"http://127.0.0.1:{server.client_port}"])
            for server in self.servers.values()
        )

        def told() -> list[list[Any]]:
            return [self.listed(server) for server in self.running()]

        until(
            told,
            lambda lists: (
                all(
                    [(one.get("name"), one.get("clientURLs")) for one in each] == wanted
                    for each in lists
                )
                and all(each == lists[0] for each in lists)
            ),
        )

    def upgrade(self, server: Server, keys: list[str]) -> None:
        """Its successor is ours, on the same directory."""
        self.exchange(server, OURS)
        assert self.leader() is not None
        key = f"by-{server.name}-{len(keys)}"
        self.put(key)
        keys.append(key)
        self.check(keys)

    def exchange(self, server: Server, command: tuple[str, ...]) -> None:
        """Another program goes on with its directory."""
        server.stop()
        server.command = command
        server.start()

    def replace(self, server: Server, command: tuple[str, ...]) -> None:
        """The member is removed, and one of the same name comes with an empty directory."""
        asked = next(other for other in self.running() if other is not server)
        ident = next(one["ID"] for one in self.listed(asked) if one["name"] == server.name)
        self.ask(asked, "member", "remove", f"{ident:x}")
        server.kill()
        shutil.rmtree(server.data_dir)
        url = f"http://127.0.0.1:{server.peer_port}"
        self.ask(asked, "member", "add", server.name, f"--peer-urls={url}")
        server.command = command
        server.flags = (
            f"--initial-cluster={self.initial}",
            "--initial-cluster-state=existing",
            *self.flags,
        )
        server.start()

    def grow(self, name: str, command: tuple[str, ...]) -> Server:
        """A learner comes and is promoted."""
        client, peer = free_ports(2)
        server = Server(command, self.folder / name, name, (), client, peer)
        url = f"http://127.0.0.1:{peer}"
        asked = self.running()[0]
        self.ask(asked, "member", "add", name, "--learner", f"--peer-urls={url}")
        initial = f"{self.initial},{name}={url}"
        server.flags = (
            f"--initial-cluster={initial}",
            "--initial-cluster-state=existing",
            *self.flags,
        )
        self.servers[name] = server
        server.start()
        ident = until(
            lambda: {one.get("name"): one["ID"] for one in self.listed(asked)},
            lambda names: name in names,
        )[name]
        self.ask(asked, "member", "promote", f"{ident:x}")
        return server


def until(ask: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    """Asks until the answer is good."""
    for _ in range(TRIES):
        answer = ask()
        if good(answer):
            return answer
    raise AssertionError(answer)


def restore(tool: tuple[str, ...], snapshot: Path, cluster: LocalCluster) -> None:
    """Every member's directory, of a new cluster."""
    for server in cluster.servers.values():
        done = subprocess.run(
            [
                *tool,
                "snapshot",
                "restore",
                str(snapshot),
                f"--name={server.name}",
                f"--data-dir={server.data_dir}",
                f"--initial-cluster={cluster.initial}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{server.peer_port}",
                "--initial-cluster-token=another",
            ],
            capture_output=True,
            env=environment(),
            check=False,
        )
        assert done.returncode == 0, done.stderr


def saved(folder: Path, size: int) -> tuple[Path, list[str]]:
    """A snapshot of a cluster of the original, and its keys."""
    old = Upgraded(folder, *[ORACLE] * size)
    try:
        old.start()
        keys = [f"k{number:02}" for number in range(KEYS)]
        for key in keys:
            old.put(key)
        snapshot = folder / "snapshot.db"
        old.ask(old.leader(), "snapshot", "save", str(snapshot))
    finally:
        old.stop()
    return snapshot, keys


def founded(
    folder: Path, size: int, tool: str, flags: tuple[str, ...]
) -> tuple[Upgraded, list[str]]:
    """A running cluster of the original, restored by a tool where one is named."""
    if tool:
        before = folder / "before"
        before.mkdir()
        snapshot, keys = saved(before, 3)
        cluster = Upgraded(folder, *[ORACLE] * size, flags=flags)
        restore(TOOLS[tool], snapshot, cluster)
    else:
        cluster = Upgraded(folder, *[ORACLE] * size, flags=flags)
        keys = []
    try:
        cluster.start()
        for number in range(KEYS):
            cluster.put(f"n{number:02}")
            keys.append(f"n{number:02}")
    except BaseException:
        cluster.stop()
        raise
    return cluster, keys


@pytest.mark.parametrize(
    ("size", "tool", "flags"),
    [
        pytest.param(3, "", SNAPSHOTS, id="three-snapshots"),
        pytest.param(3, "theirs", (), id="three-restored"),
        pytest.param(3, "ours", SNAPSHOTS, id="three-restored-by-ours-snapshots"),
        pytest.param(1, "theirs", (), id="one-restored"),
        pytest.param(3, "", (), id="three", marks=pytest.mark.soak),
        pytest.param(3, "theirs", SNAPSHOTS, id="three-restored-snapshots", marks=pytest.mark.soak),
        pytest.param(3, "ours", (), id="three-restored-by-ours", marks=pytest.mark.soak),
        pytest.param(1, "theirs", SNAPSHOTS, id="one-restored-snapshots", marks=pytest.mark.soak),
        pytest.param(1, "ours", (), id="one-restored-by-ours", marks=pytest.mark.soak),
    ],
)
def test_members_are_replaced_by_ours_one_by_one(
    tmp_path: Path, size: int, tool: str, flags: tuple[str, ...]
) -> None:
    cluster, keys = founded(tmp_path, size, tool, flags)
    try:
        for server in cluster.servers.values():
            cluster.upgrade(server, keys)
        assert len(cluster.hashes()) == 1
        for server in cluster.servers.values():  # none of the original is left to know better
            server.stop()
        for server in cluster.servers.values():
            server.spawn()
        for server in cluster.servers.values():
            assert server.wait_ready(), server.log[-2000:]
        cluster.check(keys)
    finally:
        cluster.stop()


@pytest.mark.parametrize(
    ("tool", "flags"),
    [
        pytest.param("theirs", SNAPSHOTS, id="restored-snapshots"),
        pytest.param("theirs", (), id="restored", marks=pytest.mark.soak),
        pytest.param("", SNAPSHOTS, id="snapshots", marks=pytest.mark.soak),
        pytest.param("", (), id="log", marks=pytest.mark.soak),
    ],
)
def test_members_that_came_and_left_are_known(
    tmp_path: Path, tool: str, flags: tuple[str, ...]
) -> None:
    """One of the original's comes and is promoted, one of ours, too, which is sent the leader's
    snapshot; one leaves; then the rest is replaced."""
    cluster, keys = founded(tmp_path, 3, tool, flags)
    leaving = cluster.servers["m1"]
    try:
        cluster.grow("m4", ORACLE)
        cluster.grow("m5", OURS)
        cluster.check(keys)
        del cluster.servers["m1"]
        stays = cluster.servers["m2"]
        ident = next(one["ID"] for one in cluster.listed(stays) if one["name"] == "m1")
        cluster.ask(stays, "member", "remove", f"{ident:x}")
        leaving.kill()
        cluster.put("without")
        keys.append("without")
        cluster.check(keys)
        for name in ("m2", "m3", "m4"):
            cluster.upgrade(cluster.servers[name], keys)
        assert len(cluster.hashes()) == 1
        done = etcdctl(cluster.servers["m5"].endpoint, "endpoint", "status", "--cluster")
        assert done.stdout.count(b"\n") == len(cluster.servers), done
    finally:
        leaving.kill()
        cluster.stop()


def hand_back(server: Server, *more: str) -> None:
    """A stopped member's directory is made the original's again."""
    done = subprocess.run(
        [*TOOLS["ours"], "migrate", f"--data-dir={server.data_dir}", "--to-original", *more],
        capture_output=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"wrote the database for the original" in done.stderr


def test_a_member_goes_back_to_the_original_and_comes_again(tmp_path: Path) -> None:
    """Both have made snapshots, so neither's log alone leads to what the other has."""
    cluster, keys = founded(tmp_path, 3, "", SNAPSHOTS)
    try:
        traveller = cluster.servers["m1"]
        again = "its database is taken over again"
        for turn in range(2):
            cluster.upgrade(traveller, keys)
            assert traveller.log.count(again) == turn
            for number in range(KEYS):
                key = f"ours-{turn}-{number:02}"
                cluster.put(key)
                keys.append(key)
            until(
                lambda: traveller.log.count("saved snapshot"),
                lambda count, wanted=turn + 1: count >= wanted,  # type: ignore[misc]
            )
            traveller.stop()
            hand_back(traveller)
            traveller.command = ORACLE
            traveller.start()
            cluster.check(keys)
            for number in range(KEYS):
                key = f"theirs-{turn}-{number:02}"
                cluster.put(key)
                keys.append(key)
            traveller.stop()
        traveller.command = OURS
        traveller.start()
        cluster.check(keys)
        assert traveller.log.count(again) == 2
        traveller.stop()
        traveller.start()  # what the original left is not taken over twice
        cluster.check(keys)
        assert traveller.log.count(again) == 2
        assert len(cluster.hashes()) == 1
    finally:
        cluster.stop()


def test_a_member_that_stops_under_a_downgrade_leaves_its_database_to_the_original(
    tmp_path: Path,
) -> None:
    server = Server(OURS, tmp_path / "data")
    etcdutl, etcdctl_ = TOOLS["ours"], (sys.executable, "-m", "keyraft.cli.etcdctl")

    def ours(*words: str) -> bytes:
        done = subprocess.run(words, capture_output=True, env=environment(), check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    server.start()
    try:
        ctl = (*etcdctl_, f"--endpoints={server.endpoint}")
        ours(*ctl, "put", "k", "v")
        version = until(
            lambda: json.loads(ours(*ctl, "endpoint", "status", "-w", "json"))[0]["Status"],
            lambda status: status.get("storageVersion") == "3.7.0",
        )
        assert version
        ours(*ctl, "downgrade", "enable", "3.6")
        until(
            lambda: json.loads(ours(*ctl, "endpoint", "status", "-w", "json"))[0]["Status"],
            lambda status: status.get("storageVersion") == "3.6.0",
        )
        server.stop()
    finally:
        server.kill()
    assert "writing the database for the original" in server.log
    snap = server.data_dir / "member" / "snap"
    statuses = [
        json.loads(ours(*etcdutl, "snapshot", "status", str(path), "-w", "json"))
        for path in (snap / "db", snap / "kv")
    ]
    assert statuses[0]["hash"] == statuses[1]["hash"]
    assert statuses[0]["version"] == "3.6.0"
