"""How often a client may ping (gRPC-Go `http2_server.go`, handlePing; "Keepalive Enforcement").

A ping that comes sooner than the policy allows is a strike; the third strike ends the connection. A
ping after an answer of ours, as gRPC-Go sends them to measure bandwidth, resets the strikes.
"""

from __future__ import annotations

from .http2.errors import ENHANCE_YOUR_CALM, ConnectionFault
from .limits import PING_IDLE_INTERVAL_S_MIN, PING_STRIKES_MAX, Limits


class KeepaliveEnforcement:
    """One client's pings and strikes."""

    __slots__ = ("_last_at", "_min_time_s", "_strikes")

    def __init__(self, limits: Limits) -> None:
        self._min_time_s = limits.keepalive_min_time_s
        self._last_at = -PING_IDLE_INTERVAL_S_MIN
        self._strikes = 0

    def ping(self, now: float, provoked: bool, idle: bool) -> None:
        """Counts a ping; `idle`: no stream is open. Raises ConnectionFault."""
        last, self._last_at = self._last_at, now
        if provoked:
            self._strikes = 0
            return
        minimum = PING_IDLE_INTERVAL_S_MIN if idle else self._min_time_s
        if now < last + minimum:
            self._strikes += 1
            if self._strikes > PING_STRIKES_MAX:
                raise ConnectionFault(ENHANCE_YOUR_CALM, "too_many_pings")
