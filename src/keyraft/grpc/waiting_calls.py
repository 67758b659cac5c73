"""Calls that wait for a stream: the server's SETTINGS_MAX_CONCURRENT_STREAMS are in use
(RFC 9113 §5.1.2)."""

from __future__ import annotations

from collections import deque

from .client_calls import ClientCall


class WaitingCalls(deque[ClientCall]):
    """A queue of calls, in the order in which they were made."""

    def next_call(self) -> ClientCall | None:
        """Removes and returns the first call that has not ended."""
        while self:
            call = self.popleft()
            if not call.over:
                return call
        return None

    def take_all(self) -> list[ClientCall]:
        """Empties the queue."""
        calls = list(self)
        self.clear()
        return calls

    def take_expired(self, now: float) -> list[ClientCall]:
        """Removes and returns the calls whose deadline has passed."""
        expired = [c for c in self if c.deadline_s is not None and c.deadline_s <= now]
        for call in expired:
            self.remove(call)
        return expired

    def next_deadline(self, other: float | None) -> float | None:
        """The earliest deadline of all waiting calls and `other`."""
        due = other
        for call in self:
            if call.deadline_s is not None and (due is None or call.deadline_s < due):
                due = call.deadline_s
        return due
