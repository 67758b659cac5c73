"""Keepalive pings, to detect a dead connection (gRPC, "Keepalive"; RFC 9113 §6.7).

When nothing was received for `interval_s`, a PING is sent; when nothing is received for `timeout_s`
after it, the connection is dead. Any byte counts as an answer. Zero turns either off.
"""

from __future__ import annotations

from math import inf

from keyraft.grpc.limits import Limits

OURS = b"kraft-ka"  # the eight octets of our pings


class Keepalive:
    """`due` is the time of the next ping or, if one is `unanswered`, of the end.

    The connection sets `due` and `unanswered` when it receives something. With `always` pings go
    out also while no stream is open.
    """

    __slots__ = ("_timeout_s", "always", "due", "interval_s", "unanswered")

    def __init__(self, limits: Limits) -> None:
        self.interval_s = limits.keepalive_interval_s or inf
        self._timeout_s = limits.keepalive_timeout_s or inf
        self.always = True
        self.unanswered = False
        self.due = inf

    def heard(self, now: float) -> None:
        """Something was received."""
        self.unanswered = False
        self.due = now + self.interval_s

    def asked(self, now: float) -> None:
        """A ping was sent."""
        self.unanswered = True
        self.due = now + self._timeout_s
