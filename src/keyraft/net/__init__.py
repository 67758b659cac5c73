"""Listeners, TLS, the asyncio ends of HTTP/2.

The names are imported when they are first used: a client starts without what only servers need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyraft.base.lazy import names_in

if TYPE_CHECKING:
    from .accepting import Acceptor, Places, Say, bind
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
    from .reasons import (
        EOF,
        TIMEOUT,
        failure_reason,
        handshake_reason,
        lookup_reason,
        system_reason,
    )
    from .server import HttpHandler, Server, Statistics, serve
    from .streamcall import PINGS_FROM_SERVER, StreamCall
    from .tls import (
        Allowed,
        CertificateNames,
        CertificateRefusedError,
        ClientTLS,
        Failed,
        ServerTLS,
        Terms,
        TLSFiles,
        WatchedFile,
        client_context,
        end_of,
        self_signed,
        shake_hands,
        unknown_suite,
    )

__getattr__ = names_in(
    __name__,
    {
        ".accepting": ("Acceptor", "Places", "Say", "bind"),
        ".address": ("join_host_port", "peer_name"),
        ".channel": ("CLIENT_LIMITS", "CallHandle", "Channel"),
        ".http1": (
            "Body",
            "BodyError",
            "ChunkDecoder",
            "ChunkError",
            "Http1Client",
            "Http1Limits",
            "Http1Request",
            "Http1Service",
            "HttpAnswer",
            "HttpError",
            "PEER_PORT",
            "dial",
        ),
        ".protocol": ("Flusher", "Http2Protocol"),
        ".reasons": (
            "EOF",
            "TIMEOUT",
            "failure_reason",
            "handshake_reason",
            "lookup_reason",
            "system_reason",
        ),
        ".server": ("HttpHandler", "Server", "Statistics", "serve"),
        ".streamcall": ("PINGS_FROM_SERVER", "StreamCall"),
        ".tls": (
            "Allowed",
            "CertificateNames",
            "CertificateRefusedError",
            "ClientTLS",
            "Failed",
            "ServerTLS",
            "TLSFiles",
            "WatchedFile",
            "Terms",
            "WatchedFile",
            "client_context",
            "end_of",
            "self_signed",
            "shake_hands",
            "unknown_suite",
        ),
    },
)

__all__ = [
    "CLIENT_LIMITS",
    "EOF",
    "PEER_PORT",
    "PINGS_FROM_SERVER",
    "TIMEOUT",
    "Acceptor",
    "Allowed",
    "Body",
    "BodyError",
    "CallHandle",
    "CertificateNames",
    "CertificateRefusedError",
    "Channel",
    "ChunkDecoder",
    "ChunkError",
    "ClientTLS",
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
    "ServerTLS",
    "Statistics",
    "StreamCall",
    "TLSFiles",
    "Terms",
    "WatchedFile",
    "bind",
    "client_context",
    "dial",
    "end_of",
    "failure_reason",
    "handshake_reason",
    "join_host_port",
    "lookup_reason",
    "peer_name",
    "self_signed",
    "serve",
    "shake_hands",
    "system_reason",
    "unknown_suite",
]
