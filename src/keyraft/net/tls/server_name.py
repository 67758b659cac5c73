"""Whom a server's certificate names, when that is not who was asked for: in Go's words.

Go `crypto/x509/verify.go`, `HostnameError`. OpenSSL says only that names differ.
"""

from __future__ import annotations

import ipaddress
import ssl
from typing import Any, Final

_MISMATCHES: Final = frozenset((62, 64))  # X509_V_ERR_HOSTNAME_MISMATCH, ..._IP_ADDRESS_MISMATCH


def say_names(error: ssl.SSLCertVerificationError, tls: ssl.SSLObject, wanted: str) -> None:
    """Has the error say whom the certificate names, if that is why it was refused."""
    if error.verify_code not in _MISMATCHES:
        return
    # The only way to a certificate that was refused; not documented, so it may be missing.
    chain: Any = getattr(getattr(tls, "_sslobj", None), "get_unverified_chain", list)() or ()
    for leaf in chain[:1]:
        error.verify_message = mismatch(leaf.get_info(), wanted)


def mismatch(certificate: dict[str, Any], wanted: str) -> str:
    """Go's text about a certificate, as `ssl` decodes it, that is not valid for `wanted`."""
    names: dict[str, list[str]] = {}
    for kind, name in certificate.get("subjectAltName", ()):
        names.setdefault(kind, []).append(name)
    if _is_address(wanted):
        valid = [str(ipaddress.ip_address(name)) for name in names.get("IP Address", ())]
        if not valid:
            return (
                f"cannot validate certificate for {wanted} because it doesn't contain any IP SANs"
            )
    else:
        common = [
            value
            for part in certificate.get("subject", ())
            for key, value in part
            if key == "commonName"
        ]
        if not names and common and common[-1].lower() == wanted.lower():
            return "certificate relies on legacy Common Name field, use SANs instead"
        valid = names.get("DNS", [])
    if not valid:
        return f"certificate is not valid for any names, but wanted to match {wanted}"
    return f"certificate is valid for {', '.join(valid)}, not {wanted}"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
