from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from keyraft.app.member_metrics import MemberMetrics
from keyraft.base.histograms import Histogram
from keyraft.base.log import NullLogger
from keyraft.gateway import Gateway, PortMetrics, ProcessFamilies
from keyraft.gateway.exposition import COUNTER, GAUGE, HISTOGRAM, Family, number, render
from keyraft.grpc import Router
from keyraft.net import Statistics
from keyraft.peer.metrics import PeerMetrics
from keyraft.proto import rpc_pb2
from keyraft.server import MemberHealth
from keyraft.server.apply import internal_request
from keyraft.storage.files import OsFiles
from keyraft.storage.snap import SnapDir
from tests.server.harness import OneMember
from tests.service.calls import ask
from tests.service.served import served


class FakeRequest:
    """A plain HTTP request and its answer."""

    def __init__(self, target: str, method: str = "GET", host: bytes = b"localhost:2379") -> None:
        self.method = method
        self.target = target
        self.headers = [(b"host", host)]
        self.body = b""
        self.peer = "127.0.0.1:1"
        self.common_name: str | None = None
        self.scheme = "http"
        self.writable = 1 << 20
        self.on_close: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.status = 0
        self.sent: dict[bytes, bytes] = {}
        self.content = b""

    def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        assert not self.status, "answered twice"
        self.status, self.sent, self.content = status, dict(headers), body

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        raise AssertionError("nothing here is streamed")

    def write(self, data: bytes) -> None:
        raise AssertionError("nothing here is streamed")

    def end(self) -> None:
        raise AssertionError("nothing here is streamed")

    def abort(self) -> None:
        raise AssertionError("nothing here is broken off")


class Port:
    """A client port over one member."""

    def __init__(self, **settings: tuple[str, ...]) -> None:
        self.one = OneMember()
        self.one.run(1.0)
        member = self.one.member
        self.gateway = Gateway(NullLogger(), **settings)
        router = Router()
        services = served(member)
        services.kv.register(router)
        fsync, commit = Histogram((0.001, 0.002)), Histogram((0.001,))
        fsync.observe(0.0015)
        own = MemberMetrics(
            member=member,
            fsync_s=fsync,
            commit_s=commit,
            wal_written_bytes=lambda: 7,
            peers=PeerMetrics(),
            snapshot_fsync_s=Histogram((0.001,)),
            snapshot_saved_s=Histogram((0.1,)),
            snapshots=SnapDir(OsFiles(), "/nowhere"),
            ranges_answered=lambda: 3,
            features=[("Slow", "ALPHA", False), ("Fast", "", True)],
        )
        port = PortMetrics(
            router=router,
            guard=services.guard,
            traffic=Statistics,
            health=self.gateway.counts,
            process=ProcessFamilies(),
        )
        self.gateway.serve(MemberHealth(member), (own.families, port.families))

    def get(self, target: str, method: str = "GET", host: bytes = b"x") -> FakeRequest:
        request = FakeRequest(target, method, host)
        self.gateway.handle(request)
        self.one.run(0.05)
        return request


@pytest.fixture
def port() -> Port:
    return Port()


def test_version_tells_server_cluster_and_storage(port: Port) -> None:
    answer = port.get("/version")
    assert (answer.status, answer.content) == (
        200,
        b'{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}',
    )
    assert answer.sent[b"access-control-allow-origin"] == b"*"
    refused = port.get("/version", "POST")
    assert (refused.status, refused.sent[b"allow"]) == (405, b"GET")


def test_health_and_its_alarms(port: Port) -> None:
    answer = port.get("/health")
    assert (answer.status, answer.content) == (200, b'{"health":"true","reason":""}')
    alarm = rpc_pb2.AlarmRequest(action=1, memberID=1, alarm=1).SerializeToString()
    port.one.propose(internal_request.KIND_ALARM, alarm)
    port.one.run(0.1)
    sick = port.get("/health")
    assert (sick.status, sick.content) == (503, b'{"health":"false","reason":"ALARM NOSPACE"}\n')
    assert port.get("/health?exclude=NOSPACE").status == 200
    assert port.get("/readyz").status == 200
    counts = port.gateway.counts
    assert (counts.successes, counts.failures) == (2, 1)


def test_without_a_leader_only_what_is_local_is_healthy(port: Port) -> None:
    port.one.lose_leader()
    answer = port.get("/health")
    assert answer.content == b'{"health":"false","reason":"RAFT NO LEADER"}\n'
    assert port.get("/health?serializable=true").status == 200
    assert port.get("/livez").content == b"ok\n"


def test_checks_are_listed_on_request_and_by_name(port: Port) -> None:
    verbose = port.get("/readyz?verbose")
    assert verbose.content == (
        b"[+]data_corruption ok\n[+]serializable_read ok\n"
        b"[+]linearizable_read ok\n[+]non_learner ok\nok\n"
    )
    assert port.get("/livez/serializable_read").content == b"ok\n"
    assert port.get("/livez/data_corruption").status == 404
    assert port.get("/livez/serializable_read/").status == 404
    assert port.get("/livez?exclude=serializable_read&verbose").content == b"ok\n"
    named = port.get("/livez/serializable_read?exclude=serializable_read&verbose")
    assert named.content == b"[+]serializable_read ok\nok\n"
    excluded = port.get("/readyz?verbose&exclude=non_learner&exclude=unheard")
    assert b"non_learner" not in excluded.content and excluded.status == 200
    alarm = rpc_pb2.AlarmRequest(action=1, memberID=1, alarm=2).SerializeToString()
    port.one.propose(internal_request.KIND_ALARM, alarm)
    port.one.run(0.1)
    sick = port.get("/readyz")
    assert sick.status == 503
    assert b"[-]data_corruption failed: alarm activated: CORRUPT\n" in sick.content
    assert sick.content.endswith(b"\n\n")


def test_a_stalled_disk_is_seen_and_is_no_reason_to_be_restarted(port: Port) -> None:
    def waits() -> float:
        page = port.get("/metrics").content.decode()
        found = re.search(r"^keyraft_disk_wal_write_in_progress_seconds (\S+)$", page, re.M)
        assert found is not None
        return float(found[1])

    assert waits() == 0
    assert port.get("/readyz/disk_write").content == b"ok\n"
    port.one.log.stuck = True
    port.one.put(b"k", b"v")
    port.one.run(2.4)
    assert 2.4 <= waits() < 2.6
    sick = port.get("/readyz/disk_write?verbose")
    assert sick.status == 503
    assert sick.content.startswith(
        b"[-]disk_write failed: a write of the log has taken 2.4s so far\n"
    )
    assert port.get("/livez").status == 200
    assert b"disk_write" not in port.get("/readyz?verbose").content
    assert port.get("/livez/disk_write").status == 404


def test_what_is_not_there_is_gos_404(port: Port) -> None:
    answer = port.get("/v2/keys")
    assert (answer.status, answer.content) == (404, b"404 page not found\n")
    assert port.get("/", "OPTIONS").status == 200
    assert port.get("//[").status == 400


def test_strange_hosts_are_misdirected() -> None:
    port = Port(host_whitelist=("localhost",))
    assert port.get("/version", host=b"evil.example:2379").status == 421
    assert port.get("/version", host=b"localhost:2379").status == 200


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_a_strange_host_is_not_told_which_origins_are_allowed(method: str) -> None:
    port = Port(host_whitelist=("localhost",), cors=("*",))
    answer = port.get("/version", method, host=b"evil.example:2379")
    assert answer.status == 421
    assert b"access-control-allow-origin" not in answer.sent


def test_only_origins_that_are_named_hear_that_they_may_read() -> None:
    """CVE-2018-1098: a browser keeps an answer from a page that is not allowed to read it."""
    port = Port(cors=("http://ours.example",))
    for origin, allowed in ((b"http://ours.example", True), (b"http://evil.example", False)):
        for method in ("GET", "OPTIONS"):
            request = FakeRequest("/version", method)
            request.headers.append((b"origin", origin))
            port.gateway.handle(request)
            told = request.sent.get(b"access-control-allow-origin")
            assert told == (origin if allowed else None)


def test_where_a_redirect_points_is_plain_text() -> None:
    port = Port()
    answer = port.get("/a/../version?a=%0d%0a\x01\x7f\xe9&b")
    assert answer.status == 307
    assert answer.sent[b"location"] == b"/version?a=%0d%0a%01%7F%C3%A9&b"


def test_metrics_carry_etcds_names(port: Port) -> None:
    port.one.put(b"k", b"v")
    port.one.run(0.1)
    answer = port.get("/metrics")
    assert answer.sent[b"content-type"] == b"text/plain; version=0.0.4; charset=utf-8"
    lines = answer.content.decode().splitlines()
    for expected in (
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        'etcd_server_version{server_version="3.7.1"} 1',
        'etcd_cluster_version{cluster_version="3.7"} 1',
        "etcd_mvcc_put_total 1",
        "etcd_debugging_mvcc_current_revision 2",
        "# TYPE etcd_server_proposals_applied_total gauge",
        "# TYPE etcd_server_health_success counter",
        'etcd_disk_wal_fsync_duration_seconds_bucket{le="0.002"} 1',
        'etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 1',
        'grpc_server_started_total{grpc_method="Put",grpc_service="etcdserverpb.KV",'
        'grpc_type="unary"} 0',
    ):
        assert expected in lines, expected
    assert len([line for line in lines if line.startswith("# TYPE")]) == len(
        {line for line in lines if line.startswith("# TYPE")}
    )


def test_metrics_tell_what_maintenance_did(port: Port) -> None:
    member = port.one.member
    services = served(member)
    maintenance = services.maintenance
    for value in (b"a", b"b", b"c", b"d"):
        port.one.put(b"k", value)
    ask(services.kv.compact, b"\x08\x04\x10\x01")  # up to 4, physically
    ask(maintenance.defragment, b"")
    port.one.run(0.5)
    ask(maintenance.hash_kv, b"")
    ask(maintenance.hash, b"")
    port.one.run(0.5)
    lines = port.get("/metrics").content.decode().splitlines()
    for expected in (
        "etcd_debugging_mvcc_db_compaction_keys_total 2",
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count 1",
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count 1",
        "etcd_disk_backend_defrag_duration_seconds_count 1",
        "etcd_disk_defrag_inflight 0",
        "etcd_mvcc_hash_rev_duration_seconds_count 1",
        "etcd_mvcc_hash_duration_seconds_count 1",
        "etcd_disk_backend_snapshot_duration_seconds_count 0",
        "etcd_snap_db_save_total_duration_seconds_count 0",
        "etcd_server_quota_backend_bytes 2.147483648e+09",
        'etcd_debugging_lease_ttl_total_bucket{le="1.048576e+06"} 0',
        'etcd_server_feature_enabled{name="Slow",stage="ALPHA"} 0',
        'etcd_server_feature_enabled{name="Fast",stage=""} 1',
    ):
        assert expected in lines, expected
    (last,) = (line for line in lines if line.startswith("etcd_debugging_mvcc_db_compaction_last "))
    assert abs(float(last.split()[1]) - member.wall_clock()) < 60


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12.5, "12.5"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (999999, "999999"),
        (1e6, "1e+06"),
        (1234567, "1.234567e+06"),
        (-2147483648, "-2.147483648e+09"),
        (1.5e300, "1.5e+300"),
    ],
)
def test_numbers_are_written_as_by_go(value: float, text: str) -> None:
    assert number(value) == text
    assert float(text) == value


def test_exposition_escapes_and_cumulates() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    page = render(
        [
            Family("b_total", COUNTER, "x").add(2, label='a"\\\n'),
            Family("a", HISTOGRAM, "line\nbreak").add_histogram(histogram),
            Family("empty", GAUGE, "nothing"),
        ]
    ).decode()
    assert page == (
        "# HELP a line\\nbreak\n# TYPE a histogram\n"
        'a_bucket{le="1"} 2\na_bucket{le="2"} 3\na_bucket{le="+Inf"} 4\na_sum 12\na_count 4\n'
        "# HELP b_total x\n# TYPE b_total counter\n"
        'b_total{label="a\\"\\\\\\n"} 2\n'
    )
