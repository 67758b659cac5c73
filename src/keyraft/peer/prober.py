"""Round-trip times to a peer and its version, with a warning when its clock is off."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any, Final

from keyraft.base.log import Logger
from keyraft.cluster import format_id
from keyraft.net import Http1Client, HttpError, failure_reason
from keyraft.peer.compat import parse_json
from keyraft.peer.metrics import PeerMetrics
from keyraft.peer.urls import URLPicker

PROBE_INTERVAL_S: Final = 4.0
CLOCK_DRIFT_S_MAX: Final = 1.0
UNHEALTHY_REPORT_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 64 * 1024


class Prober:
    """Asks `GET /raft/probing` and `GET /version` every four seconds."""

    __slots__ = ("_client", "_logger", "_metrics", "_name", "_picker", "round_trip_s", "version")

    def __init__(
        self,
        peer_id: int,
        client: Http1Client,
        picker: URLPicker,
        logger: Logger,
        metrics: PeerMetrics,
    ) -> None:
        self._name = format_id(peer_id)
        self._client = client
        self._picker = picker
        self._logger = logger
        self._metrics = metrics
        self.version: str | None = None  # None until it answers
        self.round_trip_s = 0.0  # smoothed as TCP does (RFC 6298, alpha 1/8)

    async def run(self) -> None:
        """Probes until cancelled."""
        loop = asyncio.get_running_loop()
        reported_s = float("-inf")
        while True:
            url = self._picker.pick()
            started_s = loop.time()
            try:
                answer = await self._ask(url, "/raft/probing")
                took_s = loop.time() - started_s
                drift_s = _drift_s(answer, took_s)
                await self._ask_version(url)
            except (HttpError, OSError, TimeoutError, ValueError, OverflowError) as error:
                self.version = None
                if loop.time() - reported_s >= UNHEALTHY_REPORT_S:
                    reported_s = loop.time()
                    self._logger.warn(
                        "prober detected unhealthy status",
                        round_tripper_name="ROUND_TRIPPER_RAFT_MESSAGE",
                        remote_peer_id=self._name,
                        rtt=f"{self.round_trip_s:.9f}s",
                        error=failure_reason(error),
                    )
            else:
                old = self.round_trip_s
                self.round_trip_s = took_s if old == 0.0 else old + (took_s - old) / 8
                if len(self._metrics.round_trip_s) < 10_000:  # the list was not taken for long
                    self._metrics.round_trip_s.append((self._name, took_s))
                if drift_s > CLOCK_DRIFT_S_MAX and loop.time() - reported_s >= UNHEALTHY_REPORT_S:
                    reported_s = loop.time()
                    self._logger.warn(
                        "prober found high clock drift",
                        round_tripper_name="ROUND_TRIPPER_RAFT_MESSAGE",
                        remote_peer_id=self._name,
                        clock_drift=f"{drift_s:.9f}s",
                        rtt=f"{took_s:.9f}s",
                    )
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def _ask(self, url: str, path: str) -> Any:
        """What the peer says in JSON."""
        answer = await self._client.request(
            "GET", url, path, timeout_s=PROBE_INTERVAL_S, answer_bytes_max=ANSWER_BYTES_MAX
        )
        return parse_json(answer.body)

    async def _ask_version(self, url: str) -> None:
        answer = await self._ask(url, "/version")
        version = answer.get("etcdserver") if isinstance(answer, dict) else None
        self.version = version if isinstance(version, str) else None


def _drift_s(content: object, took_s: float) -> float:
    """The difference between the peer's clock and ours; raises ValueError for an invalid answer."""
    if not isinstance(content, dict) or not content.get("OK"):
        raise ValueError("peer does not say that it is well")
    text = str(content.get("Now", ""))
    # Go writes up to nine digits of a second; datetime reads six
    head, dot, tail = text.partition(".")
    if dot:
        digits = tail.rstrip("Zz")
        digits = digits.split("+")[0].split("-")[0]
        text = f"{head}.{digits[:6]:<06}{tail[len(digits) :]}"
    now = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return abs(time.time() - took_s / 2 - now.timestamp())
