"""Names for tests: a DNS server (dnslib's) of records as a zone file has them, and fixed answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import dns.resolver
import pytest
from dnslib import QTYPE, RCODE, RR
from dnslib.server import BaseResolver, DNSLogger, DNSServer

from keyraft.net import SRVError, SRVRecord
from tests.support.ports import free_ports

SILENT = "-request,-reply,-truncated,-error,-recv,-send,-data"


class Zone(BaseResolver):  # type: ignore[misc]  # dnslib has no types
    """Answers from records; a name that begins with "servfail", "refused" gets that code."""

    def __init__(self, text: str) -> None:
        self._records = RR.fromZone(text)

    def resolve(self, request, handler):
        reply = request.reply()
        name, kind = str(request.q.qname).lower(), QTYPE[request.q.qtype]
        for word, code in (("servfail", RCODE.SERVFAIL), ("refused", RCODE.REFUSED)):
            if word in name:
                reply.header.rcode = code
                return reply
        here = [record for record in self._records if str(record.rname).lower() == name]
        if not here:
            reply.header.rcode = RCODE.NXDOMAIN
        for record in here:
            if QTYPE[record.rtype] == kind:
                reply.add_answer(record)
        return reply


class NameServer:
    """A DNS server on 127.0.0.1, over UDP and TCP."""

    def __init__(self, zone: str, port: int = 0) -> None:
        self.port = port or free_ports(1)[0]
        logger = DNSLogger(log=SILENT)
        resolver = Zone(zone)
        self._servers = [
            DNSServer(resolver, port=self.port, address="127.0.0.1", tcp=tcp, logger=logger)
            for tcp in (False, True)
        ]
        for server in self._servers:
            server.start_thread()

    def close(self) -> None:
        for server in self._servers:
            server.stop()
            server.server.server_close()


@contextmanager
def asked_here(zone: str, patch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """A server that this process's look-ups of records go to."""
    server = NameServer(zone)
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = server.port
    patch.setattr(dns.resolver, "default_resolver", resolver)
    try:
        yield server
    finally:
        server.close()


def srv_zone(records: Mapping[str, Iterable[str]]) -> str:
    """Name → "priority weight port target" as a zone file."""
    return "".join(
        f"{name} 60 IN SRV {one}\n" for name, listed in records.items() for one in listed
    )


class FixedNames:
    """`Names` that are written down: records by name, addresses by host (without the last dot)."""

    def __init__(
        self,
        records: Mapping[str, Sequence[SRVRecord]],
        addresses: Mapping[str, str] = {},
    ) -> None:
        self._records = records
        self._addresses = addresses

    def records(self, name: str) -> Sequence[SRVRecord]:
        if name not in self._records:
            raise SRVError(f"lookup {name} on 127.0.0.1:53: no such host")
        return self._records[name]

    def address(self, host: str, port: int) -> str:
        found = self._addresses.get(host.removesuffix("."))
        if found is None:
            raise SRVError(f"lookup {host} on 127.0.0.1:53: no such host")
        return f"{found}:{port}"
