"""Who is at the other end of a transport."""

from __future__ import annotations

import asyncio


def join_host_port(host: str, port: int) -> str:
    """ "host:port", IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer_name(transport: asyncio.BaseTransport | None) -> str:
    """The other end's address; "@" for an unnamed unix socket, as Go prints it."""
    name = None if transport is None else transport.get_extra_info("peername")
    if isinstance(name, tuple):
        return join_host_port(name[0], name[1])
    return name if isinstance(name, str) and name else "@"


def common_name(transport: asyncio.BaseTransport | None) -> str | None:
    """The subject's CN of the verified certificate of the other end.

    None without a certificate, "" for one without a CN. Of several the last one counts, as in Go
    (crypto/x509/pkix, FillFromRDNSequence): all members must see the same user.
    """
    certificate = None if transport is None else transport.get_extra_info("peercert")
    if not certificate:
        return None
    name = ""
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                name = str(value)
    return name
