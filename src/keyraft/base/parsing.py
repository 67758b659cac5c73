"""Client bytes to messages, with the refusal that the original's decoder gives."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from keyraft.base.errors import RawError

_INTERNAL = 13
M = TypeVar("M", bound=Message)


def parse(kind: type[M], request: bytes) -> M:
    """The message; raises RawError (Internal) when the bytes are none."""
    try:
        return kind.FromString(request)
    except DecodeError as error:
        raise RawError(_INTERNAL, f"grpc: error unmarshalling request: {error}") from None
