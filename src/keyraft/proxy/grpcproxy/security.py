"""TLS on both sides of the proxy: towards members (`--cert` and kin), towards clients
(`--cert-file` and kin).

Source: etcd `server/etcdmain/grpc_proxy.go`, `client/pkg/transport`.
"""

from __future__ import annotations

import ssl
from typing import Final

from keyraft.base.log import Logger
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
        return None
    unknown = unknown_suite(options.listen_cipher_suites)
    if unknown is not None:
        raise OptionError(f'unexpected TLS cipher suite "{unknown}"')
    if options.auto_tls or options.client_crl_file:
        raise OptionError("--auto-tls and --client-crl-file are not supported")
    if not options.cert_file or not options.key_file:
        raise OptionError(
            "KeyFile and CertFile must both be present"
            f"[key: {options.key_file}, cert: {options.cert_file}]"
        )
    log.info(
        "gRPC proxy server TLS",
        tls_info=f"cert = {options.cert_file}, key = {options.key_file}, client-cert=, "
        f"client-key=, trusted-ca = {options.trusted_ca_file}, client-cert-auth = false, "
        f"crl-file = {options.client_crl_file}",
    )
    files = TLSFiles(
        cert_file=options.cert_file,
        key_file=options.key_file,
        trusted_ca_file=options.trusted_ca_file,
        terms=Terms(options.tls_min_version, options.tls_max_version, options.listen_cipher_suites),
    )
    try:
        return ServerTLS(files, log)
    except OSError as error:
        raise OptionError(_unfit(error, options.cert_file)) from None


def _unfit(error: OSError, name: str) -> str:
    return f"open {error.filename or name}: {(error.strerror or str(error)).lower()}"
