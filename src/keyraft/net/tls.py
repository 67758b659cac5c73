"""TLS contexts for both ends: TLS 1.2 or later, h2 before http/1.1."""

from __future__ import annotations

import ssl


def server_context(
    cert_file: str,
    key_file: str,
    *,
    trusted_ca_file: str | None = None,
    client_cert_auth: bool = False,
) -> ssl.SSLContext:
    """A server's context; raises OSError or ssl.SSLError for files that do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert_file, key_file)
    if trusted_ca_file:
        context.load_verify_locations(trusted_ca_file)
    if client_cert_auth:
        context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def client_context(
    *,
    trusted_ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    insecure_skip_verify: bool = False,
) -> ssl.SSLContext:
    """A client's context; the system's authorities unless `trusted_ca_file` is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trusted_ca_file:
        context.load_verify_locations(trusted_ca_file)
    else:
        context.load_default_certs()
    if cert_file:
        context.load_cert_chain(cert_file, key_file)
    if insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
