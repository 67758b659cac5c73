"""HTTP/2 and gRPC, fed bytes and returning bytes. Pure.

A service sees `Router`, `Route` and the Protocols beside them; `net` drives `ServerConnection`
and `ClientConnection` with five verbs: receive, tick, next_deadline, take_output, and callbacks.

The names of one end are imported when they are first used: a client starts without the server's.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from . import status
from .limits import HTTP_WORK, Budget, Limits

if TYPE_CHECKING:
    from .call_ends import CallEnd
    from .calls import Call, Stream
    from .client import ClientConnection
    from .client_calls import ClientCall, ClientReceiver, ClientStream, Metadata, RpcError
    from .http import HttpRequest
    from .http2.frames import PREFACE
    from .requests import HttpHandler
    from .router import (
        BIDI_STREAM,
        CLIENT_STREAM,
        SERVER_STREAM,
        UNARY,
        BatchHandler,
        CallContext,
        Route,
        Router,
        ServerStream,
        StreamHandler,
        UnaryCall,
    )
    from .server import ServerConnection

_HOMES: Final = {
    "BIDI_STREAM": ".router",
    "CLIENT_STREAM": ".router",
    "PREFACE": ".http2.frames",
    "SERVER_STREAM": ".router",
    "UNARY": ".router",
    "BatchHandler": ".router",
    "Call": ".calls",
    "CallContext": ".router",
    "CallEnd": ".call_ends",
    "ClientCall": ".client_calls",
    "ClientConnection": ".client",
    "ClientReceiver": ".client_calls",
    "ClientStream": ".client_calls",
    "HttpHandler": ".requests",
    "HttpRequest": ".http",
    "Metadata": ".client_calls",
    "Route": ".router",
    "Router": ".router",
    "RpcError": ".client_calls",
    "ServerConnection": ".server",
    "ServerStream": ".router",
    "Stream": ".calls",
    "StreamHandler": ".router",
    "UnaryCall": ".router",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home, __name__), name)


__all__ = [
    "BIDI_STREAM",
    "CLIENT_STREAM",
    "HTTP_WORK",
    "PREFACE",
    "SERVER_STREAM",
    "UNARY",
    "BatchHandler",
    "Budget",
    "Call",
    "CallContext",
    "CallEnd",
    "ClientCall",
    "ClientConnection",
    "ClientReceiver",
    "ClientStream",
    "HttpHandler",
    "HttpRequest",
    "Limits",
    "Metadata",
    "Route",
    "Router",
    "RpcError",
    "ServerConnection",
    "ServerStream",
    "Stream",
    "StreamHandler",
    "UnaryCall",
    "status",
]
