"""The server name in a ClientHello (RFC 8446 §4.1.2, RFC 6066 §3): for the log of a failed handshake.

Nothing is decided by it. A hello that is cut short, or none at all, has no name.
"""

from __future__ import annotations

import struct
from typing import Final

_HEAD: Final = 5 + 4 + 2 + 32  # of the record and of the message, version, random
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0


def asked_name(data: bytes) -> str:
    """The name that the client asks for; empty when there is none."""
    try:
        return _name(data).decode("ascii")
    except (IndexError, struct.error, UnicodeDecodeError):
        return ""


def _name(data: bytes) -> bytes:
    if data[0] != 0x16 or data[5] != 1:
        return b""
    at = _HEAD
    at += 1 + data[at]  # session id
    at += 2 + _u16(data, at)  # cipher suites
    at += 1 + data[at]  # compression methods
    end = at + 2 + _u16(data, at)
    at += 2
    while at < end:
        kind, size = struct.unpack_from(">HH", data, at)
        at += 4
        if kind == _SERVER_NAME:  # a list of names: its length, then kind, length, name
            length = _u16(data, at + 3)
            name = data[at + 5 : at + 5 + length]
            return name if data[at + 2] == _HOST_NAME and len(name) == length else b""
        at += size
    return b""


def _u16(data: bytes, at: int) -> int:
    value: int = struct.unpack_from(">H", data, at)[0]
    return value
