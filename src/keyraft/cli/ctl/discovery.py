"""etcdctl's endpoints from DNS (`--discovery-srv`)."""

from __future__ import annotations

from keyraft.base.gotext import quote
from keyraft.cli.ctl.exits import ERROR, Exit
from keyraft.cli.ctl.printers.base import complain


def discover(domain: str, name: str, insecure: bool) -> list[str]:
    """The endpoints; unencrypted ones only when `insecure`. Code 1 when there are no records."""
    from keyraft.net import SRVError, SystemNames, client_endpoints

    try:
        found = client_endpoints(SystemNames(), domain, name).endpoints
    except SRVError as error:
        raise Exit(ERROR, str(error)) from None
    if insecure:
        return list(found)
    kept = []
    for endpoint in found:
        if endpoint.startswith("http://"):
            complain(f"ignoring discovered insecure endpoint {quote(endpoint)}")
        else:
            kept.append(endpoint)
    return kept
