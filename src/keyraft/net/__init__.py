"""Listeners, TLS, the asyncio ends of HTTP/2."""

from .server import HttpHandler, Server, Statistics, serve

__all__ = ["HttpHandler", "Server", "Statistics", "serve"]
