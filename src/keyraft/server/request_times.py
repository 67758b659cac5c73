"""How long requests take, for etcd_server_request_duration_seconds and its like.

A put costs the hot path one append here: what a slice of entries answered is observed when the
slice is done. Reads of one key that are answered at once take some microseconds: one in SAMPLE of
them is timed, and at a scrape those since the last one are counted with the mean of the timed ones.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from keyraft.base.histograms import Histogram, Histograms, exponential

SAMPLE: Final = 64  # a power of two


class RequestTimes:
    """One member's, since its start. Seconds, on the loop's clock."""

    __slots__ = (
        "_put",
        "_range",
        "_range_read",
        "_timed",
        "last_read",
        "ranges",
        "requests",
        "watch_event",
        "watch_message",
    )

    def __init__(self) -> None:
        self.requests = Histograms(exponential(0.001, 2, 14))  # labels (type, success)
        self.ranges = Histograms(exponential(0.0001, 2, 20))  # label (success,)
        self.last_read = (0.0, 0.0)  # when the last range of many keys was asked for, and read
        self._put: Histogram | None = None
        self._range: Histogram = self.requests.of("Range", "true")
        self._range_read: Histogram = self.ranges.of("true")
        self.watch_message = Histogram(exponential(0.001, 2, 14))
        self.watch_event = Histogram(exponential(0.001, 2, 14))
        self._timed: list[tuple[float, float]] = []  # reads at once: since the call, since the read

    def put(self, began_s: list[float], now_s: float) -> None:
        """`carried_out` for puts: mostly one."""
        if self._put is None or len(began_s) > 1:
            self.carried_out("Put", began_s, now_s)
            self._put = self.requests.of("Put", "true")
        else:
            self._put.observe(now_s - began_s[0])

    def carried_out(self, kind: str, began_s: list[float], now_s: float) -> None:
        """Requests of one kind were carried out; `began_s` says when each began."""
        histogram = self.requests.of(kind, "true")
        if len(began_s) == 1:
            histogram.observe(now_s - began_s[0])
            return
        for one_s, times in Counter(began_s).items():  # those that came together began together
            histogram.observe(now_s - one_s, times)

    def refused(self, kind: str, began_s: float, now_s: float) -> None:
        """One was refused."""
        self.requests.of(kind, "false").observe(now_s - began_s)

    def read(self, began_s: float, read_s: float, now_s: float) -> None:
        """A range that began at `began_s`, and was read from `read_s` on, is answered."""
        self.last_read = (began_s, read_s)
        self._range.observe(now_s - began_s)
        self._range_read.observe(now_s - read_s)

    def read_at_once(self, began_s: float, read_s: float, now_s: float) -> None:
        """The same for one that stands for many."""
        self._timed.append((now_s - began_s, now_s - read_s))
        if len(self._timed) == SAMPLE:  # nobody scrapes: half of them tell enough
            del self._timed[::2]

    def delivered(
        self,
        began_s: float,
        now_s: float,
        messages_before: int,
        events_before: int,
        messages: int,
        events: int,
    ) -> None:
        """A slice of the delivery to watchers has sent so many messages with so many events: each
        took its part of the time."""
        took_s, messages = now_s - began_s, messages - messages_before
        if messages:
            self.watch_message.observe(took_s / messages, messages)
            self.watch_event.observe(took_s / (events - events_before), messages)

    def settle(self, ranges: int) -> None:
        """Range requests were answered `ranges` times: those not yet observed were so at once."""
        left = ranges - self._range.count
        if left <= 0:
            return
        timed = self._timed or [(0.0, 0.0)]
        self._range.observe(sum(whole for whole, _ in timed) / len(timed), left)
        self._range_read.observe(sum(read for _, read in timed) / len(timed), left)
        self._timed.clear()
