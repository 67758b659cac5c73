"""Making connections with Keyraft's own transport.

TLS follows etcd's rules: an endpoint's scheme decides, and an endpoint without one uses TLS when
the client has a configuration for it (see `endpoint`).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from keyraft.client.endpoint import Endpoint
from keyraft.client.transport import Connection


@dataclass(frozen=True, slots=True)
class TLS:
    """How the client shows and checks certificates; files are PEM, empty ones are left out.

    Without `ca_file` the system's authorities are trusted. `server_name` replaces the endpoint's
    host in the check; `verify=False` trusts anybody.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """The context for connections; raises OSError for files that cannot be used."""
        context = ssl.create_default_context(cafile=self.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file or None)
        return context


class Dialer:
    """Connects to endpoints; the certificates are read anew for each connection."""

    def __init__(self, tls: TLS | None = None) -> None:
        self._tls = tls

    async def __call__(self, endpoint: Endpoint) -> Connection:
        """A new connection; raises OSError."""
        raise OSError("no transport")
