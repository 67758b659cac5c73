"""TLS of one member, from its configuration; loaded only where there is a certificate."""

from __future__ import annotations

from typing import Final

from keyraft.app.start_checks import StartError, check_certificates
from keyraft.config.config import Config
from keyraft.net import Allowed, ClientTLS, ServerTLS, TLSFiles

PEER_PROTOCOLS: Final = ("http/1.1",)


def client_tls(config: Config) -> ServerTLS:
    """For the ports of clients; raises StartError."""
    check_certificates(config.cert_file, config.key_file, config.trusted_ca_file)
    files = TLSFiles(
        cert_file=config.cert_file,
        key_file=config.key_file,
        trusted_ca_file=config.trusted_ca_file,
        client_cert_auth=config.client_cert_auth,
        allowed=Allowed(host_names=config.client_cert_allowed_hostname),
        terms=config.tls_terms(),
    )
    try:
        return ServerTLS(files, config.log)
    except OSError as error:  # an ssl.SSLError is one too
        raise _unfit(error, files) from None


def peer_tls(config: Config) -> tuple[ServerTLS, ClientTLS]:
    """For serving and for dialling peers; raises StartError."""
    allowed = Allowed(config.peer_cert_allowed_cn, config.peer_cert_allowed_hostname)
    if exclusion := allowed.exclusion():
        raise StartError(exclusion)
    files = TLSFiles(
        cert_file=config.peer_cert_file,
        key_file=config.peer_key_file,
        client_cert_file=config.peer_client_cert_file,
        client_key_file=config.peer_client_key_file,
        trusted_ca_file=config.peer_trusted_ca_file,
        client_cert_auth=config.peer_client_cert_auth,
        allowed=allowed,
        addresses_compared=not config.peer_skip_client_san_verification,
        terms=config.tls_terms(),
    )
    try:
        return (
            ServerTLS(files, config.log, protocols=PEER_PROTOCOLS),
            ClientTLS(files, config.log, protocols=PEER_PROTOCOLS),
        )
    except OSError as error:  # an ssl.SSLError is one too
        raise _unfit(error, files) from None


def _unfit(error: OSError, files: TLSFiles) -> StartError:
    name = error.filename or files.cert_file
    return StartError(f"cannot load the certificate: {name}: {error.strerror}")
