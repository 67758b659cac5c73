"""What `etcd grpc-proxy start` is told, and what of it cannot be.

Source: etcd `server/etcdmain/grpc_proxy.go`, checkArgs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TLS_VERSIONS: Final = ("TLS1.2", "TLS1.3")


class OptionError(Exception):
    """The proxy cannot start so; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """One field a flag; times in seconds, files by name, "" for none."""

    listen_addr: str
    endpoints: tuple[str, ...]
    endpoints_auto_sync_interval: float
    discovery_srv: str
    discovery_srv_name: str
    insecure_discovery: bool
    metrics_addr: str
    advertise_client_url: str
    resolver_prefix: str
    resolver_ttl: int
    namespace: str
    data_dir: str
    max_send_bytes: int
    max_recv_bytes: int
    dial_keepalive_time: float
    dial_keepalive_timeout: float
    permit_without_stream: bool
    grpc_keepalive_min_time: float
    grpc_keepalive_interval: float
    grpc_keepalive_timeout: float
    cert: str
    key: str
    cacert: str
    insecure_skip_tls_verify: bool
    cert_file: str
    key_file: str
    trusted_ca_file: str
    client_crl_file: str
    auto_tls: bool
    self_signed_cert_validity: int
    listen_cipher_suites: tuple[str, ...]
    tls_min_version: str
    tls_max_version: str
    experimental_serializable_ordering: bool
    experimental_leasing_prefix: str
    experimental_enable_grpc_logging: bool
    enable_pprof: bool
    debug: bool
    max_concurrent_streams: int

    @property
    def secure(self) -> bool:
        """Clients come by TLS."""
        return bool(self.cert_file or self.key_file or self.trusted_ca_file or self.auto_tls)

    def check(self) -> None:
        """Raises OptionError."""
        if self.resolver_prefix and self.resolver_ttl < 1:
            raise OptionError(f"invalid resolver-ttl {self.resolver_ttl}")
        if not self.resolver_prefix and self.resolver_ttl > 0:
            raise OptionError('invalid resolver-prefix ""')
        if self.resolver_prefix and not self.advertise_client_url:
            raise OptionError('invalid advertise-client-url ""')
        if self.auto_tls and not self.self_signed_cert_validity:
            raise OptionError("selfSignedCertValidity is invalid,it should be greater than 0")
        self._check_versions()

    def _check_versions(self) -> None:
        for name, value in (
            ("tls-min-version", self.tls_min_version),
            ("tls-max-version", self.tls_max_version),
        ):
            if value and value not in TLS_VERSIONS:
                known = ", ".join(TLS_VERSIONS)
                raise OptionError(
                    f'{name} is invalid: unexpected TLS version "{value}" (must be one of: {known})'
                )
        low, high = self.tls_min_version, self.tls_max_version
        if high and low > high:
            numbers = {"TLS1.2": 771, "TLS1.3": 772}
            raise OptionError(
                f"min version ({numbers[low]}) is greater than max version ({numbers[high]})"
            )
        if low == "TLS1.3" and self.listen_cipher_suites:
            raise OptionError("cipher suites cannot be configured when only TLS1.3 is enabled")
