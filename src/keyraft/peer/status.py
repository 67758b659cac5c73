"""Whether a peer is reachable, and since when; tells the operator at each change."""

from __future__ import annotations

from keyraft.base.log import Logger
from keyraft.cluster import format_id
from keyraft.peer.metrics import PeerMetrics


class PeerStatus:
    """Active from the first successful exchange to the first failure of any channel."""

    __slots__ = ("_logger", "_metrics", "_name", "active", "active_since_s")

    def __init__(self, peer_id: int, logger: Logger, metrics: PeerMetrics) -> None:
        self._name = format_id(peer_id)
        self._logger = logger
        self._metrics = metrics
        self.active = False
        self.active_since_s = 0.0  # loop time; 0 while inactive

    def activate(self, now_s: float) -> None:
        """An exchange succeeded at loop time `now_s`."""
        if self.active:
            return
        self.active = True
        self.active_since_s = now_s
        self._metrics.active.add(self._name)
        self._logger.info("peer became active", peer_id=self._name)

    def deactivate(self, channel: str, action: str, reason: str) -> None:
        """An exchange over `channel` failed while doing `action`."""
        text = f"failed to {action} {self._name} on {channel} ({reason})"
        if not self.active:
            self._logger.debug("peer deactivated again", peer_id=self._name, error=text)
            return
        self.active = False
        self.active_since_s = 0.0
        self._metrics.active.discard(self._name)
        self._metrics.disconnected[self._name] += 1
        self._logger.warn(
            "peer became inactive (message send to peer failed)", peer_id=self._name, error=text
        )
