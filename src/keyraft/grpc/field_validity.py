"""Which fields may stand in a header or trailer section (RFC 9113 §8.2.1, Field Validity; §8.3)."""

from __future__ import annotations

from typing import Final

from .http2.hpack import Header

_CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_UPPER: Final = frozenset(range(0x41, 0x5B))
_NAME_FORBIDDEN: Final = _UPPER | frozenset(range(0x21)) | frozenset(range(0x7F, 0x100))


def check_fields(fields: list[Header], pseudo: frozenset[bytes]) -> str | None:
    """The fault of a header list that may hold these pseudo-headers, or None."""
    seen: set[bytes] = set()
    regular = False
    for name, value in fields:
        if b"\0" in value or b"\n" in value or b"\r" in value:
            return "a header value with a forbidden octet"
        if name[:1] == b":":
            if regular or name not in pseudo or name in seen:
                return "a pseudo-header that is unknown, repeated or after a field"
            seen.add(name)
            continue
        regular = True
        if not name or not _NAME_FORBIDDEN.isdisjoint(name) or b":" in name:
            return "a header name that is not in lower case or not a token"
        if name in _CONNECTION_SPECIFIC or (name == b"te" and value != b"trailers"):
            return "a connection-specific header"
    return None
