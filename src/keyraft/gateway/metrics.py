"""The metrics of a client port: its calls, its checks, its traffic, its process.

Names, types and labels are etcd's. The member behind the port has sources of its own
(`app.member_metrics`).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from keyraft.base.histograms import Histogram
from keyraft.gateway.checks import HealthCounts
from keyraft.gateway.exposition import COUNTER, GAUGE, HISTOGRAM, Family
from keyraft.gateway.process import ProcessFamilies
from keyraft.grpc import CallEnd, Route, Router, status
from keyraft.net import Statistics
from keyraft.service import Guard

# Prometheus's own default buckets, seconds.
_HANDLING_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class PortMetrics:
    """Reads the numbers of one client port. `families` is a source of metrics."""

    router: Router
    guard: Guard
    traffic: Callable[[], Statistics]
    health: HealthCounts
    process: ProcessFamilies

    def families(self) -> Iterator[Family]:
        """All families, in any order."""
        yield from self.process.collect()
        yield from self._health()
        yield from self._grpc()
        yield from self._system()

    def _health(self) -> Iterator[Family]:
        found = self.health
        for name, value, text in (
            ("health_success", found.successes, "Successful health checks."),
            ("health_failures", found.failures, "Failed health checks."),
        ):
            yield Family(f"etcd_server_{name}", COUNTER, text).add(value)
        checks = Family("etcd_server_healthcheck", GAUGE, "The result of each health check.")
        for (kind, name), passed in found.passed.items():
            checks.add(passed, type=kind, name=name)
        yield checks
        runs = Family("etcd_server_healthchecks_total", COUNTER, "How often each check ran.")
        for (kind, name, outcome), count in found.runs.items():
            runs.add(count, type=kind, name=name, status=outcome)
        yield runs
        # As Prometheus's own handler for Go counts them; one scrape is answered at a time, whole.
        yield Family(
            "promhttp_metric_handler_requests_in_flight", GAUGE, "Scrapes being served."
        ).add(1)
        scrapes = Family(
            "promhttp_metric_handler_requests_total", COUNTER, "Scrapes by HTTP status code."
        )
        for code, count in (("200", found.scrapes), ("500", 0), ("503", 0)):
            scrapes.add(count, code=code)
        yield scrapes

    def _grpc(self) -> Iterator[Family]:
        yield from call_counters(self.router)
        traffic = self.traffic()
        yield Family(
            "etcd_network_client_grpc_received_bytes_total", COUNTER, "Bytes from gRPC clients."
        ).add(traffic.bytes_in)
        yield Family(
            "etcd_network_client_grpc_sent_bytes_total", COUNTER, "Bytes to gRPC clients."
        ).add(traffic.bytes_out)
        requests = Family(
            "etcd_server_client_requests_total", COUNTER, "Requests by the client's API version."
        )
        for kind, counts in (
            ("unary", self.guard.unary_versions),
            ("stream", self.guard.stream_versions),
        ):
            for api_version, count in counts.items():
                if count:
                    text = api_version.decode("utf-8", "replace")
                    requests.add(count, type=kind, client_api_version=text)
        yield requests

    def _system(self) -> Iterator[Family]:
        used = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield Family("os_fd_used", GAUGE, "Open file descriptors.").add(used)
        yield Family("os_fd_limit", GAUGE, "How many there may be.").add(limit)


def call_counters(router: Router, used_only: bool = False) -> Iterator[Family]:
    """The families grpc_server_*; `used_only`: of methods that were called, and codes that came."""
    started = Family("grpc_server_started_total", COUNTER, "RPCs started.")
    handled = Family("grpc_server_handled_total", COUNTER, "RPCs completed, by code.")
    received = Family("grpc_server_msg_received_total", COUNTER, "Messages received.")
    sent = Family("grpc_server_msg_sent_total", COUNTER, "Messages sent.")
    for route in router:
        if used_only and not route.started:
            continue
        labels = {
            "grpc_method": route.method,
            "grpc_service": route.service,
            "grpc_type": route.kind,
        }
        started.add(route.started, **labels)
        received.add(route.msg_received, **labels)
        sent.add(route.msg_sent, **labels)
        for code, count in enumerate(route.handled):
            if count or not used_only:
                handled.add(count, grpc_code=status.CODE_NAMES[code], **labels)
    yield from (started, handled, received, sent)


class HandlingTime:
    """How long RPCs take, by method (`--metrics=extensive`). `families` is a source of metrics.

    The time is that from a call's header to its end, whichever way it ends (`grpc.CallEnd`). A
    method that nobody has called has its series, too, as with the original.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._took_s: dict[Route, Histogram] = {}
        router.ends.listen(self._ended)

    def _ended(self, call: CallEnd) -> None:
        if call.route is not None:
            self._of(call.route).observe(call.took_s)

    def _of(self, route: Route) -> Histogram:
        found = self._took_s.get(route)
        if found is None:
            found = self._took_s[route] = Histogram(_HANDLING_BOUNDS_S)
        return found

    def families(self) -> Iterator[Family]:
        """One family, with a series for each method."""
        family = Family("grpc_server_handling_seconds", HISTOGRAM, "How long RPCs take to handle.")
        for route in self._router:
            family.add_histogram(
                self._of(route),
                grpc_method=route.method,
                grpc_service=route.service,
                grpc_type=route.kind,
            )
        yield family
