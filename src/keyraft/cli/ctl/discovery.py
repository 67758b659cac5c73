"""Endpoints from DNS: SRV records `_etcd-client-ssl[-NAME]._tcp.DOMAIN` (https) and
`_etcd-client[-NAME]._tcp.DOMAIN` (http)."""

from __future__ import annotations

from keyraft.base.gotext import quote
from keyraft.cli.ctl.exits import ERROR, Exit
from keyraft.cli.ctl.printers.base import complain


def discover(domain: str, name: str, insecure: bool) -> list[str]:
    """The endpoints; unencrypted ones only when `insecure`. Code 1 when there are no records."""
    import dns.exception
    import dns.resolver

    suffix = f"-{name}" if name else ""
    found: list[str] = []
    problems: list[str] = []
    for service, scheme in (("etcd-client-ssl", "https"), ("etcd-client", "http")):
        question = f"_{service}{suffix}._tcp.{domain}"
        try:
            answer = dns.resolver.resolve(question, "SRV")
        except dns.exception.DNSException as error:
            problems.append(f"error querying DNS SRV records for {question}: {error}")
            continue
        records = sorted(answer, key=lambda record: (record.priority, -record.weight))
        found += [
            f"{scheme}://{record.target.to_text(omit_final_dot=True)}:{record.port}"
            for record in records
        ]
    if not found:
        raise Exit(ERROR, "; ".join(problems))
    if insecure:
        return found
    kept = []
    for endpoint in found:
        if endpoint.startswith("http://"):
            complain(f"ignoring discovered insecure endpoint {quote(endpoint)}")
        else:
            kept.append(endpoint)
    return kept
