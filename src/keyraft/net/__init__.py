"""Listeners, TLS, the asyncio ends of HTTP/2."""

from .channel import CLIENT_LIMITS, CallHandle, Channel, StreamCall
from .server import HttpHandler, Server, Statistics, serve
from .tls import client_context, server_context

__all__ = [
    "CLIENT_LIMITS",
    "CallHandle",
    "Channel",
    "HttpHandler",
    "Server",
    "Statistics",
    "StreamCall",
    "client_context",
    "serve",
    "server_context",
]
