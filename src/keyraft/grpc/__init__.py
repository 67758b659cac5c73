"""HTTP/2 and gRPC, fed bytes and returning bytes. Pure.

A service sees `Router`, `Route` and the Protocols beside them; `net` drives `ServerConnection`
and `ClientConnection` with five verbs: receive, tick, next_deadline, take_output, and callbacks.

The names of one end are imported when they are first used: a client starts without the server's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.base.lazy import names_in

from . import status
from .limits import HTTP_WORK, Budget, Limits, http_work, text_bytes_max

if TYPE_CHECKING:
    from .call_ends import REPLY_HEAD_BYTES, CallEnd, CallEnds, EndedCall, Recorder, count_end
    from .calls import Call, Stream
    from .client import ClientConnection
    from .client_calls import ClientCall, ClientReceiver, ClientStream, Metadata, RpcError
    from .http import HttpRequest
    from .http2.frames import PREFACE
    from .requests import HttpHandler
    from .route import (
        BIDI_STREAM,
        CLIENT_STREAM,
        SERVER_STREAM,
        UNARY,
        BatchHandler,
        CallContext,
        HandleUnary,
        OpenStream,
        Route,
        ServerStream,
        StreamHandler,
        UnaryCall,
    )
    from .router import Router
    from .server import ServerConnection

__getattr__ = names_in(
    __name__,
    {
        ".call_ends": (
            "REPLY_HEAD_BYTES",
            "CallEnd",
            "CallEnds",
            "EndedCall",
            "Recorder",
            "count_end",
        ),
        ".calls": ("Call", "Stream"),
        ".client": ("ClientConnection",),
        ".client_calls": ("ClientCall", "ClientReceiver", "ClientStream", "Metadata", "RpcError"),
        ".http": ("HttpRequest",),
        ".http2.frames": ("PREFACE",),
        ".requests": ("HttpHandler",),
        ".route": (
            "BIDI_STREAM",
            "BatchHandler",
            "CLIENT_STREAM",
            "CallContext",
            "HandleUnary",
            "OpenStream",
            "Route",
            "SERVER_STREAM",
            "ServerStream",
            "StreamHandler",
            "UNARY",
            "UnaryCall",
        ),
        ".router": ("Router",),
        ".server": ("ServerConnection",),
    },
)

__all__ = [
    "BIDI_STREAM",
    "CLIENT_STREAM",
    "HTTP_WORK",
    "PREFACE",
    "REPLY_HEAD_BYTES",
    "SERVER_STREAM",
    "UNARY",
    "BatchHandler",
    "Budget",
    "Call",
    "CallContext",
    "CallEnd",
    "CallEnds",
    "ClientCall",
    "ClientConnection",
    "ClientReceiver",
    "ClientStream",
    "EndedCall",
    "HandleUnary",
    "HttpHandler",
    "HttpRequest",
    "Limits",
    "Metadata",
    "OpenStream",
    "Recorder",
    "Route",
    "Router",
    "RpcError",
    "ServerConnection",
    "ServerStream",
    "Stream",
    "StreamHandler",
    "UnaryCall",
    "count_end",
    "http_work",
    "status",
    "text_bytes_max",
]
