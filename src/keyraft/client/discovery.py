"""Endpoints from DNS: what `etcdctl --discovery-srv` finds, for programs.

    endpoints = await discover("example.org")
    async with Client(*endpoints, tls=TLS(ca_file, server_name="example.org")) as client: ...

The records are `_etcd-client-ssl._tcp.DOMAIN` (https) and `_etcd-client._tcp.DOMAIN` (http); a
name makes "-NAME" the end of the service (see `net.srv`).
"""

from __future__ import annotations

from keyraft.client.errors import ClientError
from keyraft.net import SRVError, SystemNames, client_endpoints, in_thread


def discover_blocking(domain: str, name: str = "", *, insecure: bool = False) -> list[str]:
    """As `discover`, for programs without an event loop."""
    try:
        found = client_endpoints(SystemNames(), domain, name).endpoints
    except SRVError as error:
        raise ClientError(str(error)) from None
    kept = [endpoint for endpoint in found if insecure or endpoint.startswith("https://")]
    if not kept:
        raise ClientError(f"the records of {domain} name no secure endpoints")
    return kept


async def discover(domain: str, name: str = "", *, insecure: bool = False) -> list[str]:
    """The endpoints of a domain, in the order to try them; unencrypted ones only when `insecure`.

    Raises ClientError when there are none.
    """
    return await in_thread(lambda: discover_blocking(domain, name, insecure=insecure))
