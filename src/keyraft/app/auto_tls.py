"""Certificates that a member makes for itself: `--auto-tls`, `--peer-auto-tls`.

They are in `fixtures/client` and `fixtures/peer` of the data directory and stay in use, whatever
becomes of the flags (etcd `client/pkg/transport/listener.go`, SelfCert).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from keyraft.app.start_checks import StartError, check_data_dir, go_error
from keyraft.base.log import Logger
from keyraft.base.urls import URL
from keyraft.config.config import Config

CERTIFICATE: Final = "cert.pem"
KEY: Final = "key.pem"
_NO_VALIDITY: Final = "selfSignedCertValidity is invalid,it should be greater than 0"


def own_pair(config: Config, kind: str, urls: Iterable[URL]) -> tuple[str, str]:
    """The paths of certificate and key, made if one of them is missing; raises StartError.

    `kind` is "client" or "peer"; `urls` are where it listens.
    """
    hosts = [url.hostname for url in urls if url.has_port]
    years = config.self_signed_cert_validity
    return kept_pair(config.data_dir, kind, hosts, years, config.log)


def kept_pair(
    data_dir: str, kind: str, hosts: Iterable[str], years: int, log: Logger
) -> tuple[str, str]:
    """The same for whoever has a data directory."""
    title = f"failed to get {kind} self-signed certs"
    if years == 0:
        log.warn("cannot generate cert", error=_NO_VALIDITY)
        raise StartError(_NO_VALIDITY, title)
    folder = os.path.join(os.path.abspath(data_dir), "fixtures", kind)
    try:
        check_data_dir(folder, log, "cert")
    except StartError as error:
        log.warn("cannot create cert directory", error=str(error))
        raise StartError(str(error), title) from None
    certificate, key = os.path.join(folder, CERTIFICATE), os.path.join(folder, KEY)
    if not (os.path.exists(certificate) and os.path.exists(key)):
        try:
            _make(certificate, key, hosts, years, log)
        except OSError as error:
            raise StartError(go_error("open", error), title) from None
    return certificate, key


def _make(certificate: str, key: str, hosts: Iterable[str], years: int, log: Logger) -> None:
    from keyraft.net import end_of, self_signed  # loads `cryptography`

    now = datetime.now(UTC).replace(microsecond=0)
    log.warn(
        "automatically generate certificates",
        certificate_validity_bound_not_after=end_of(now, years).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    pair = self_signed(hosts, now, years)
    # The key first: who finds both, finds both whole.
    for path, data, mode, what in (
        (key, pair.key, 0o600, "key"),
        (certificate, pair.certificate, 0o644, "cert"),
    ):
        try:
            _write(path, data, mode)
        except OSError as error:
            log.warn(f"cannot {what} file", path=path, error=go_error("open", error, path))
            raise
        log.info(f"created {what} file", path=path)


def _write(path: str, data: bytes, mode: int) -> None:
    """Nobody ever sees a part of it."""
    beside = f"{path}.tmp"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(beside, path)
