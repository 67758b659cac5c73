"""How long the writes that are under way have taken so far: what a stalled disk shows.

Durations of writes tell of a slow disk only when the writes have ended. On a disk that has stalled
none ends, so metrics and health ask here.
"""

from __future__ import annotations

from typing import Final

from keyraft.base.clock import Loop
from keyraft.mvcc.backend import BatchBackend
from keyraft.server.consensus.raft_loop import RaftLoop

STALLED_S: Final = 1.0  # a write that takes longer is told of


class DiskWaits:
    """Of one member. Asked when somebody looks, so writes pay nothing."""

    __slots__ = ("_backend", "_loop", "_raft")

    def __init__(self, raft: RaftLoop, backend: BatchBackend, loop: Loop) -> None:
        self._raft = raft
        self._backend = backend
        self._loop = loop

    def log_s(self) -> float:
        """Seconds since the write of the log that is under way began; 0 when there is none."""
        return self._since_s(self._raft.writing_since_s)

    def database_s(self) -> float:
        """The same for the commit, or the defragmentation, of the database."""
        return self._since_s(self._backend.busy_since_s)

    def stalled(self) -> str:
        """Which write takes too long; "" when none does. A defragmentation may take its time."""
        waited_s = self.log_s()
        if waited_s <= STALLED_S:
            return ""
        return f"a write of the log has taken {waited_s:.1f}s so far"

    def _since_s(self, began_s: float | None) -> float:
        return 0.0 if began_s is None else self._loop.time() - began_s
