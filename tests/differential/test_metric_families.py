"""What a scrape holds beside the original's: the live 3.5.1, and what 3.7.1 told (recorded).

A family that is missing, or whose type, labels or buckets differ, is listed here with the reason.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support.cluster import TRIES, LocalCluster
from tests.support.server import ORACLE, OURS, Server, etcdctl, needs_oracle, serving

pytestmark = pytest.mark.real

RECORDED: Final = Path(__file__).parent / "metrics_of_3_7_1.txt"

_LMDB: Final = "LMDB has no such phase of a commit"
_V2: Final = "there is no v2 store"
_PROXY: Final = "a member is no proxy; the proxy has it"
_ATONCE: Final = "who makes such a message sends it at once: no loop runs for it"

MISSING: Final = {
    "etcd_debugging_disk_backend_commit_rebalance_duration_seconds": _LMDB,
    "etcd_debugging_disk_backend_commit_spill_duration_seconds": _LMDB,
    "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds": _ATONCE,
    "etcd_debugging_server_watch_send_loop_progress_duration_seconds": _ATONCE,
    "etcd_debugging_store_expires_total": _V2,
    "etcd_debugging_store_reads_total": _V2,
    "etcd_debugging_store_watch_requests_total": _V2,
    "etcd_debugging_store_watchers": _V2,
    "etcd_debugging_store_writes_total": _V2,
    "etcd_grpc_proxy_cache_hits_total": _PROXY,
    "etcd_grpc_proxy_cache_keys_total": _PROXY,
    "etcd_grpc_proxy_cache_misses_total": _PROXY,
    "etcd_grpc_proxy_events_coalescing_total": _PROXY,
    "etcd_grpc_proxy_watchers_coalescing_total": _PROXY,
}
"""Families of the original that a member does not have, and why."""

OTHERWISE_IN_3_5: Final[dict[str, str]] = {}
"""Families that 3.5.1 has in another form than 3.7.1, and why ours is the newer one."""


class Form(NamedTuple):
    kind: str
    labels: frozenset[str]
    buckets: frozenset[str]


def forms(page: str) -> dict[str, Form]:
    """The families of a scrape that have a sample."""
    kinds: dict[str, str] = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M))
    labels: dict[str, set[str]] = {}
    buckets: dict[str, set[str]] = {}
    for name, inner in re.findall(r"^([a-z_0-9]+)(?:\{(.*)\})? \S+$", page, re.M):
        family = name if name in kinds else re.sub(r"_(bucket|sum|count)$", "", name)
        found = dict(re.findall(r'(\w+)="([^"]*)"', inner))
        bound = found.pop("le", None)
        labels.setdefault(family, set()).update(found)
        buckets.setdefault(family, set()).update([bound] if bound is not None else [])
    return {
        name: Form(kinds[name], frozenset(labels[name]), frozenset(buckets[name]))
        for name in labels
        if not name.startswith("go_")  # Go's own runtime; ours is python_*
    }


def recorded() -> dict[str, Form]:
    found = {}
    for line in RECORDED.read_text().splitlines():
        name, kind, labels, buckets = line.split()
        found[name] = Form(kind, _listed(labels), _listed(buckets))
    return found


def _listed(text: str) -> frozenset[str]:
    return frozenset(() if text == "-" else text.split(","))


def worked(server: Server) -> dict[str, Form]:
    """Some of everything, and a scrape."""
    for number in range(5):
        etcdctl(server.endpoint, "put", f"k{number}", "v")
    for words in (
        ("get", "k", "--prefix"),
        ("del", "k1"),
        ("compact", "3"),
        ("defrag",),
        ("lease", "grant", "100"),
        ("alarm", "list"),
        ("endpoint", "health"),
    ):
        assert etcdctl(server.endpoint, *words).returncode == 0, words
    for path in ("health", "livez", "readyz"):
        with_404(server, path)
    return forms(with_404(server, "metrics"))


def with_404(server: Server, path: str) -> str:
    """What a path gives; the older original does not know all of them."""
    try:
        with urllib.request.urlopen(f"http://{server.endpoint}/{path}") as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as refusal:
        return str(refusal.code)


@needs_oracle()
def test_a_scrape_has_the_families_of_the_original(tmp_path: Path) -> None:
    ours = Server(OURS, tmp_path / "ours")
    theirs = Server(ORACLE, tmp_path / "theirs")
    with serving(ours, theirs):
        found, older = worked(ours), worked(theirs)
    newest = recorded()
    assert set(MISSING) <= newest.keys() | older.keys()
    assert not MISSING.keys() & found.keys()
    missing = (newest.keys() | older.keys()) - found.keys() - MISSING.keys()
    assert not missing
    other = {
        name: (found[name], form)
        for name, form in {**older, **newest}.items()
        if name in found and found[name] != form and name not in OTHERWISE_IN_3_5
    }
    assert not other
    own = found.keys() - newest.keys() - older.keys()
    assert all(name.startswith(("python_", "keyraft_")) for name in own), own


BETWEEN_MEMBERS: Final = ("etcd_network_", "grpc_server_handling_seconds")
NOT_YET: Final = {
    "etcd_network_disconnected_peers_total": "counts peers that were lost; in so short a time "
    "either may have lost one, or not",
    "etcd_network_peer_received_failures_total": "the same for streams that broke off",
    "etcd_network_peer_sent_failures_total": "the same for messages that found no stream yet",
    "etcd_network_server_stream_failures_total": "the same for clients' streams",
}


@needs_oracle()
def test_two_members_have_the_families_of_the_original(tmp_path: Path) -> None:
    flags = ("--metrics=extensive",)
    found = []
    for number, command in enumerate((OURS, ORACLE)):
        folder = tmp_path / str(number)
        folder.mkdir()
        two = LocalCluster(folder, command, command, flags=flags).start()
        try:
            leader = two.leader()
            two.ask(leader, "put", "k", "v")
            needed = "etcd_network_peer_round_trip_time_seconds"
            shown: dict[str, Form] = {}
            for _ in range(TRIES):
                shown = forms(with_404(leader, "metrics"))
                if needed in shown:
                    break
                two.ask(leader, "get", "k")
            found.append(
                {name: form for name, form in shown.items() if name.startswith(BETWEEN_MEMBERS)}
            )
        finally:
            two.stop()
    ours, theirs = ({n: f for n, f in one.items() if n not in NOT_YET} for one in found)
    newer = {name: ours.pop(name) for name in ours.keys() - theirs.keys()}
    assert ours == theirs
    assert newer.items() <= recorded().items()
