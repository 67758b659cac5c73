"""The few protobuf encodings that the hot path writes by hand.

A stored KeyValue is not parsed to be sent: a response is tag, length and the stored bytes. Requests
of the common form are parsed without a message object. Any other form (other fields, other order,
long varints) is left to protobuf, which accepts all that etcd accepts. Field numbers:
`proto/rpc.proto`, `proto/mvcc.proto`.
"""

from __future__ import annotations

from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from keyraft.base import codes

from ..base.errors import RawError
from ..base.varints import LOW, VARINTS, plain_varint

M = TypeVar("M", bound=Message)

_UINT64: Final = (1 << 64) - 1


TWO: Final = 1 << 28  # numbers below this are at most one of `LOW` and one of `VARINTS`

KV_HEADS: Final = tuple(b"\x12" + length for length in VARINTS)
"""Tag and length of RangeResponse.kvs (and of Event.kv) for short values."""


def varint(value: int) -> bytes:
    """An int64 or uint64 as protobuf writes it: negative numbers take ten bytes."""
    if 0 <= value < 16384:
        return VARINTS[value]
    if 0 < value < TWO:
        return LOW[value & 16383] + VARINTS[value >> 14]
    return plain_varint(value & _UINT64)


def field(tag: bytes, content: bytes) -> bytes:
    """A length-delimited field."""
    return tag + varint(len(content)) + content


def key_value(
    key: bytes, created: int, modified: int, version: int, value: bytes = b"", lease: int = 0
) -> bytes:
    """mvccpb.KeyValue; zero fields are left out."""
    out = field(b"\x0a", key) if key else b""
    if created:
        out += b"\x10" + varint(created)
    if modified:
        out += b"\x18" + varint(modified)
    if version:
        out += b"\x20" + varint(version)
    if value:
        out += field(b"\x2a", value)
    if lease:
        out += b"\x30" + varint(lease)
    return out


def deleted_key_value(key: bytes, modified: int) -> bytes:
    """The KeyValue that a delete event carries: key and mod_revision only."""
    return field(b"\x0a", key) + b"\x18" + varint(modified)


def header(revision: int) -> bytes:
    """The header of a response inside a transaction's response: nothing but the revision."""
    if not revision:
        return b"\x0a\x00"
    number = varint(revision)
    return b"\x0a" + bytes((len(number) + 1,)) + b"\x18" + number


def stored_key(row: bytes) -> bytes:
    """The key of a stored KeyValue; raises ValueError when the bytes are none.

    No bytes at all are a KeyValue, of the empty key: the row that `snapshot restore
    --bump-revision` leaves. No client can put that key, read it or watch it.
    """
    size = len(row)
    if not size:
        return b""
    if size < 2 or row[0] != 0x0A:
        raise ValueError("no key in a stored value")
    length = row[1]
    at = 2
    if length > 127:
        length &= 127
        shift = 7
        while True:
            if at >= size or shift > 28:
                raise ValueError("damaged key length in a stored value")
            part = row[at]
            at += 1
            length |= (part & 127) << shift
            if part < 128:
                break
            shift += 7
    if at + length > size:
        raise ValueError("stored value shorter than its key")
    return row[at : at + length]


def plain_put(request: bytes) -> int:
    """Where the key's field ends, in a PutRequest with only key and value; else 0.

    Key of 1 to 127 bytes, value of 1 to 16,383.
    """
    try:
        if request[0] != 0x0A:
            return 0
        at = request[1] + 2
        if not 3 <= at <= 129 or request[at] != 0x12:
            return 0
        length = request[at + 1]
        if length < 128:
            return at if length and at + 2 + length == len(request) else 0
        high = request[at + 2]
        whole = at + 3 + (length & 127 | high << 7) == len(request)
        return at if whole and 0 < high < 128 else 0
    except IndexError:
        return 0


def plain_range(request: bytes) -> bytes | None:
    """The key of a RangeRequest that asks for one key as it is now; else None.

    Key of 1 to 127 bytes, with or without `serializable`.
    """
    size = len(request)
    if size < 3 or request[0] != 0x0A:
        return None
    at = request[1] + 2
    if at > 129 or at < 3:
        return None
    if at == size or (at + 2 == size and request[at] == 0x38 and request[at + 1] < 2):
        return request[2:at]
    return None


def malformed(detail: object) -> RawError:
    """The refusal of bytes that are no message (grpc-go: Internal)."""
    return RawError(codes.INTERNAL, f"grpc: error unmarshalling request: {detail}")


def parsed(kind: type[M], request: bytes) -> M:
    """A request as the message that it is. Raises RawError."""
    try:
        return kind.FromString(request)
    except DecodeError as error:
        raise malformed(error) from None
