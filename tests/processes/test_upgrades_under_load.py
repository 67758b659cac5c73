"""The original's members replaced by ours one by one, and back, while six clients write and read.

What docs/UPGRADE.md says, acted out. Nothing that was acknowledged may be lost, some order must
explain what the clients saw, and at the end all members have one list and one hash. Each run prints
its counts. `make upgrades ORIGINALS="FOLDER ..."` runs all of it for several releases; without it
the original is 3.5.1.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from keyraft.client.sync import Portal
from tests.processes.test_upgrades import SNAPSHOTS, Upgraded, founded, hand_back, until
from tests.support.history import Load
from tests.support.server import ORACLE, OURS, Server, environment, needs_oracle

pytestmark = [pytest.mark.real, needs_oracle()]

SOME = 20
"""Acknowledged writes after each step."""
HISTORIES = ("founded", "restored", "grown", "changed")
OUR_ETCDCTL = (sys.executable, "-m", "keyraft.cli.etcdctl")


def original_version() -> tuple[int, ...]:
    """Major and minor of the original."""
    told = subprocess.run([*ORACLE, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"etcd Version: (\d+)\.(\d+)", told.stdout)
    assert found is not None, told.stdout
    return tuple(map(int, found.groups()))


def with_history(folder: Path, history: str) -> Upgraded:
    """A running cluster of the original's members that has come about in a certain way."""
    tool = "theirs" if history == "restored" else ""
    cluster, _ = founded(folder, 3, tool, SNAPSHOTS)
    try:
        if history == "grown":
            cluster.grow("m4", ORACLE)
        elif history == "changed":
            cluster.replace(cluster.servers["m1"], ORACLE)
    except BaseException:
        cluster.stop()
        raise
    return cluster


@contextmanager
def under_load(cluster: Upgraded, what: str) -> Iterator[Load]:
    """Clients at work; afterwards they are judged, and so is the cluster."""
    portal = Portal()
    endpoints = {name: server.endpoint for name, server in cluster.servers.items()}
    load = Load(portal, endpoints).start()
    try:
        yield load
        load.wait_acknowledged(SOME, *cluster.servers)
        load.stop()
        cluster.leader()
        cluster.agree()
        assert len(cluster.hashes()) == 1
        load.check()
        print(f"{what}: {counts(load)}", flush=True)
    except BaseException:
        for server in cluster.servers.values():
            print(f"--- {server.name}\n{server.log[-2500:]}")
        raise
    finally:
        load.abandon()
        cluster.stop()
        portal.close()


def counts(load: Load) -> str:
    """How it went for the clients, once `check` has found nothing lost."""
    writes = [each for each in load.history if each.input[0] != "get"]
    known = sorted(each.return_s for each in writes if each.known)
    pause_s = max(after - before for before, after in pairwise(known))
    return (
        f"{len(known)} writes acknowledged, 0 lost, {len(writes) - len(known)} failed or unknown, "
        f"longest pause {pause_s:.1f} s"
    )


def exchange_all(
    cluster: Upgraded, load: Load, servers: list[Server], command: tuple[str, ...]
) -> None:
    """One by one, on their directories."""
    for server in servers:
        cluster.exchange(server, command)
        load.wait_acknowledged(SOME, server.name)


def version_of(server: Server, name: str) -> str:
    """What `endpoint status` of ours calls by that name."""
    words = (*OUR_ETCDCTL, f"--endpoints={server.endpoint}", "endpoint", "status", "-w", "json")
    done = subprocess.run(words, capture_output=True, env=environment(), check=False)
    return str(json.loads(done.stdout)[0]["Status"].get(name)) if done.stdout else ""


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(each, id=each, marks=() if each == "changed" else pytest.mark.soak)
        for each in HISTORIES
    ],
)
def test_all_members_are_replaced_under_load(tmp_path: Path, history: str) -> None:
    cluster = with_history(tmp_path, history)
    with under_load(cluster, f"{original_version()} {history}, to ours") as load:
        exchange_all(cluster, load, list(cluster.servers.values()), OURS)


@pytest.mark.soak
def test_members_go_back_by_being_removed_and_added(tmp_path: Path) -> None:
    """While one of the original's is left, so that the cluster's version is still its own."""
    cluster = with_history(tmp_path, "founded")
    with under_load(cluster, f"{original_version()} back by remove and add") as load:
        servers = list(cluster.servers.values())[:-1]
        exchange_all(cluster, load, servers, OURS)
        for server in servers:
            cluster.replace(server, ORACLE)
            load.wait_acknowledged(SOME, server.name)


@pytest.mark.soak
def test_members_go_back_on_their_directories(tmp_path: Path) -> None:
    """From a cluster that is wholly ours where its version allows it, else from a mixed one."""
    version = original_version()
    cluster = with_history(tmp_path, "founded")
    with under_load(cluster, f"{version} back by migrate --to-original") as load:
        servers = list(cluster.servers.values())
        if version < (3, 7):
            servers.pop()
        exchange_all(cluster, load, servers, OURS)
        for server in servers:
            server.stop()
            hand_back(server)
            server.command = ORACLE
            server.start()
            load.wait_acknowledged(SOME, server.name)


@pytest.mark.soak
def test_a_cluster_of_ours_is_downgraded(tmp_path: Path) -> None:
    """`etcdctl downgrade enable` first; members that stop then leave `db` for the original."""
    if original_version() != (3, 6):
        pytest.skip("only 3.6 is one minor release below ours")
    cluster = with_history(tmp_path, "founded")
    with under_load(cluster, "(3, 6) back by downgrade enable") as load:
        servers = list(cluster.servers.values())
        exchange_all(cluster, load, servers, OURS)
        asked = servers[0]
        until(partial(version_of, asked, "storageVersion"), "3.7.0".__eq__)
        for words in (("validate", "3.6"), ("enable", "3.6")):
            done = subprocess.run(
                [*OUR_ETCDCTL, f"--endpoints={asked.endpoint}", "downgrade", *words],
                capture_output=True,
                env=environment(),
                check=False,
            )
            assert done.returncode == 0, done.stderr
        for server in servers:
            until(partial(version_of, server, "storageVersion"), "3.6.0".__eq__)
        exchange_all(cluster, load, servers, ORACLE)
