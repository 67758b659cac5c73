"""What the HTTP/1.1 connections of one port have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from keyraft.grpc import http_work

from ..protocol import Turns
from .limits import CLIENT_PORT, Http1Limits
from .request import Http1Request


class Served(Protocol):
    """A connection that waits for its turn."""

    def serve(self) -> int:
        """Its next step; returns how much work that was (net.protocol.Turns)."""


class Http1Service:
    """What the HTTP/1.1 connections of one port share."""

    __slots__ = ("early", "limits", "loop", "on_http", "turns")

    def __init__(
        self,
        on_http: Callable[[Http1Request], None],
        loop: asyncio.AbstractEventLoop,
        limits: Http1Limits = CLIENT_PORT,
        early: bool = False,
        turns: Turns | None = None,
    ) -> None:
        """`early`: whether a request is handed out before its body (`Http1Request.incoming`).
        `turns`: shared with the port's other connections, of HTTP/2."""
        self.on_http = on_http
        self.loop = loop
        self.limits = limits
        self.early = early
        self.turns = turns

    @property
    def open(self) -> bool:
        """Whether a request that arrives now may be handled at once."""
        return self.turns is None or self.turns.left > 0

    def soon(self, connection: Served) -> None:
        """Has `connection.serve` called in a later turn of the loop: plain HTTP costs much time."""
        if self.turns is None:
            self.loop.call_soon(connection.serve)
        else:
            self.turns.wait(connection, heavy=True)

    def hand_out(self, request: Http1Request) -> None:
        """Gives a request to its handler."""
        if self.turns is not None:
            self.turns.charge(http_work(request.target))
        self.on_http(request)
