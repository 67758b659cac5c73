"""Listeners, TLS, the asyncio ends of HTTP/2.

The names are imported when they are first used: a client starts without what only servers need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .accepting import Acceptor, Failed, Places, Say, bind
    from .address import join_host_port, peer_name
    from .channel import CLIENT_LIMITS, CallHandle, Channel
    from .http1 import (
        PEER_PORT,
        Body,
        BodyError,
        ChunkDecoder,
        ChunkError,
        Http1Client,
        Http1Limits,
        Http1Request,
        Http1Service,
        HttpAnswer,
        HttpError,
        dial,
    )
    from .protocol import Flusher, Http2Protocol
    from .reasons import EOF, TIMEOUT, handshake_reason, lookup_reason, system_reason
    from .server import HttpHandler, Server, Statistics, serve
    from .streamcall import PINGS_FROM_SERVER, StreamCall
    from .tls import Terms, client_context, server_context, unknown_suite

_HOMES: Final = {
    "Acceptor": ".accepting",
    "Body": ".http1",
    "BodyError": ".http1",
    "CLIENT_LIMITS": ".channel",
    "CallHandle": ".channel",
    "Channel": ".channel",
    "ChunkDecoder": ".http1",
    "ChunkError": ".http1",
    "Failed": ".accepting",
    "Flusher": ".protocol",
    "Http1Client": ".http1",
    "Http1Limits": ".http1",
    "Http1Request": ".http1",
    "Http1Service": ".http1",
    "Http2Protocol": ".protocol",
    "HttpAnswer": ".http1",
    "HttpError": ".http1",
    "HttpHandler": ".server",
    "PEER_PORT": ".http1",
    "PINGS_FROM_SERVER": ".streamcall",
    "Places": ".accepting",
    "EOF": ".reasons",
    "Say": ".accepting",
    "Server": ".server",
    "Statistics": ".server",
    "StreamCall": ".streamcall",
    "TIMEOUT": ".reasons",
    "Terms": ".tls",
    "bind": ".accepting",
    "client_context": ".tls",
    "dial": ".http1",
    "handshake_reason": ".reasons",
    "join_host_port": ".address",
    "lookup_reason": ".reasons",
    "peer_name": ".address",
    "serve": ".server",
    "server_context": ".tls",
    "system_reason": ".reasons",
    "unknown_suite": ".tls",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home, __name__), name)


__all__ = [
    "CLIENT_LIMITS",
    "EOF",
    "PEER_PORT",
    "PINGS_FROM_SERVER",
    "TIMEOUT",
    "Acceptor",
    "Body",
    "BodyError",
    "CallHandle",
    "Channel",
    "ChunkDecoder",
    "ChunkError",
    "Failed",
    "Flusher",
    "Http1Client",
    "Http1Limits",
    "Http1Request",
    "Http1Service",
    "Http2Protocol",
    "HttpAnswer",
    "HttpError",
    "HttpHandler",
    "Places",
    "Say",
    "Server",
    "Statistics",
    "StreamCall",
    "Terms",
    "bind",
    "client_context",
    "dial",
    "handshake_reason",
    "join_host_port",
    "lookup_reason",
    "peer_name",
    "serve",
    "server_context",
    "system_reason",
    "unknown_suite",
]
