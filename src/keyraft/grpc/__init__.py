"""HTTP/2 and gRPC, fed bytes and returning bytes. Pure.

A service sees `Router`, `Route` and the Protocols beside them; `net` drives `ServerConnection`
and `ClientConnection` with five verbs: receive, tick, next_deadline, take_output, and callbacks.
"""

from . import status
from .calls import Call, Stream
from .client import ClientConnection
from .client_calls import ClientCall, ClientReceiver, ClientStream, Metadata, RpcError
from .http import HttpRequest
from .http2.frames import PREFACE
from .limits import Budget, Limits
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
from .server import HttpHandler, ServerConnection

__all__ = [
    "BIDI_STREAM",
    "CLIENT_STREAM",
    "PREFACE",
    "SERVER_STREAM",
    "UNARY",
    "BatchHandler",
    "Budget",
    "Call",
    "CallContext",
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
