"""Limits on actions that cost this end more than the peer (RFC 9113 §10.5).

Rapid reset (CVE-2023-44487) and floods of settings, pings, empty frames, small window updates and
errors: each has a budget in `Limits`, far above the needs of honest peers.
"""

from __future__ import annotations

from keyraft.grpc.limits import Budget, Limits

from .errors import ENHANCE_YOUR_CALM, ConnectionFault


class Meter:
    """Counts down a budget."""

    __slots__ = ("_left", "_rate", "_since", "_top", "_what")

    def __init__(self, budget: Budget, what: str) -> None:
        self._top = self._left = float(budget.burst)
        self._rate = budget.rate
        self._since = 0.0
        self._what = what

    def spend(self, now: float, what: str = "") -> None:
        """Takes one; raises ConnectionFault, which names `what`, when none is left."""
        if self._left < 1.0:
            self._left = min(self._top, self._left + (now - self._since) * self._rate)
            self._since = now
            if self._left < 1.0:
                raise ConnectionFault(ENHANCE_YOUR_CALM, what or self._what)
        elif self._left == self._top:
            self._since = now
        self._left -= 1.0


class Floods:
    """The budgets of one connection."""

    __slots__ = (
        "empty_frames",
        "odd_frames",
        "pings",
        "resets",
        "settings",
        "stream_faults",
        "window_updates",
    )

    def __init__(self, limits: Limits) -> None:
        self.resets = Meter(limits.resets, "too many resets")
        self.settings = Meter(limits.settings, "too many SETTINGS")
        self.pings = Meter(limits.pings, "too_many_pings")
        self.empty_frames = Meter(limits.empty_frames, "too many empty frames")
        self.odd_frames = Meter(limits.odd_frames, "too many frames of no use")
        self.window_updates = Meter(limits.window_updates, "too many window updates")
        self.stream_faults = Meter(limits.stream_faults, "too many stream errors")
