"""What a slice of applied entries did, by kind of request, and how long it took.

The hot path counts in lists; a slice that is done is observed at once, with its mean.
"""

from __future__ import annotations

from keyraft.base.clock import Loop
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.histograms import Histogram
from keyraft.base.waiters import Waiter
from keyraft.server.apply import internal_request
from keyraft.server.counters import Counters


class RequestTally:
    """The lists, by kind: requests carried out, those of them that failed, and when those that
    were answered here had begun. Whoever applies counts in them."""

    __slots__ = ("_counters", "_loop", "_put_s", "began_s", "counts", "failures")

    def __init__(self, kinds: int, counters: Counters, loop: Loop) -> None:
        """`kinds`: those below are counted."""
        self._counters = counters
        self._loop = loop
        self._put_s: Histogram | None = None
        self.counts = [0] * kinds
        self.failures = [0] * kinds
        self.began_s: list[list[float]] = [[] for _ in range(kinds)]

    def refuse(self, kind: int, waiter: Waiter, refusal: EtcdError | RawError) -> None:
        """Answers one that took more than its turn, or is rare."""
        name = internal_request.KINDS.get(kind, "unknown")
        times = self._counters.request_times
        times.refused(name, waiter.began_s, self._loop.time())
        waiter.fail(refusal.code, refusal.text)

    def respond(self, kind: int, waiter: Waiter, result: bytes) -> None:
        """The same for one that was carried out."""
        name = internal_request.KINDS.get(kind, "unknown")
        times = self._counters.request_times
        times.carried_out(name, [waiter.began_s], self._loop.time())
        waiter.respond(result)

    def slice_done(self, seconds: float) -> None:
        """Spreads a slice's time over its requests, for etcd_server_apply_duration_seconds."""
        total = sum(self.counts)
        if not total:
            return
        each_s = seconds / total
        counters = self._counters
        if (
            self.counts[internal_request.KIND_PUT] == total
            and not self.failures[internal_request.KIND_PUT]
        ):
            # Mostly a slice of puts: a lone client's slice is one put.
            if self._put_s is None:
                self._put_s = counters.apply_duration_s.of(
                    "v3", internal_request.KINDS[internal_request.KIND_PUT], "true"
                )
            self._put_s.observe(each_s, total)
            self.counts[internal_request.KIND_PUT] = 0
            began_s = self.began_s[internal_request.KIND_PUT]
            if began_s:
                self.began_s[internal_request.KIND_PUT] = []
                counters.request_times.put(began_s, self._loop.time())
            return
        for kind, count in enumerate(self.counts):
            if count:
                failed = self.failures[kind]
                name = internal_request.KINDS[kind]
                if count > failed:
                    counters.apply_duration_s.of("v3", name, "true").observe(each_s, count - failed)
                if failed:
                    counters.apply_duration_s.of("v3", name, "false").observe(each_s, failed)
                    self.failures[kind] = 0
                self.counts[kind] = 0
                self._observe_requests(kind)

    def _observe_requests(self, kind: int) -> None:
        began_s = self.began_s[kind]
        if began_s:
            self.began_s[kind] = []
            self._counters.request_times.carried_out(
                internal_request.KINDS[kind], began_s, self._loop.time()
            )
