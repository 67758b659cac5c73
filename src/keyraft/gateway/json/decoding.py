"""JSON requests as encoded messages.

Nearly all requests are read by `orjson` and the quick readers of `fields`. What these do not take
goes through the exact readers.
"""

from __future__ import annotations

from typing import Final

import orjson
from google.protobuf.message import EncodeError, Message

from keyraft.gateway.json.fields import NotQuickError, Quotes, Table
from keyraft.gateway.json.protojson import ProtoJsonError, read_message
from keyraft.gateway.json.scanner import SyntaxProblem, find_value

SLOW_MARKS: Final = 2_000  # a body with more values, names and escapes is read in a thread


class NotDecodedError(Exception):
    """The body is no such message; `str()` has the original's words."""


def is_slow(body: bytes) -> bool:
    """Whether reading `body` takes longer than a few milliseconds."""
    return len(body) > SLOW_MARKS and (sum(map(body.count, (b",", b"{", b"[", b"\\"))) > SLOW_MARKS)


def decode(kind: type[Message], table: Table, body: bytes) -> bytes:
    """The first JSON value in `body`, encoded; an empty body is an empty message.

    Raises NotDecodedError. What follows the first value is ignored, as by the original.
    """
    quick = _decode_quickly(table, body)
    if quick is not None:
        return quick
    try:
        found = find_value(body)
    except SyntaxProblem as problem:
        raise NotDecodedError(str(problem)) from None
    return b"" if found is None else decode_value(kind, table, body[found[0] : found[1]])


def decode_value(kind: type[Message], table: Table, value: bytes) -> bytes:
    """One JSON value, encoded; raises NotDecodedError."""
    quick = _decode_quickly(table, value)
    if quick is not None:
        return quick
    message = kind()
    try:
        read_message(table, message, value)
        return message.SerializeToString()
    except ProtoJsonError as problem:
        raise NotDecodedError(str(problem)) from None
    except EncodeError:
        raise NotDecodedError("proto: exceeded max recursion depth") from None


def _decode_quickly(table: Table, body: bytes) -> bytes | None:
    if b"\\" in body:
        return None
    try:
        quotes = Quotes()
        message = table.read_quickly(orjson.loads(body), quotes)
    except (NotQuickError, orjson.JSONDecodeError, RecursionError):
        return None
    return message if quotes.count == body.count(b'"') else None
