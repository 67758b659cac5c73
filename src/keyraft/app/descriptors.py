"""How many file descriptors this process has, and what they are for.

Clients get all but a reserve for the log, the database, pipes to processes of our own and the
other members (etcd `server/embed/etcd.go`, reservedInternalFDNum), on all client and metrics ports
together. Connections to the peer ports may take only a part of the reserve.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from keyraft.app.start_checks import StartError
from keyraft.base.log import Logger
from keyraft.net import EOF, Places, Say

if TYPE_CHECKING:
    from keyraft.net import CertificateNames

RESERVED_DESCRIPTORS: Final = 150  # etcd reservedInternalFDNum
PEER_CONNECTIONS_MIN: Final = 64  # accepted from peers: four of each in a cluster of seventeen
PEER_CONNECTIONS_MAX: Final = 1_024
REJECTED_LINES_PER_S_MAX: Final = 10
LOOK_S: Final = 600.0  # etcd monitorFileDescriptor
_TOO_MANY: Final = "refused connections: file descriptors are kept back for files and peers"


def raise_limit() -> int:
    """Raises the soft limit to the hard one, as Go's runtime does; returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def places(limit: int, log: Logger) -> tuple[Places, Places]:
    """For clients and for peers, of `limit` descriptors; raises StartError."""
    if limit <= RESERVED_DESCRIPTORS:
        raise StartError(
            "file descriptor limit of etcd process is too low; please set higher "
            f"(limit {limit}, recommended-limit {RESERVED_DESCRIPTORS})"
        )
    peers = max(PEER_CONNECTIONS_MIN, min(limit // 16, PEER_CONNECTIONS_MAX))
    spare = max(peers - PEER_CONNECTIONS_MIN, 0)
    clients = limit - RESERVED_DESCRIPTORS - spare
    return Places(clients, refusal(log, "client", limit)), Places(
        peers, refusal(log, "peer", limit)
    )


def refusal(log: Logger, kind: str, limit: int) -> Say:
    """Logs one line each time that all places become taken, or that the system has none."""

    def say(why: str) -> None:
        log.warn(_TOO_MANY, listener=kind, reason=why, limit=limit)

    return say


class Rejections:
    """Logs failed TLS handshakes, at most some lines a second.

    A client that only connects and closes is logged at level debug (etcd
    `server/embed/config_logging.go`).
    """

    def __init__(self, log: Logger, kind: str, time_s: Callable[[], float]) -> None:
        self._log = log
        self._message = f"rejected connection on {kind} endpoint"
        self._time_s = time_s
        self._second = 0
        self._said = 0
        self._unsaid = 0

    def __call__(
        self, client: str, name: str, reason: str, shown: CertificateNames | None = None
    ) -> None:
        """Logs one line, unless this second had enough of them: then the next line counts it.

        `shown`: whom the client's certificate names.
        """
        fields: dict[str, object] = {"remote_addr": client, "server_name": name}
        if shown is not None:
            fields["ip_addresses"] = shown.address_texts
            fields["dns_names"] = list(shown.dns_names)
        fields["error"] = reason
        if reason == EOF:
            self._log.debug(self._message, **fields)
            return
        second = int(self._time_s())
        if second != self._second:
            self._second, self._said = second, 0
        if self._said >= REJECTED_LINES_PER_S_MAX:
            self._unsaid += 1
            return
        self._said += 1
        if self._unsaid:
            fields["more"] = self._unsaid
            self._unsaid = 0
        self._log.warn(self._message, **fields)


def watch_usage(log: Logger) -> None:
    """Warns when most descriptors are in use (etcd `server/etcdserver/metrics.go`)."""
    used = len(os.listdir("/proc/self/fd"))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if used >= limit // 5 * 4:
        log.warn("80% of file descriptors are used", used=used, limit=limit)
