"""Writes contrib/grafana/keyraft.json, the Grafana dashboard: rows of panels, each of some queries.

`python tools/dashboard.py` after a change; tests/telemetry looks whether the file is current, and
has Prometheus answer each query over real members.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

FILE: Final = Path(__file__).resolve().parents[1] / "contrib" / "grafana" / "keyraft.json"
OF: Final = 'job="$job", instance=~"$instance"'
RATE: Final = "$__rate_interval"
WIDTH: Final = 24
HEIGHT: Final = 7


class Panel(NamedTuple):
    """One graph or number. `queries` are pairs of an expression and its legend."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"


def rate(name: str, more: str = "") -> str:
    return f"rate({name}{{{OF}{more}}}[{RATE}])"


def p99(name: str, by: str = "instance", more: str = "") -> str:
    return f"histogram_quantile(0.99, sum by ({by}, le) ({rate(name + '_bucket', more)}))"


def now(name: str, more: str = "") -> str:
    return f"{name}{{{OF}{more}}}"


ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "The cluster": (
        Panel("Members up", "none", (('sum(up{job="$job"})', ""),), "stat"),
        Panel(
            "Has a leader", "bool_yes_no", ((f"min({now('etcd_server_has_leader')})", ""),), "stat"
        ),
        Panel(
            "Leader",
            "none",
            ((f"{now('etcd_server_is_leader')} == 1", "{{instance}}"),),
            "stat",
        ),
        Panel(
            "Alarms",
            "none",
            (
                (
                    'sum by (alarm_type) (etcd_debugging_server_alarms{job="$job"}) '
                    'or label_replace(vector(0), "alarm_type", "none", "", "")',
                    "{{alarm_type}}",
                ),
            ),
            "stat",
        ),
        Panel(
            "Versions",
            "none",
            (
                (
                    f"count by (server_version) ({now('etcd_server_version')})",
                    "{{server_version}}",
                ),
            ),
            "stat",
        ),
        Panel(
            "Leader changes in an hour",
            "none",
            ((f"max(increase({now('etcd_server_leader_changes_seen_total')}[1h]))", ""),),
            "stat",
        ),
    ),
    "Requests": (
        Panel(
            "Calls",
            "reqps",
            (
                (
                    f"sum by (grpc_method) ({rate('grpc_server_started_total')}) > 0",
                    "{{grpc_method}}",
                ),
            ),
        ),
        Panel(
            "Failed calls",
            "reqps",
            (
                (
                    "sum by (grpc_method, grpc_code) "
                    f"({rate('grpc_server_handled_total', ', grpc_code!=' + chr(34) + 'OK' + chr(34))})",
                    "{{grpc_method}} {{grpc_code}}",
                ),
            ),
        ),
        Panel(
            "Duration of requests, p99",
            "s",
            ((p99("etcd_server_request_duration_seconds", "type"), "{{type}}"),),
        ),
        Panel(
            "Duration of reads, p99",
            "s",
            ((p99("etcd_server_range_duration_seconds"), "{{instance}}"),),
        ),
        Panel(
            "Open streams",
            "none",
            (
                (
                    'sum by (grpc_method) (grpc_server_started_total{grpc_type="bidi_stream", '
                    f"{OF}}}) - sum by (grpc_method) "
                    f'(grpc_server_handled_total{{grpc_type="bidi_stream", {OF}}})',
                    "{{grpc_method}}",
                ),
            ),
        ),
        Panel(
            "Traffic of clients",
            "Bps",
            (
                (rate("etcd_network_client_grpc_received_bytes_total"), "in {{instance}}"),
                (rate("etcd_network_client_grpc_sent_bytes_total"), "out {{instance}}"),
            ),
        ),
    ),
    "Raft": (
        Panel(
            "Proposals",
            "ops",
            (
                (rate("etcd_server_proposals_committed_total"), "committed {{instance}}"),
                (rate("etcd_server_proposals_applied_total"), "applied {{instance}}"),
                (rate("etcd_server_proposals_failed_total"), "failed {{instance}}"),
            ),
        ),
        Panel(
            "Proposals pending",
            "none",
            ((now("etcd_server_proposals_pending"), "{{instance}}"),),
        ),
        Panel(
            "Behind the newest commit",
            "none",
            (
                (
                    f"scalar(max({now('etcd_server_proposals_committed_total')})) - "
                    f"{now('etcd_server_proposals_applied_total')}",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Round trips to peers, p99",
            "s",
            (
                (
                    p99("etcd_network_peer_round_trip_time_seconds", "instance, To"),
                    "{{instance}} to {{To}}",
                ),
            ),
        ),
        Panel(
            "Traffic of peers",
            "Bps",
            (
                (
                    f"sum by (instance) ({rate('etcd_network_peer_received_bytes_total')})",
                    "in {{instance}}",
                ),
                (
                    f"sum by (instance) ({rate('etcd_network_peer_sent_bytes_total')})",
                    "out {{instance}}",
                ),
            ),
        ),
        Panel(
            "Late heartbeats, slow reads and applies",
            "ops",
            (
                (rate("etcd_server_heartbeat_send_failures_total"), "heartbeats {{instance}}"),
                (rate("etcd_server_slow_read_indexes_total"), "reads {{instance}}"),
                (rate("etcd_server_slow_apply_total"), "applies {{instance}}"),
            ),
        ),
    ),
    "Disk and space": (
        Panel(
            "Syncs of the log, p99",
            "s",
            ((p99("etcd_disk_wal_fsync_duration_seconds"), "{{instance}}"),),
        ),
        Panel(
            "Commits of the database, p99",
            "s",
            ((p99("etcd_disk_backend_commit_duration_seconds"), "{{instance}}"),),
        ),
        Panel(
            "Writes under way",
            "s",
            (
                (now("keyraft_disk_wal_write_in_progress_seconds"), "log {{instance}}"),
                (now("keyraft_disk_backend_commit_in_progress_seconds"), "database {{instance}}"),
            ),
        ),
        Panel(
            "Database",
            "bytes",
            (
                (now("etcd_mvcc_db_total_size_in_bytes"), "file {{instance}}"),
                (now("etcd_mvcc_db_total_size_in_use_in_bytes"), "in use {{instance}}"),
            ),
        ),
        Panel(
            "Quota in use",
            "percentunit",
            (
                (
                    f"{now('etcd_mvcc_db_total_size_in_use_in_bytes')} / "
                    f"({now('etcd_server_quota_backend_bytes')} > 0)",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Written to the log",
            "Bps",
            ((rate("etcd_disk_wal_write_bytes_total"), "{{instance}}"),),
        ),
    ),
    "Keys, watches, leases": (
        Panel("Keys", "none", ((now("etcd_debugging_mvcc_keys_total"), "{{instance}}"),)),
        Panel(
            "Changes",
            "ops",
            (
                (rate("etcd_mvcc_put_total"), "puts {{instance}}"),
                (rate("etcd_mvcc_delete_total"), "deletes {{instance}}"),
                (rate("etcd_mvcc_txn_total"), "transactions {{instance}}"),
            ),
        ),
        Panel(
            "Watchers",
            "none",
            (
                (now("etcd_debugging_mvcc_watcher_total"), "all {{instance}}"),
                (now("etcd_debugging_mvcc_slow_watcher_total"), "behind {{instance}}"),
            ),
        ),
        Panel("Events", "ops", ((rate("etcd_debugging_mvcc_events_total"), "{{instance}}"),)),
        Panel(
            "Leases",
            "ops",
            (
                (rate("etcd_debugging_lease_granted_total"), "granted {{instance}}"),
                (rate("etcd_debugging_lease_renewed_total"), "renewed {{instance}}"),
                (rate("etcd_debugging_lease_revoked_total"), "revoked {{instance}}"),
                (rate("etcd_debugging_server_lease_expired_total"), "ran out {{instance}}"),
            ),
        ),
        Panel(
            "Revisions",
            "none",
            (
                (
                    f"{now('etcd_debugging_mvcc_current_revision')} - "
                    f"{now('etcd_debugging_mvcc_compact_revision')}",
                    "since the compaction {{instance}}",
                ),
            ),
        ),
    ),
    "The process": (
        Panel("Processor", "percentunit", ((rate("process_cpu_seconds_total"), "{{instance}}"),)),
        Panel("Memory", "bytes", ((now("process_resident_memory_bytes"), "{{instance}}"),)),
        Panel(
            "File descriptors in use",
            "percentunit",
            ((f"{now('process_open_fds')} / {now('process_max_fds')}", "{{instance}}"),),
        ),
        Panel(
            "Collections of garbage",
            "ops",
            (
                (
                    f"sum by (instance, generation) ({rate('python_gc_collections_total')})",
                    "{{instance}} generation {{generation}}",
                ),
            ),
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """The whole, as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place, "panels": []}
        )
        top += 1
        per_line = 6 if row[0].kind == "stat" else 3
        height = 4 if row[0].kind == "stat" else HEIGHT
        for number, panel in enumerate(row):
            line, column = divmod(number, per_line)
            width = WIDTH // per_line
            panels.append(
                {
                    "id": len(panels) + 1,
                    "type": panel.kind,
                    "title": panel.title,
                    "datasource": {"type": "prometheus", "uid": "$datasource"},
                    "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                    "gridPos": {
                        "x": column * width,
                        "y": top + line * height,
                        "w": width,
                        "h": height,
                    },
                    "targets": [
                        {
                            "refId": chr(ord("A") + index),
                            "expr": expr,
                            "legendFormat": legend,
                            "datasource": {"type": "prometheus", "uid": "$datasource"},
                            **({"instant": True} if panel.kind == "stat" else {}),
                        }
                        for index, (expr, legend) in enumerate(panel.queries)
                    ],
                }
            )
        top += height * -(-len(row) // per_line)
    source = {"type": "prometheus", "uid": "$datasource"}
    return {
        "title": "Keyraft",
        "uid": "keyraft",
        "tags": ["etcd", "keyraft"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                _variable(
                    "job", "label_values(etcd_server_has_leader, job)", source, several=False
                ),
                _variable(
                    "instance",
                    'label_values(etcd_server_has_leader{job="$job"}, instance)',
                    source,
                    several=True,
                ),
            ]
        },
        "panels": panels,
    }


def _variable(name: str, query: str, source: dict[str, str], *, several: bool) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "query": query,
        "datasource": source,
        "refresh": 2,
        "includeAll": several,
        "multi": several,
        "allValue": ".*",
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text())
