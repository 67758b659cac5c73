"""etcdctl's signs of life: enough to notice a dead server, too few for a living one to hang up."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from keyraft.cli.ctl.context import ping_interval_s
from keyraft.cli.ctl.globals import GLOBAL_FLAGS
from keyraft.grpc import ClientConnection, Limits, Router, ServerConnection, ServerStream

HOUR_S = 3600


class Silent:
    """The server's side of a stream on which nothing happens."""

    def on_message(self, message: bytes) -> None:
        """A snapshot is being prepared, or no key changes."""

    on_half_close = on_writable = lambda self: None

    def on_cancel(self, code: int) -> None:
        """The connection was closed."""


class Waiting:
    """The client's side."""

    def on_message(self, message: bytes) -> None:
        raise AssertionError("nothing was sent")

    def on_end(self, code: int, text: str, trailers: Mapping[bytes, bytes]) -> None:
        """The connection was closed."""

    def on_writable(self) -> None:
        """Nothing is sent."""


def an_hour_of_silence(interval_s: float) -> str:
    """Why the server, or the client, hangs up on a stream on which nothing happens, if so."""

    def opened(stream: ServerStream) -> Silent:
        return Silent()

    router = Router()
    router.stream("/t.T/Wait", opened)
    server = ServerConnection(router, Limits(), 0.0)
    limits = Limits(keepalive_interval_s=interval_s, keepalive_timeout_s=6.0)
    client = ClientConnection(limits, 0.0, authority="host")
    client.stream(b"/t.T/Wait", Waiting(), 0.0).send(b"")
    for second in range(HOUR_S):
        now = float(second)
        for end in (client, server):
            end.tick(now)
        while client.has_output or server.has_output:
            for end, other in ((client, server), (server, client)):
                if end.has_output:
                    other.receive(end.take_output(), now)
        if server.closed or client.closed:
            return server.close_reason or client.close_reason
    return ""


def test_the_default_of_the_flag_does_not_make_a_server_hang_up() -> None:
    (default,) = (flag.default for flag in GLOBAL_FLAGS if flag.name == "keepalive-time")
    assert default == 2.0
    assert an_hour_of_silence(ping_interval_s(default)) == ""
    assert an_hour_of_silence(default) == "too_many_pings"  # as it would be without


@pytest.mark.parametrize(("flag_s", "interval_s"), [(0.0, 0.0), (0.5, 10.0), (30.0, 30.0)])
def test_longer_times_and_none_are_taken_as_they_are(flag_s: float, interval_s: float) -> None:
    assert ping_interval_s(flag_s) == interval_s
