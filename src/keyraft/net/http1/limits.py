"""Everything that is bounded on an HTTP/1.1 connection, in one place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Http1Limits:
    """What one connection may send and how long it may take.

    Passing a limit ends the connection; if the client can still be answered, with 413 or 431.
    """

    # DEVIATION: Go's server takes 1 MiB of any number of headers.
    head_bytes_max: int = 65_536  # request line and headers, and the trailers behind a body
    header_lines_max: int = 256
    head_s_max: float = 10.0  # from the first byte of a request, or the connection's, to its head
    idle_s_max: float = 75.0  # between two requests

    # of a body that is read before its request is handled
    body_bytes_max: int = 2_097_152
    body_s_max: float = 300.0  # Go's members: `ReadTimeout`
    # of every body: how many bytes must arrive in how much time while they are waited for
    body_span_s: float = 20.0
    body_span_bytes_min: int = 4_096
    body_unread_bytes_max: int = 262_144  # received and not yet asked for, before reading stops
    # of a body that its handler did not want: read and thrown away so that the connection lives on
    body_unwanted_bytes_max: int = 262_144

    output_bytes_max: int = 1_048_576  # `HttpRequest.writable` is this minus what is queued
    output_stall_s_max: float = 60.0  # for the client to make room in a full buffer
    linger_s_max: float = 0.5  # for the client to read why it was refused (Go `rstAvoidanceDelay`)
    closing_s_max: float = 5.0  # for the last bytes of an answer after which the connection ends

    turn_bytes_max: int = 16_384  # of chunks, decoded before other connections get their turn


CLIENT_PORT: Final = Http1Limits()
# Go's members close an idle connection of the peer port after five seconds (`ConnReadTimeout`).
PEER_PORT: Final = replace(CLIENT_PORT, idle_s_max=5.0)
