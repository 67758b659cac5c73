"""Telling systemd that the member is ready (sd_notify)."""

from __future__ import annotations

import os
import socket

from keyraft.base.log import Logger


def notify_ready(log: Logger) -> None:
    """Sends READY=1 to the socket that systemd named; without one there is nothing to do."""
    log.info("notifying init daemon")
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        if address.startswith("@"):
            address = "\0" + address[1:]  # a socket in the abstract namespace
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            try:
                channel.sendto(b"READY=1", address)
            except OSError as error:
                log.error("failed to notify systemd for readiness", error=str(error))
                return
    log.info("successfully notified init daemon")
