"""Clusters of real processes: leaders die, followers fall behind, members come, go and move.

The original etcdctl talks to them, and original members share a cluster with ours.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import LocalCluster
from tests.support.ports import free_ports
from tests.support.server import ORACLE, OURS, Server, etcdctl, needs_oracle

pytestmark = [pytest.mark.real, needs_oracle()]

Make = Callable[..., LocalCluster]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Make]:
    """Makes clusters that are stopped at the end."""
    made: list[LocalCluster] = []

    def make(*commands: tuple[str, ...], flags: tuple[str, ...] = ()) -> LocalCluster:
        made.append(LocalCluster(tmp_path, *commands, flags=flags))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def fill(cluster: LocalCluster, server: Server, count: int, prefix: str = "k") -> None:
    """Puts `count` keys, many in one transaction."""
    for start in range(0, count, 100):
        puts = "".join(f"put {prefix}{n} v{n}\n" for n in range(start, min(start + 100, count)))
        done = etcdctl(server.endpoint, "txn", stdin=f"\n{puts}\n\n".encode())
        assert done.returncode == 0, done.stderr


def test_a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost(cluster: Make) -> None:
    three = cluster(OURS, OURS, OURS).start()
    first = three.leader()
    other = next(server for server in three.running() if server is not first)
    assert three.ask(other, "put", "at-one", "value") == "OK\n"
    assert three.ask(first, "get", "at-one") == "at-one\nvalue\n"
    first.kill()
    second = three.leader()
    assert second is not first
    assert "elected leader" in second.log or "changed leader" in second.log
    assert three.ask(other, "get", "at-one") == "at-one\nvalue\n"
    three.ask(other, "put", "without", "the first")
    first.start()
    assert three.ask(first, "get", "without") == "without\nthe first\n"
    assert len(three.hashes()) == 1
    assert three.ask(first, "member", "list").count("started") == 3


def test_a_minority_refuses_writes_and_serves_serializable_reads(cluster: Make) -> None:
    three = cluster(OURS, OURS, OURS).start()
    last = three.leader()
    three.ask(last, "put", "k", "v")
    for server in three.running():
        if server is not last:
            server.kill()
    refused = etcdctl(last.endpoint, "--command-timeout=3s", "put", "k", "w")
    assert refused.returncode != 0
    assert etcdctl(last.endpoint, "--command-timeout=3s", "get", "k").returncode != 0
    assert etcdctl(last.endpoint, "get", "k", "--consistency=s").stdout == b"k\nv\n"


def test_leases_are_renewed_at_any_member_and_survive_their_leader(cluster: Make) -> None:
    three = cluster(OURS, OURS, OURS).start()
    first = three.leader()
    lease = three.ask(first, "lease", "grant", "300").split()[1]
    three.ask(first, "put", "leased", "v", f"--lease={lease}")
    for server in three.running():
        assert "keepalived" in three.ask(server, "lease", "keep-alive", "--once", lease)
        assert "remaining(29" in three.ask(server, "lease", "timetolive", lease)
    first.kill()
    second = three.leader()
    assert "remaining(" in three.ask(second, "lease", "timetolive", lease)
    three.ask(second, "lease", "revoke", lease)
    assert three.ask(second, "get", "leased") == ""


def test_a_follower_far_behind_is_sent_the_database(cluster: Make) -> None:
    three = cluster(
        OURS, OURS, OURS, flags=("--snapshot-count=50", "--snapshot-catchup-entries=5")
    ).start()
    leader = three.leader()
    behind = next(server for server in three.running() if server is not leader)
    behind.kill()
    for number in range(12):
        fill(three, leader, 1000, f"r{number}-")
    for number in range(1100):
        if number % 10 == 0:
            three.ask(leader, "put", "last", str(number))
    behind.start()
    assert three.ask(behind, "get", "last") == "last\n1090\n"
    assert len(three.hashes()) == 1
    behind.kill()
    behind.start()
    assert three.ask(behind, "get", "last") == "last\n1090\n"


def test_members_join_learn_vote_leave_and_move(cluster: Make, tmp_path: Path) -> None:
    three = cluster(OURS, OURS, OURS).start()
    first = three.leader()
    three.ask(first, "put", "k", "v")
    client_port, peer_port = free_ports(2)
    url = f"http://127.0.0.1:{peer_port}"
    three.ask(first, "member", "add", "m4", "--learner", f"--peer-urls={url}")
    fourth = Server(OURS, tmp_path / "m4", "m4", (), client_port, peer_port)
    three.servers["m4"] = fourth
    fourth.flags = (f"--initial-cluster={three.initial}", "--initial-cluster-state=existing")
    fourth.start()
    members = json.loads(three.ask(first, "member", "list", "-w", "json"))["members"]
    learner = next(member for member in members if member.get("isLearner"))
    identity = f"{learner['ID']:x}"
    refused = etcdctl(fourth.endpoint, "put", "x", "y")
    assert b"rpc not supported for learner" in refused.stderr
    follower = next(s for s in three.running() if s not in (first, fourth))
    assert "promoted" in three.ask(follower, "member", "promote", identity)
    three.ask(fourth, "put", "x", "y")
    assert "removed" in three.ask(first, "member", "remove", identity)
    assert fourth.wait() == 1, "a removed member stops itself"
    del three.servers["m4"]
    # moved to another machine: its directory is copied, its peer URL changed
    moved = follower
    moved.stop()
    told = json.loads(three.ask(first, "member", "list", "-w", "json"))["members"]
    identity = f"{next(m for m in told if m['name'] == moved.name)['ID']:x}"
    new_client, new_peer = free_ports(2)
    shutil.copytree(moved.data_dir, tmp_path / "moved")
    three.ask(first, "member", "update", identity, f"--peer-urls=http://127.0.0.1:{new_peer}")
    again = Server(OURS, tmp_path / "moved", moved.name, moved.flags, new_client, new_peer)
    three.servers[moved.name] = again
    again.start()
    assert three.ask(again, "get", "x") == "x\ny\n"
    assert len(three.hashes()) == 1


def test_original_members_and_ours_form_one_cluster(cluster: Make) -> None:
    mixed = cluster(OURS, ORACLE, OURS).start()
    for number, server in enumerate(mixed.running()):
        assert mixed.ask(server, "put", f"from-{server.name}", str(number)) == "OK\n"
    for server in mixed.running():
        assert mixed.ask(server, "get", "from-", "--prefix", "--count-only", "-w", "fields").count(
            '"Count" : 3'
        )
    assert len(mixed.hashes()) == 1
    leader = mixed.leader()
    target = mixed.servers["m2"] if leader.name != "m2" else mixed.servers["m1"]
    mixed.ask(leader, "move-leader", f"{mixed.status(target)['member']:x}")
    assert mixed.leader() is target
    mixed.ask(mixed.servers["m3"], "put", "after", "the move")
    assert len(mixed.hashes()) == 1
