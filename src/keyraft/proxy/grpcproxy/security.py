"""TLS on both sides of the proxy: towards members (`--cert` and kin), towards clients
(`--cert-file` and kin).

Source: etcd `server/etcdmain/grpc_proxy.go`, `client/pkg/transport`.
"""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import Final

from keyraft.app.auto_tls import kept_pair
from keyraft.app.start_checks import StartError
from keyraft.base.log import Logger
from keyraft.base.urls import URLError, split_host_port
from keyraft.client import TLS
from keyraft.net import ClientTLS, ServerTLS, Terms, TLSFiles, read_names, unknown_suite
from keyraft.proxy.grpcproxy.options import OptionError, ProxyOptions

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"


def client_tls(options: ProxyOptions) -> TLS | None:
    """Towards members; None: without. Raises OptionError for files that cannot be used."""
    if not (options.cert or options.key or options.cacert or options.insecure_skip_tls_verify):
        return None
    tls = TLS(
        options.cacert, options.cert, options.key, verify=not options.insecure_skip_tls_verify
    )
    if bool(options.cert) != bool(options.key):
        raise OptionError(
            f"KeyFile and CertFile must both be present[key: {options.key}, cert: {options.cert}]"
        )
    try:
        tls.context()
        name = _common_name(options.cert) if options.cert else ""
    except OSError as error:
        raise OptionError(_unfit(error, options.cert)) from None
    if name:
        # Members would take every client of the proxy for that user.
        raise OptionError(f"cert has non empty Common Name ({name}): {options.cert}")
    return tls


def _common_name(path: str) -> str:
    """Of the first certificate of a file that OpenSSL has accepted."""
    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read()
    begin = text.index(_BEGIN)
    end = text.index(_END, begin) + len(_END)
    return read_names(ssl.PEM_cert_to_DER_cert(text[begin:end])).common_name


class _ByTheDialer(ClientTLS):
    """For fetching metrics: the contexts with which members are called."""

    def __init__(self, tls: TLS) -> None:
        self._tls = tls

    def context(self) -> ssl.SSLContext:
        return self._tls.context()


def metrics_tls(tls: TLS | None) -> ClientTLS | None:
    """For fetching metrics from members."""
    return None if tls is None else _ByTheDialer(tls)


def server_tls(options: ProxyOptions, log: Logger) -> ServerTLS | None:
    """Towards clients; None: without. Raises OptionError."""
    if not options.secure:
        if options.client_crl_file:
            log.warn("--client-crl-file has no effect without TLS for clients")
        return None
    unknown = unknown_suite(options.listen_cipher_suites)
    if unknown is not None:
        raise OptionError(f'unexpected TLS cipher suite "{unknown}"')
    files = TLSFiles(
        cert_file=options.cert_file,
        key_file=options.key_file,
        trusted_ca_file=options.trusted_ca_file,
        crl_file=options.client_crl_file,
        terms=Terms(options.tls_min_version, options.tls_max_version, options.listen_cipher_suites),
    )
    try:
        if options.auto_tls and files.is_empty and not files.trusted_ca_file:
            host = split_host_port(options.listen_addr)[0]
            years = options.self_signed_cert_validity
            certificate, key = kept_pair(options.data_dir, "proxy", [host], years, log)
            files = replace(files, cert_file=certificate, key_file=key)
        log.info(
            "gRPC proxy server TLS",
            tls_info=f"cert = {files.cert_file}, key = {files.key_file}, client-cert=, "
            f"client-key=, trusted-ca = {files.trusted_ca_file}, client-cert-auth = false, "
            f"crl-file = {files.crl_file}",
        )
        return ServerTLS(files, log)
    except (OSError, StartError, URLError) as error:
        raise OptionError(str(error)) from None


def _unfit(error: OSError, name: str) -> str:
    return f"open {error.filename or name}: {(error.strerror or str(error)).lower()}"
