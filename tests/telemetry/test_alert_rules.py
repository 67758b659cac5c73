"""Each alert of contrib/prometheus: a real Prometheus fires it when real members have the fault,
and is quiet otherwise."""

from __future__ import annotations

import resource
import socket
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import grpc
import pytest

from keyraft.proto import rpc_pb2
from tests.support.cluster import LocalCluster
from tests.support.server import OURS, Server, needs_oracle, serving
from tests.telemetry.prometheus import Timeline, named, program, rules
from tests.telemetry.scenes import (
    STALLING,
    Caller,
    children,
    held,
    page,
    stopped,
    until,
    value,
)

soak = pytest.mark.soak  # `make test-prometheus` runs them
TIMING: Final = frozenset(
    (
        "etcdGRPCRequestsSlow",
        "etcdHeartbeatsLate",
        "etcdHighCommitDurations",
        "etcdHighFsyncDurations",
        "etcdLinearizableReadsSlow",
        "etcdMemberCommunicationSlow",
        "etcdRequestsSlow",
        "etcdSlowApplies",
    )
)
"""What a busy machine may raise rightly while a fault of another kind is made."""
QUOTA_BYTES: Final = 16 << 20
UNVERIFIED: Final = ("env", "KEYRAFT_VERIFY=0")  # looks at large values all the time
WRITING: Final = "keyraft_disk_wal_write_in_progress_seconds"
COMMITTING: Final = "keyraft_disk_backend_commit_in_progress_seconds"
PROBES_S: Final = 4.5  # longer than from one probe of a peer to the next

LEADERS: Final = ("etcdHighNumberOfLeaderChanges:warning",)
STALLED: Final = (
    "etcdHighNumberOfFailedProposals:warning",
    "etcdManyProposalsPending:warning",
    "keyraftDiskStalled:critical",
)
SLOW: Final = (
    "etcdGRPCRequestsSlow:warning",
    "etcdHeartbeatsLate:warning",
    "etcdHighCommitDurations:warning",
    "etcdHighFsyncDurations:critical",
    "etcdHighFsyncDurations:warning",
    "etcdHighNumberOfFailedProposals:warning",
    "etcdMemberCommunicationSlow:warning",
    "etcdRequestsSlow:warning",
)
FULL: Final = (
    "etcdAlarmNoSpace:critical",
    "etcdDatabaseQuotaLowSpace:critical",
    "etcdDatabaseQuotaLowSpace:warning",
    "etcdHighNumberOfFailedGRPCRequests:critical",
    "etcdHighNumberOfFailedGRPCRequests:warning",
)
STILL_FULL: Final = (
    "etcdAlarmNoSpace:critical",
    "etcdDatabaseQuotaLowSpace:critical",
    "etcdDatabaseQuotaLowSpace:warning",
    "etcdExcessiveDatabaseGrowth:warning",
)
CORRUPT: Final = ("etcdAlarmCorrupt:critical", "etcdHealthCheckFailing:warning")
ONE_DOWN: Final = ("etcdMembersDown:warning",)
TWO_DOWN: Final = (
    "etcdInsufficientMembers:critical",
    "etcdLinearizableReadsSlow:info",
    "etcdMembersDown:warning",
    "etcdNoLeader:critical",
)
SLOW_APPLIES: Final = ("etcdFileDescriptorsLow:warning", "etcdSlowApplies:warning")
LAVISH: Final = ("etcdDatabaseHighFragmentationRatio:warning", "etcdFileDescriptorsLow:warning")


def test_each_rule_has_a_fault_that_fires_it() -> None:
    fired = {
        *LEADERS,
        *STALLED,
        *SLOW,
        *FULL,
        *STILL_FULL,
        *CORRUPT,
        *ONE_DOWN,
        *TWO_DOWN,
        *LAVISH,
        *SLOW_APPLIES,
    }
    assert fired == {named(rule) for rule in rules()}


class Watched:
    """Members, and what a Prometheus beside them would see."""

    def __init__(self, servers: dict[str, Server]) -> None:
        self.servers = servers
        self.timeline = Timeline(servers)
        self._pages: dict[str, str | None] = {}

    def scrape(self, without: Server | None = None) -> None:
        """The next minute. `without`: a member that shows what it last showed."""
        for name, server in self.servers.items():
            if server is not without:
                self._pages[name] = page(server)
        self.timeline.scraped(dict(self._pages))

    def rest(self, minutes: int = 45) -> None:
        """A while after which everything is quiet."""
        self.timeline.hold(minutes)
        self.timeline.expect()

    def expect(self, *alerts: str) -> None:
        """What fires; what a busy machine raises beside it is let pass."""
        self.timeline.expect(*alerts, beside=TIMING)


@soak
@needs_oracle()
def test_faults_of_a_cluster_fire_their_alerts(tmp_path: Path) -> None:
    program("promtool")
    gates = [tmp_path / f"gate{number}" for number in range(3)]
    for gate in gates:
        gate.touch()
    three = LocalCluster(
        tmp_path,
        *((*UNVERIFIED, sys.executable, STALLING, str(gate)) for gate in gates),
        flags=(
            "--metrics=extensive",
            "--election-timeout=2500",
            f"--quota-backend-bytes={QUOTA_BYTES}",
        ),
    ).start()
    try:
        seen = Watched(three.servers)
        leader = three.leader()
        ids = {name: three.status(server)["member"] for name, server in three.servers.items()}
        for _ in range(3):
            caller = Caller(leader)
            caller.put(b"k").result()
            caller.get(b"k").result()
            seen.scrape()
        seen.rest()

        for _ in range(5):  # --- leaders come and go
            target = next(name for name in three.servers if three.servers[name] is not leader)
            Caller(leader).move_leader(ids[target])
            leader = three.leader()
            Caller(leader).put(b"k").result()
            seen.scrape()
        seen.timeline.hold(6)
        seen.expect(*LEADERS)
        seen.rest()

        slow_disk(seen, leader, gates[list(three.servers).index(leader.name)], ids)
        quota_reached(seen, leader)
        corruption_told(seen, leader, ids[leader.name])
        members_lost(seen, leader)
    finally:
        three.stop()
    seen.timeline.check(tmp_path)


def slow_disk(seen: Watched, leader: Server, gate: Path, ids: dict[str, int]) -> None:
    """The log's disk stalls three times, the database's once; a follower stands still."""
    caller = Caller(leader)
    follower = next(server for server in seen.servers.values() if server is not leader)
    assert follower.process is not None
    with stopped([follower.process.pid], PROBES_S):
        for number in range(3):
            with held(gate):
                calls = [caller.put(b"k") for _ in range(10 if number else 1_100)]
                for call in [caller.put(b"k", timeout=0.1) for _ in range(8)]:
                    with pytest.raises(grpc.RpcError):
                        call.result()
                until(lambda: value(leader, WRITING) > 1.1, "no write of the log waits")
                if not number:
                    seen.scrape(follower)
                    seen.timeline.hold(3)
                    seen.expect(*STALLED)
            for call in calls:
                call.result()
        with stopped(children(leader)):
            caller.put(b"k").result()
            until(lambda: value(leader, COMMITTING) > 0.6, "no commit waits")
    trips = "etcd_network_peer_round_trip_time_seconds"
    to = f'{{To="{ids[follower.name]:x}"'
    until(
        lambda: (
            value(leader, f"{trips}_count{to}") > value(leader, f'{trips}_bucket{to},le="0.2048"')
        ),
        "no round trip was slow",
    )
    commits = "etcd_disk_backend_commit_duration_seconds"
    until(
        lambda: (
            value(leader, f"{commits}_count") > value(leader, f'{commits}_bucket{{le="0.512"}}')
        ),
        "no commit was slow",
    )
    seen.scrape()
    seen.timeline.hold(3)
    seen.timeline.expect(*SLOW, beside=frozenset(("etcdLinearizableReadsSlow",)))
    seen.rest()


def quota_reached(seen: Watched, leader: Server) -> None:
    """Writes until they are refused, and on; then a compaction ends it."""
    caller = Caller(leader)
    megabyte = bytes(1 << 20)

    def refused() -> bool:
        try:
            caller.put(b"large", megabyte).result()
        except grpc.RpcError as refusal:
            return bool(refusal.code() == grpc.StatusCode.RESOURCE_EXHAUSTED)
        return False

    until(refused, "the quota lets everything pass")
    for _ in range(5):  # somebody tries every three minutes
        with pytest.raises(grpc.RpcError):
            caller.put(b"large", megabyte).result()
        seen.scrape()
        seen.timeline.hold(2)
    seen.timeline.expect(*FULL, beside=TIMING | {"etcdExcessiveDatabaseGrowth"})
    seen.timeline.hold(15)
    seen.expect(*STILL_FULL)
    caller.compact()
    until(lambda: not refused(), "still full")
    for server in seen.servers.values():
        until(partial(_has_room, server), "a member stays full")
    seen.scrape()
    seen.rest(130)


def _has_room(server: Server) -> bool:
    in_use = value(server, "etcd_mvcc_db_total_size_in_use_in_bytes")
    return not value(server, "etcd_debugging_server_alarms") and in_use < QUOTA_BYTES / 2


def corruption_told(seen: Watched, leader: Server, member_id: int) -> None:
    caller = Caller(leader)
    caller.alarm(1, member_id, 2)
    assert "CORRUPT" in str(page(leader, "readyz"))
    seen.scrape()
    seen.timeline.hold(2)
    seen.expect(*CORRUPT)
    caller.alarm(2, member_id, 2)
    assert page(leader, "readyz") == "ok\n"
    seen.scrape()
    seen.rest()


def members_lost(seen: Watched, leader: Server) -> None:
    others = [server for server in seen.servers.values() if server is not leader]
    others[0].kill()
    seen.scrape()
    seen.timeline.hold(4)
    seen.expect(*ONE_DOWN)
    caller = Caller(leader)
    others[1].kill()
    unread = caller.get(b"k")
    until(lambda: not value(leader, "etcd_server_has_leader"), "it still has a leader")
    with pytest.raises(grpc.RpcError):
        unread.result()
    seen.scrape()
    seen.timeline.hold(4)
    seen.expect(*TWO_DOWN)
    for server in others:
        server.spawn()
    for server in others:
        assert server.wait_ready()
    until(lambda: all(value(one, "etcd_server_has_leader") for one in seen.servers.values()), "?")
    seen.scrape()
    seen.rest()


@soak
def test_faults_of_one_member_fire_their_alerts(tmp_path: Path) -> None:
    program("promtool")
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard), hard))
    server = Server(
        OURS,
        tmp_path / "data",
        flags=("--warning-apply-duration=1ns",),
        prefix=(*UNVERIFIED, "prlimit", "--nofile=1024:1024"),
    )
    seen = Watched({"default": server})
    try:
        with serving(server), ExitStack() as open_now:
            caller = Caller(server)
            seen.scrape()
            megabyte = bytes(1 << 20)
            for _ in range(11):
                for call in [caller.put(b"large", megabyte) for _ in range(10)]:
                    call.result()
            size = "etcd_mvcc_db_total_size_in_bytes"
            until(lambda: value(server, size) > 100 << 20, "the file stays small")
            caller.compact()
            in_use = "etcd_mvcc_db_total_size_in_use_in_bytes"
            until(lambda: value(server, in_use) < value(server, size) / 2, "it stays in use")
            host, port = server.endpoint.split(":")
            while value(server, "process_open_fds") <= 0.8 * 1024:
                for _ in range(50):
                    open_now.enter_context(socket.create_connection((host, int(port))))
            seen.scrape()
            seen.timeline.hold(7)
            seen.timeline.expect(*SLOW_APPLIES, beside=TIMING)
            seen.timeline.hold(8)
            seen.expect(*LAVISH)
            open_now.close()
            request = rpc_pb2.DefragmentRequest()
            caller.begin("/etcdserverpb.Maintenance/Defragment", request).result()
            until(lambda: value(server, "process_open_fds") < 512, "connections stay")
            seen.scrape()
            seen.rest(130)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    seen.timeline.check(tmp_path)
