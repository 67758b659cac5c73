"""The graceful end of a connection (RFC 9113 §6.8).

The first GOAWAY names the highest possible stream, so that requests under way are not lost; the
true one follows when the PING behind it comes back, or after a grace. From then on the connection
ends with its last stream.
"""

from __future__ import annotations

from math import inf

from . import frames
from .errors import NO_ERROR

DRAIN_PING = b"kraft-dr"  # the ping behind the first one


class Goaway:
    """The state of a graceful end.

    `final_at` is when the final GOAWAY is sent even without an answer to the PING; infinite if none
    is due.
    """

    __slots__ = ("final_at", "received", "sent")

    def __init__(self) -> None:
        self.sent = False
        self.received = False
        self.final_at = inf

    @property
    def is_final(self) -> bool:
        """Whether the final GOAWAY was sent: newer streams are ignored."""
        return self.sent and self.final_at == inf

    def announced(self, final_at: float) -> bytes:
        """The frames that announce the end."""
        self.sent = True
        self.final_at = final_at
        return frames.goaway(frames.STREAM_ID_MAX, NO_ERROR, b"graceful_stop") + frames.ping(
            DRAIN_PING
        )

    def settled(self, last_stream: int) -> bytes:
        """The final GOAWAY, with the last stream."""
        self.final_at = inf
        return frames.goaway(last_stream, NO_ERROR)
