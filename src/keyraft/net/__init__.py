"""Listeners, TLS, the asyncio ends of HTTP/2."""
