"""Counts of the traffic between members, read when metrics are scraped.

Keys are member ids in hexadecimal, as the labels To, From and Remote carry them.
"""

from __future__ import annotations

from collections import Counter


class PeerMetrics:
    """Plain numbers that only the loop thread changes."""

    __slots__ = (
        "active",
        "disconnected",
        "received_bytes",
        "received_failures",
        "round_trip_s",
        "sent_bytes",
        "sent_failures",
        "snapshot_receive_failures",
        "snapshot_receive_inflight",
        "snapshot_receive_s",
        "snapshot_received",
        "snapshot_send_failures",
        "snapshot_send_inflight",
        "snapshot_send_s",
        "snapshot_sent",
    )

    def __init__(self) -> None:
        self.active: set[str] = set()
        self.disconnected: Counter[str] = Counter()
        self.received_bytes: Counter[str] = Counter()
        self.received_failures: Counter[str] = Counter()
        self.sent_bytes: Counter[str] = Counter()
        self.sent_failures: Counter[str] = Counter()
        self.snapshot_sent: Counter[str] = Counter()
        self.snapshot_send_failures: Counter[str] = Counter()
        self.snapshot_send_inflight: Counter[str] = Counter()
        self.snapshot_received: Counter[str] = Counter()
        self.snapshot_receive_failures: Counter[str] = Counter()
        self.snapshot_receive_inflight: Counter[str] = Counter()
        # (peer, seconds) observations since they were last taken by the exposition
        self.round_trip_s: list[tuple[str, float]] = []
        self.snapshot_send_s: list[tuple[str, float]] = []
        self.snapshot_receive_s: list[tuple[str, float]] = []
