"""Keepalive pings of our own: is anybody at the other end? (gRPC, "Keepalive"; RFC 9113 §6.7)

When nothing was heard for `interval_s`, a PING goes out; when nothing is heard for `timeout_s`
after it, the connection is dead. Whatever is heard is an answer. Zero turns either off.
"""

from __future__ import annotations

from math import inf

from keyraft.grpc.limits import Limits

OURS = b"kraft-ka"  # the eight octets of our pings


class Keepalive:
    """`due` is when something is to be done: the ping, or, if one is `unanswered`, the end.

    The connection writes `due` and `unanswered` when it hears something. With `always` pings go out
    also while no stream is open.
    """

    __slots__ = ("_timeout_s", "always", "due", "interval_s", "unanswered")

    def __init__(self, limits: Limits) -> None:
        self.interval_s = limits.keepalive_interval_s or inf
        self._timeout_s = limits.keepalive_timeout_s or inf
        self.always = True
        self.unanswered = False
        self.due = inf

    def heard(self, now: float) -> None:
        """The other end is there."""
        self.unanswered = False
        self.due = now + self.interval_s

    def asked(self, now: float) -> None:
        """A ping went out."""
        self.unanswered = True
        self.due = now + self._timeout_s
