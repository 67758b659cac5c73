"""TLS on both sides of the proxy: towards members (`--cert` and kin), towards clients
(`--cert-file` and kin).

Source: etcd `server/etcdmain/grpc_proxy.go`, `client/pkg/transport`.
"""

from __future__ import annotations

import ssl

from keyraft.base.log import Logger
from keyraft.client import TLS
from keyraft.net import Terms, unknown_suite
from keyraft.net import client_context as net_client_context
from keyraft.net import server_context as net_server_context
from keyraft.proxy.grpcproxy.options import OptionError, ProxyOptions


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
    except OSError as error:
        name = error.filename or options.cert
        raise OptionError(f"open {name}: {(error.strerror or str(error)).lower()}") from None
    return tls


def client_context(options: ProxyOptions, tls: TLS | None) -> ssl.SSLContext | None:
    """For fetching metrics from members."""
    if tls is None:
        return None
    return net_client_context(
        trusted_ca_file=options.cacert or None,
        cert_file=options.cert or None,
        key_file=options.key or None,
        insecure_skip_verify=options.insecure_skip_tls_verify,
    )


def server_context(options: ProxyOptions, log: Logger) -> ssl.SSLContext | None:
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
    try:
        return net_server_context(
            options.cert_file,
            options.key_file,
            trusted_ca_file=options.trusted_ca_file or None,
            terms=Terms(
                options.tls_min_version, options.tls_max_version, options.listen_cipher_suites
            ),
        )
    except OSError as error:
        name = error.filename or options.cert_file
        raise OptionError(f"open {name}: {(error.strerror or str(error)).lower()}") from None
