"""TLS of one member, from its configuration; loaded only where the configuration asks for some.

The order of the checks, and the words, are etcd's (`server/embed/etcd.go`, configurePeerListeners,
configureClientListeners, serveClients).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from keyraft.app.auto_tls import own_pair
from keyraft.app.start_checks import StartError
from keyraft.base.gotext import quote
from keyraft.config.config import Config
from keyraft.net import Allowed, ClientTLS, ServerTLS, TLSFiles, not_offered, unknown_suite

PEER_PROTOCOLS: Final = ("http/1.1",)
_NEEDED_BY_HTTP2: Final = (
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
)
"""RFC 9113 §9.2.2; Go's HTTP/2 server wants one of them in a list."""


def check_suites(config: Config) -> None:
    """Refuses a name that is no suite's, whether TLS is spoken or not; raises StartError."""
    unknown = unknown_suite(config.cipher_suites)
    if unknown is not None:
        raise StartError(f"unexpected TLS cipher suite {quote(unknown)}")
    if missing := not_offered(config.cipher_suites):
        config.log.warn("cipher suites are not available", cipher_suites=missing)


def client_tls(config: Config) -> ServerTLS | None:
    """For the ports of clients; None when none of them speaks TLS. Raises StartError.

    DEVIATION: with `--auto-tls` etcd forgets that it was told to ask clients for certificates.
    """
    log = config.log
    files = TLSFiles(
        cert_file=config.cert_file,
        key_file=config.key_file,
        client_cert_file=config.client_cert_file,
        client_key_file=config.client_key_file,
        trusted_ca_file=config.trusted_ca_file,
        client_cert_auth=config.client_cert_auth,
        allowed=Allowed(host_names=config.client_cert_allowed_hostname),
        crl_file=config.client_crl_file,
        terms=config.tls_terms(),
    )
    urls = (*config.listen_client_urls, *config.listen_client_http_urls)
    if config.auto_tls:
        if files.is_empty:
            files = _with_own_pair(files, *own_pair(config, "client", urls))
        else:
            log.warn("ignoring client auto TLS since certs given")
    _tell(config, "starting with client TLS", files)
    secure = any(url.is_secure for url in urls)
    if not secure and not any(url.is_secure for url in config.listen_metrics_urls):
        return None
    try:
        made = ServerTLS(files, log)
    except OSError as error:
        reason = str(error)
    else:
        if not secure or not config.cipher_suites or _fits_http2(config.cipher_suites):
            return made
        reason = (
            "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher "
            f"(need at least one of {' or '.join(_NEEDED_BY_HTTP2)})"
        )
        log.error("Configure https server failed", error=reason)
    if not secure:
        raise StartError(reason)
    log.error("setting up serving from embedded etcd failed.", error=reason)
    raise StartError(reason, "listener failed")


def peer_tls(config: Config) -> tuple[ServerTLS | None, ClientTLS | None]:
    """For serving and for dialling peers; None for what needs none. Raises StartError."""
    log = config.log
    files = TLSFiles(
        cert_file=config.peer_cert_file,
        key_file=config.peer_key_file,
        client_cert_file=config.peer_client_cert_file,
        client_key_file=config.peer_client_key_file,
        trusted_ca_file=config.peer_trusted_ca_file,
        client_cert_auth=config.peer_client_cert_auth,
        allowed=Allowed(config.peer_cert_allowed_cn, config.peer_cert_allowed_hostname),
        addresses_compared=not config.peer_skip_client_san_verification,
        crl_file=config.peer_crl_file,
        terms=config.tls_terms(),
    )
    if config.peer_auto_tls:
        if files.is_empty:
            files = _with_own_pair(files, *own_pair(config, "peer", config.listen_peer_urls))
        else:
            log.warn("ignoring peer auto TLS since certs given")
    _tell(config, "starting with peer TLS", files)
    secure = any(url.is_secure for url in config.listen_peer_urls)
    try:
        return (
            None if files.is_empty else ServerTLS(files, log, protocols=PEER_PROTOCOLS),
            ClientTLS(files, log, protocols=PEER_PROTOCOLS),
        )
    except OSError as error:
        title = "creating peer listener failed" if secure else "bootstrap failed"
        log.error(title, error=str(error))
        raise StartError(str(error)) from None


def _with_own_pair(files: TLSFiles, certificate: str, key: str) -> TLSFiles:
    return replace(
        files,
        cert_file=certificate,
        key_file=key,
        client_cert_file=files.client_cert_file or certificate,
        client_key_file=files.client_key_file or key,
        self_signed=True,
    )


def _tell(config: Config, message: str, files: TLSFiles) -> None:
    if not files.is_empty:
        config.log.info(message, tls_info=str(files), cipher_suites=list(config.cipher_suites))
    if (files.allowed or files.crl_file) and not files.certificate_needed:
        config.log.warn(
            "allowed names and revocation lists have no effect; no certificate is asked for",
            trusted_ca_file=files.trusted_ca_file,
            client_cert_auth=files.client_cert_auth,
        )


def _fits_http2(suites: tuple[str, ...]) -> bool:
    return not set(suites).isdisjoint(_NEEDED_BY_HTTP2)
