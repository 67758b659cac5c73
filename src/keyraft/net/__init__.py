"""Listeners, TLS, the asyncio ends of HTTP/2.

The names are imported when they are first used: a client starts without what only servers need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .accepting import Acceptor, Places, Say, bind
    from .channel import CLIENT_LIMITS, CallHandle, Channel
    from .protocol import Flusher, Http2Protocol
    from .server import HttpHandler, Server, Statistics, serve
    from .streamcall import PINGS_FROM_SERVER, StreamCall
    from .tls import Terms, client_context, server_context, unknown_suite

_HOMES: Final = {
    "Acceptor": ".accepting",
    "CLIENT_LIMITS": ".channel",
    "PINGS_FROM_SERVER": ".streamcall",
    "CallHandle": ".channel",
    "Channel": ".channel",
    "Flusher": ".protocol",
    "Http2Protocol": ".protocol",
    "HttpHandler": ".server",
    "Places": ".accepting",
    "Say": ".accepting",
    "Server": ".server",
    "Statistics": ".server",
    "StreamCall": ".streamcall",
    "Terms": ".tls",
    "bind": ".accepting",
    "client_context": ".tls",
    "serve": ".server",
    "server_context": ".tls",
    "unknown_suite": ".tls",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home, __name__), name)


__all__ = [
    "CLIENT_LIMITS",
    "PINGS_FROM_SERVER",
    "Acceptor",
    "CallHandle",
    "Channel",
    "Flusher",
    "Http2Protocol",
    "HttpHandler",
    "Places",
    "Say",
    "Server",
    "Statistics",
    "StreamCall",
    "Terms",
    "bind",
    "client_context",
    "serve",
    "server_context",
    "unknown_suite",
]
