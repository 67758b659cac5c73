"""The event loop of a running member."""

from __future__ import annotations

import time

import uvloop


class ExactLoop(uvloop.Loop):
    """uvloop with an exact clock.

    Its own counts whole milliseconds and may be one behind, so a lease renewed by it would end
    early.
    """

    time = staticmethod(time.monotonic)  # replaces the method
