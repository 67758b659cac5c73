"""Messages of a member as JSON."""

from __future__ import annotations

from typing import Final

import orjson
from google.protobuf.message import Message

from keyraft.gateway.json.fields import Table

SLOW_BYTES: Final = 65_536  # longer messages are written in a thread: some milliseconds of work


def message_json(kind: type[Message], table: Table, message: bytes) -> bytes:
    """An encoded message as a JSON object."""
    return orjson.dumps(table.to_object(kind.FromString(message)))


def result_line(kind: type[Message], table: Table, message: bytes) -> bytes:
    """One line of a stream's answer."""
    return b'{"result":' + message_json(kind, table, message) + b"}\n"


def error_json(code: int, text: str) -> bytes:
    """The body of a refusal (google.rpc.Status)."""
    return orjson.dumps(_status(code, text))


def error_line(code: int, text: str) -> bytes:
    """The last line of a stream that failed."""
    return orjson.dumps({"error": _status(code, text)}) + b"\n"


def _status(code: int, text: str) -> dict[str, int | str]:
    """Zero values are left out."""
    status: dict[str, int | str] = {}
    if code:
        status["code"] = code
    if text:
        status["message"] = text
    return status
