"""Errors as a program meets them: etcd's own by kind, the rest with code and text.

etcd's errors differ only in their text, so the text decides the class (`base.errors.BY_TEXT`):
`except errors.CompactedError`. A text that the table does not know becomes a `StatusError`. Errors
that the client itself makes are below. `EtcdError` is the base of all of them (but invalid
arguments raise ValueError and the like).
"""

from __future__ import annotations

from keyraft.base.errors import *  # noqa: F403  # etcd's kinds are named here, too
from keyraft.base.errors import BY_TEXT, CompactedError, EtcdError, RawError

CANCELED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
UNAUTHENTICATED = 16


class StatusError(RawError, EtcdError):
    """A gRPC status whose text is none of etcd's."""


class DeadlineError(StatusError):
    """The call's deadline has passed; a write may or may not have been carried out.

    `cause` says why no server could be reached, when that is known.
    """

    def __init__(self, text: str = "context deadline exceeded", cause: str = "") -> None:
        super().__init__(DEADLINE_EXCEEDED, text)
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.text}: {self.cause}" if self.cause else self.text


class UnavailableError(StatusError):
    """The connection broke or no server answered; a write may or may not have been done."""

    def __init__(self, text: str) -> None:
        super().__init__(UNAVAILABLE, text)


class UnimplementedError(StatusError):
    """The server is too old for the call."""

    def __init__(self, text: str) -> None:
        super().__init__(UNIMPLEMENTED, text)


class ClientError(EtcdError):
    """An error that the client itself makes."""

    def __init__(self, text: str) -> None:
        Exception.__init__(self, text)
        self.text = text


class ClosedError(ClientError):
    """The client, watch or lease was closed by its own program."""


class WatchCompactedError(CompactedError):
    """Events that the watch still had to deliver were compacted.

    `compact_revision` is the first revision that can still be watched.
    """

    def __init__(self, compact_revision: int) -> None:
        super().__init__()
        self.compact_revision = compact_revision


class WatchCanceledByServerError(StatusError):
    """The server ended one watch; `text` is its reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(CANCELED, reason or "watch canceled by the server")


class LeaseLostError(ClientError):
    """The lease expired or was revoked; its keys are gone."""

    def __init__(self, lease_id: int) -> None:
        super().__init__(f"lease {lease_id:016x} expired or revoked")
        self.lease_id = lease_id


def from_status(code: int, text: str) -> EtcdError:
    """The error for a gRPC status."""
    kind = BY_TEXT.get(text)
    if kind is not None:
        return kind()
    if code == DEADLINE_EXCEEDED:
        return DeadlineError(text)
    if code == UNAVAILABLE:
        return UnavailableError(text)
    if code == UNIMPLEMENTED:
        return UnimplementedError(text)
    return StatusError(code, text)


def from_cancel_reason(reason: str) -> EtcdError:
    """The error in a watch's cancel_reason, which has Go's printed form of a status."""
    _, separator, text = reason.rpartition(" desc = ")
    kind = BY_TEXT.get(text if separator else reason)
    return kind() if kind is not None else WatchCanceledByServerError(reason)
