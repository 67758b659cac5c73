"""gRPC's status codes as HTTP statuses (grpc-gateway `runtime.HTTPStatusFromCode`)."""

from __future__ import annotations

from typing import Final

from keyraft.base import http_status
from keyraft.grpc import status

_CLIENT_CLOSED_REQUEST: Final = 499  # nginx's, without a name in RFC 9110
_CONFLICT: Final = 409

_STATUSES: Final = {
    status.OK: http_status.OK,
    status.CANCELLED: _CLIENT_CLOSED_REQUEST,
    status.INVALID_ARGUMENT: http_status.BAD_REQUEST,
    status.DEADLINE_EXCEEDED: http_status.GATEWAY_TIMEOUT,
    status.NOT_FOUND: http_status.NOT_FOUND,
    status.ALREADY_EXISTS: _CONFLICT,
    status.PERMISSION_DENIED: http_status.FORBIDDEN,
    status.UNAUTHENTICATED: http_status.UNAUTHORIZED,
    status.RESOURCE_EXHAUSTED: http_status.TOO_MANY_REQUESTS,
    status.FAILED_PRECONDITION: http_status.BAD_REQUEST,
    status.ABORTED: _CONFLICT,
    status.OUT_OF_RANGE: http_status.BAD_REQUEST,
    status.UNIMPLEMENTED: http_status.NOT_IMPLEMENTED,
    status.UNAVAILABLE: http_status.SERVICE_UNAVAILABLE,
}


def http_status_of(code: int) -> int:
    """The HTTP status of a gRPC code."""
    return _STATUSES.get(code, http_status.INTERNAL_SERVER_ERROR)
