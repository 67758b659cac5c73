"""Where a member listens, as users write it.

    127.0.0.1:2379      https://host:2379      unix:///run/etcd.sock      [::1]:2379

The scheme decides about TLS: `https`, `unixs` ask for it, `http` and `unix` refuse it, none takes
it when the client has a TLS configuration (etcd `client/v3/internal/endpoint`).
"""

from __future__ import annotations

from typing import NamedTuple

PORT_DEFAULT = 2379


class Endpoint(NamedTuple):
    """One address; `path` is set for Unix sockets, `host` and `port` otherwise."""

    text: str
    host: str
    port: int
    path: str
    tls: bool | None

    @property
    def authority(self) -> str:
        """The address without its scheme, as the `:authority` of requests has it."""
        _, separator, rest = self.text.partition("://")
        return rest if separator else self.text


def parse(text: str) -> Endpoint:
    """The endpoint that `text` names; ValueError says what is wrong with it."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
        for word in ("unix:", "unixs:"):
            if text.startswith(word):
                scheme, rest = word[:-1], text[len(word) :]
    if scheme not in ("", "http", "https", "unix", "unixs"):
        raise ValueError(f"endpoint {text!r}: unknown scheme {scheme!r}")
    tls = {"https": True, "unixs": True, "http": False, "unix": False}.get(scheme)
    if scheme.startswith("unix"):
        if not rest:
            raise ValueError(f"endpoint {text!r}: no socket path")
        return Endpoint(text, "", 0, rest, tls)
    rest = rest.partition("/")[0]
    host, port = rest, ""
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise ValueError(f"endpoint {text!r}: bad IPv6 address")
        port = tail[1:]
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    if port and not (port.isascii() and port.isdigit() and int(port) < 65_536):
        raise ValueError(f"endpoint {text!r}: bad port {port!r}")
    if not host:
        host = "127.0.0.1"
    return Endpoint(text, host, int(port) if port else PORT_DEFAULT, "", tls)
