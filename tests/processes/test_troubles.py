"""What befalls real clusters beside the network: lost majorities, damaged keys, stalled disks."""

from __future__ import annotations

import fcntl
import json
import re
import sys
from pathlib import Path

import lmdb
import pytest

from keyraft.client import errors
from keyraft.mvcc.backend import KEY
from tests.support.cluster import LocalCluster
from tests.support.fleet import Fleet
from tests.support.server import OURS, Server, etcdctl, needs_oracle

pytestmark = [pytest.mark.real, needs_oracle()]

STALLING = str(Path(__file__).resolve().parents[1] / "support" / "stalling.py")
PROGRESS = 20


def members(cluster: LocalCluster, server: Server) -> list[dict[str, object]]:
    answer = json.loads(cluster.ask(server, "member", "list", "-w", "json"))
    found: list[dict[str, object]] = answer["members"]
    return found


def test_the_survivor_of_a_lost_majority_goes_on_alone(tmp_path: Path) -> None:
    two = LocalCluster(tmp_path, OURS, OURS).start()
    try:
        first, second = two.servers.values()
        two.ask(first, "put", "k", "v")
        before = {member["name"]: member for member in members(two, first)}
        two.hashes()  # both have applied it
        second.kill()
        assert etcdctl(first.endpoint, "--command-timeout=1s", "put", "k", "w").returncode != 0
        first.stop()
        plain = first.flags
        first.flags = (*plain, "--force-new-cluster")
        first.start()
        assert "forcing restart member" in first.log
        assert members(two, first) == [before[first.name]]
        assert two.ask(first, "get", "k") == "k\nv\n"
        two.ask(first, "put", "alone", "yes")
        first.stop()
        first.flags = plain
        first.start()
        # The one that was left behind may not come back: it was removed.
        second.spawn()
        assert second.wait() == 1
        assert "the member has been permanently removed from the cluster" in second.log
        assert two.ask(first, "get", "alone") == "alone\nyes\n"
    finally:
        two.stop()


def damage(server: Server) -> None:
    """Another value in the newest row of a member that does not run."""
    path = str(server.data_dir / "member" / "snap" / "kv")
    with lmdb.open(path, max_dbs=64, map_size=1 << 30) as environment:
        table = environment.open_db(KEY, create=False)
        with environment.begin(db=table, write=True) as writing, writing.cursor() as cursor:
            assert cursor.last()
            row, stored = cursor.key(), cursor.value()
            writing.put(row, stored.replace(b"right", b"wrong"))
            assert stored != writing.get(row)


def test_a_member_with_other_keys_is_found_out(tmp_path: Path) -> None:
    flags = ("--corrupt-check-time=1s", "--corrupt-self-repair=false")
    three = LocalCluster(tmp_path, OURS, OURS, OURS, flags=flags).start()
    try:
        leader = three.leader()
        sick, well = (server for server in three.running() if server is not leader)
        three.ask(leader, "put", "k", "right")
        three.hashes()
        sick.stop()
        damage(sick)
        plain = sick.flags
        sick.flags = (*plain, "--feature-gates=InitialCorruptCheck=true")
        sick.spawn()
        assert sick.wait() == 1
        assert "found data inconsistency with peers" in sick.log
        sick.flags = plain
        sick.start()
        for _ in range(300):
            alarms = three.ask(well, "alarm", "list")
            if alarms:
                break
        # Whom a leader accuses depends on who leads now; that it is the right one, `sim` shows.
        assert "alarm:CORRUPT" in alarms
        refused = etcdctl(well.endpoint, "put", "k", "again")
        assert b"etcdserver: corrupt cluster" in refused.stderr, refused.stderr
    finally:
        three.stop()


def flip(server: Server, value: bytes) -> None:
    """One byte of a value on the disk of a member that runs, wherever a page has it."""
    path = server.data_dir / "member" / "snap" / "kv" / "data.mdb"
    with path.open("r+b") as file:
        for match in re.finditer(re.escape(value), file.read()):
            file.seek(match.start())
            file.write(bytes([value[0] ^ 1]))


def test_a_flipped_byte_is_found_and_the_member_rebuilt_by_itself(tmp_path: Path) -> None:
    """Under load, and nothing that was acknowledged is lost."""
    flags = ("--corrupt-check-time=1s", "--snapshot-count=200")
    with Fleet(tmp_path, 3, flags=flags) as fleet:
        load = fleet.load()
        leader = fleet.leader_among(fleet.names)
        load.wait_acknowledged(PROGRESS, *fleet.names)
        value = b"flipped-" + b"v" * 100
        fleet.ask(fleet.servers[leader], "put", "precious", value.decode())
        sick = next(name for name in fleet.names if name != leader)
        server = fleet.servers[sick]
        database = server.data_dir / "member" / "snap" / "kv" / "data.mdb"
        fleet.until("the value on the disk", lambda: value in database.read_bytes())
        wrong = bytes([value[0] ^ 1]) + value[1:]

        def found_out() -> bool:
            if "differ from the majority's" in server.log:
                return True
            flip(server, value)  # again: a commit may just have copied the page
            return False

        fleet.until("its own verdict", found_out)
        fleet.until("another life", lambda: "starts again with the database" in server.log)
        fleet.until("the end of its alarm", lambda: "its alarm is disarmed" in server.log)
        fleet.forget(sick)
        load.wait_acknowledged(PROGRESS, *fleet.names)
        load.stop()
        load.check()
        fleet.whole()
        assert fleet.ask(server, "get", "precious", "--print-value-only").strip() == value.decode()
        (kept,) = (server.data_dir / "member").glob("corrupt-*")
        assert wrong in (kept / "data.mdb").read_bytes()
        others = [fleet.servers[name] for name in fleet.names if name != sick]
        assert not any("starts again" in other.log for other in others)


@pytest.mark.soak
def test_a_leader_whose_disk_stalls_steps_down(tmp_path: Path) -> None:
    gates = {f"m{number}": tmp_path / f"gate{number}" for number in (1, 2, 3)}
    for gate in gates.values():
        gate.touch()
    commands = [(sys.executable, STALLING, str(gate)) for gate in gates.values()]
    with Fleet(tmp_path, 3, commands=commands) as fleet:
        load = fleet.load()
        old = fleet.leader_among(fleet.names)
        load.wait_acknowledged(PROGRESS, old)
        others = [name for name in fleet.names if name != old]
        with gates[old].open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            new = fleet.leader_among(others)
            own = fleet.told(new)
            assert own is not None

            def noticed() -> bool:
                told = fleet.told(old)
                return told is not None and told.leader != told.header.member_id

            fleet.until("the old leader has stepped down", noticed)
            load.wait_acknowledged(PROGRESS, *others)
            fleet.portal.run(fleet.client(old).get("a", serializable=True))
            with pytest.raises((errors.DeadlineError, errors.EtcdError)):
                fleet.portal.run(fleet.client(old).put("a", "late", timeout_s=0.5))
        load.wait_acknowledged(PROGRESS, old)
        load.stop()
        fleet.whole()
        load.check()
        log = fleet.servers[old].log
        assert "leader is overloaded likely from slow disk" in log
        assert "slow fdatasync" in log
