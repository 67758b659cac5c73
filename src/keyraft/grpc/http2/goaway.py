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
    """What was said of the end. `final_at` is when the true GOAWAY goes out without its PING;
    infinite where none is due."""

    __slots__ = ("final_at", "received", "sent")

    def __init__(self) -> None:
        self.sent = False
        self.received = False
        self.final_at = inf

    @property
    def is_final(self) -> bool:
        """Whether the other end knows the last stream: newer ones are none of ours."""
        return self.sent and self.final_at == inf

    def announced(self, final_at: float) -> bytes:
        """The frames that say that the end is near."""
        self.sent = True
        self.final_at = final_at
        return frames.goaway(frames.STREAM_ID_MAX, NO_ERROR, b"graceful_stop") + frames.ping(
            DRAIN_PING
        )

    def settled(self, last_stream: int) -> bytes:
        """The frame that says which stream was the last."""
        self.final_at = inf
        return frames.goaway(last_stream, NO_ERROR)
