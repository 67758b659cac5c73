"""What a resumed session (RFC 8446 §2.2) does not show again: that the client's certificate is valid.

OpenSSL takes the verdict of the handshake before over with the session. A session is known only to
the context that gave it out, and a context has one set of authorities and revocation lists: so what
may have changed since is the time.
"""

from __future__ import annotations

import ssl
from time import time
from typing import Final

_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED, `openssl/x509_vfy.h`


def check_resumed(tls: ssl.SSLObject) -> None:
    """Raises SSLCertVerificationError when the certificate of a resumed session has expired."""
    if not tls.session_reused:
        return
    certificate = tls.getpeercert()
    if not certificate:
        return
    if ssl.cert_time_to_seconds(str(certificate["notAfter"])) <= time():
        expired = ssl.SSLCertVerificationError(1, "certificate has expired")
        expired.verify_code = _EXPIRED
        expired.verify_message = "certificate has expired"
        raise expired
