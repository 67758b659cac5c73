"""Members' endpoints for what stands in front of them, by the SRV records of a domain.

Only records are looked at: endpoints that an operator names with `--endpoints` are taken as they
are (CVE-2020-15136 was that nobody said so). Without `--insecure-discovery` plain endpoints are
left out, and those that show no certificate for the domain by a known authority.

DEVIATION: etcd only looks whether a secure endpoint takes a connection (finding of the audit of
2020). A member that demands a certificate of its clients shows its own first where it speaks TLS
1.3; one that speaks TLS 1.2 only cannot be told from a stranger, and is left out.

Source: etcd `server/etcdmain/util.go`, `client/pkg/transport/tls.go`.
"""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from keyraft.base.gotext import quote
from keyraft.base.log import Logger
from keyraft.base.urls import split_host_port
from keyraft.net import (
    Found,
    Names,
    SRVError,
    SRVRecord,
    SystemNames,
    client_endpoints,
    handshake_reason,
    system_reason,
)

DIAL_TIMEOUT_S: Final = 5.0  # for the connection, and again for the handshake
DIALS_AT_ONCE: Final = 16
SECURE: Final = "https://"


def discover_endpoints(
    log: Logger,
    domain: str,
    ca_file: str,
    insecure: bool,
    name: str,
    names: Names | None = None,
) -> Found:
    """The endpoints of `domain` that may be used; none without a domain.

    Blocks, for seconds when members are away. Raises SRVError when there are no records.
    """
    if not domain:
        return Found()
    names = names or SystemNames()
    found = client_endpoints(names, domain, name)
    about = {"srv_server": domain, "endpoints": list(found.endpoints)}
    log.info("discovered cluster from SRV", **about)
    if insecure:
        return found
    log.info("validating discovered SRV endpoints", **about)
    kept, problem = _verified(names, domain, ca_file, found)
    about["endpoints"] = kept
    if problem:
        log.warn("failed to validate discovered endpoints", **about, error=problem)
    else:
        log.info("using validated discovered SRV endpoints", **about)
    pairs = [pair for pair in zip(*found, strict=True) if pair[0] in kept]
    return Found(tuple(url for url, _ in pairs), tuple(record for _, record in pairs))


def _verified(names: Names, domain: str, ca_file: str, found: Found) -> tuple[list[str], str]:
    """The endpoints that prove that they are the domain's, and what is wrong with the others."""
    try:
        if ca_file:
            with open(ca_file, "rb"):
                pass
        context = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError as error:
        return [], f"{ca_file}: {error.reason or error}"
    except OSError as error:
        return [], f"open {ca_file}: {system_reason(error)}"

    def problem(endpoint: str, record: SRVRecord) -> str:
        if not endpoint.startswith(SECURE):
            return f"{quote(endpoint)} is insecure"
        why = _dial(names, record, context, domain.removesuffix("."))
        return f"{quote(endpoint)} failed to dial ({why})" if why else ""

    with ThreadPoolExecutor(DIALS_AT_ONCE) as threads:
        problems = list(threads.map(problem, *found))
    kept = [endpoint for endpoint, why in zip(found.endpoints, problems, strict=True) if not why]
    return kept, ",".join(filter(None, problems))


def _dial(names: Names, record: SRVRecord, context: ssl.SSLContext, domain: str) -> str:
    """Why nobody there speaks for the domain; "" if somebody does."""
    try:
        address = names.address(record.target, record.port)
    except SRVError as error:
        return f"dial tcp: {error}"
    try:
        number, _ = split_host_port(address)
        plain = socket.create_connection((number, record.port), DIAL_TIMEOUT_S)
    except TimeoutError:
        return f"dial tcp {address}: i/o timeout"
    except OSError as error:
        return f"dial tcp {address}: connect: {system_reason(error)}"
    with plain:
        try:
            context.wrap_socket(plain, server_hostname=domain).close()
        except (OSError, ValueError) as error:  # a name that no certificate can have
            return handshake_reason(error)
    return ""
