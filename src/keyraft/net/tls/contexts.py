"""TLS contexts for both ends: TLS 1.2 or later, h2 before http/1.1.

Contexts of members are made of bytes, not of paths: what was looked at is what is used, even when
a file changes in between, and what was good stays at hand when its file no longer is.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from .pairs import Pair, bundle, in_memory
from .seeing import is_rejection, note_mismatch, rejected
from .terms import ANY_TERMS, Terms

if TYPE_CHECKING:
    from .refusal import CertificateRefusedError


class _DenyingEnd(ssl.SSLObject):
    """An end that says why its handshake failed, when the reason is ours."""

    denied: CertificateRefusedError | None = None
    """Why the other end is not let in."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            if self.denied is not None and is_rejection(error):
                raise self.denied from None
            note_mismatch(error, self)
            raise


class _Context(ssl.SSLContext):
    sslobject_class = _DenyingEnd


def _trust(context: ssl.SSLContext, authorities: str, denying: bool) -> None:
    """What is in the bundle is trusted, whoever signed it, as in Go: an intermediate authority, or
    one certificate of an end."""
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not denying:
        context.load_verify_locations(cadata=authorities)
        return
    with in_memory(rejected(authorities)) as path:
        context.load_verify_locations(path)


def server_context(
    pair: Pair,
    authorities: str | None,
    *,
    certificate_needed: bool,
    terms: Terms = ANY_TERMS,
    protocols: tuple[str, ...] = ("h2", "http/1.1"),
    denying: bool = False,
) -> ssl.SSLContext:
    """A server's context; raises ssl.SSLError for what OpenSSL does not take.

    `authorities`: PEM; None: the system's. `denying`: `seeing` says what for.
    """
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    terms.set_on(context)
    pair.load_into(context)
    if certificate_needed:
        if authorities is None:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        else:
            _trust(context, authorities, denying)
        context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(list(protocols))
    context.num_tickets = 1  # as Go; OpenSSL would make two
    return context


def dialling_context(
    pair: Pair | None,
    authorities: str | None,
    *,
    anybody: bool,
    terms: Terms = ANY_TERMS,
    protocols: tuple[str, ...] = ("h2",),
    denying: bool = False,
) -> ssl.SSLContext:
    """The context of a member that dials; `anybody`: the other end's certificate is not verified.

    `denying`: `seeing` says what for. Raises ssl.SSLError for what OpenSSL does not take.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    terms.set_on(context)
    context.hostname_checks_common_name = False
    if anybody:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authorities is None:
        context.load_default_certs()
    else:
        _trust(context, authorities, denying)
    if pair is not None:
        pair.load_into(context)
    context.set_alpn_protocols(list(protocols))
    return context


def _content(path: str) -> bytes:
    with open(path, "rb") as file:  # not pathlib: it would be all that loads urllib
        return file.read()


def client_context(
    *,
    trusted_ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    insecure_skip_verify: bool = False,
    terms: Terms = ANY_TERMS,
) -> ssl.SSLContext:
    """A client's context; the system's authorities unless `trusted_ca_file` is given.

    Raises OSError for a file that cannot be read, and UnfitError, in Go's words and order, for one
    that is something else.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    terms.set_on(context)
    if cert_file:
        pair = Pair(_content(cert_file), _content(key_file or cert_file))
        pair.load_into(context)
    if trusted_ca_file:
        authorities = bundle(_content(trusted_ca_file))
        if authorities:  # without one nobody is trusted, as in Go
            context.load_verify_locations(cadata=authorities)
    else:
        context.load_default_certs()
    if insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
