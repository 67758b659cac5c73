"""Ports for servers of tests.

Below the range from which the kernel takes ports of outgoing connections: a port of a server that
is down for a moment cannot be taken by a connection, nor can a client that dials it connect to
itself. Every worker of a parallel run has its own part, and no port is given twice in one run
before the part has been used up.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator
from typing import Final

FIRST: Final = 10_240
LAST: Final = 32_767  # Linux begins its ephemeral ports at 32,768
WORKERS_MAX: Final = 8


def _ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % WORKERS_MAX
    part = list(range(FIRST + worker, LAST + 1, WORKERS_MAX))
    start = random.SystemRandom().randrange(len(part))
    return itertools.cycle(part[start:] + part[:start])


_NEXT: Final = _ports()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    found: list[int] = []
    while len(found) < count:
        port = next(_NEXT)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
