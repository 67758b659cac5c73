"""Every limit of the transport, with its unit and where it comes from.

They bound the memory that a peer can make this end use: incomplete requests by `inbound_bytes_max`,
answers that wait for its windows by `outbound_bytes_max`, answers that wait for its socket by
`output_bytes_max`. The budgets bound the work. `slice_work` bounds the work at once: then other
connections have their turn.

DEVIATION: etcd has no limit on the streams of a connection unless one is configured, accepts 16 MiB
of headers, and of the floods limits only pings. Here each has a limit, far above what clients of
etcd are known to need.

The values here are named tuples: making so large a dataclass takes longer than importing the rest
of what a client needs of the transport.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from keyraft.base.limits import GRPC_OVERHEAD_BYTES, REQUEST_BYTES_MAX

KNOWN_FIELD_BLOCKS_MAX: Final = 64  # remembered per connection
KNOWN_FIELD_BLOCK_BYTES_MAX: Final = 2_048  # longer blocks are decoded each time
RESET_MEMORY_STREAMS_MAX: Final = 4_096  # streams we reset whose late frames are dropped
STREAM_BATCH_MESSAGES_MAX: Final = 1_024  # of a stream's that are handed over in one go
PING_STRIKES_MAX: Final = 2  # gRPC-Go, internal/transport maxPingStrikes
PING_IDLE_INTERVAL_S_MIN: Final = 7_200.0  # gRPC-Go, defaultPingTimeout, without a stream


# Work is counted in units of about a microsecond, so that the same bytes always cost the same.
REQUEST_WORK: Final = 20  # a unary request, from its header to its handler
MESSAGE_WORK: Final = 3  # one of a stream's that are handed over together
HTTP_WORK: Final = 5_000  # a request that is not gRPC: /metrics takes 5 ms and more
JSON_WORK: Final = 200  # but one call through the JSON gateway; long bodies are read elsewhere
FRAME_WORK: Final = 5  # any other frame, received, or sent out of a queue
LOST_WORK: Final = 10  # a stream that ends with its connection, or by its deadline
BLOCK_BYTES_PER_WORK: Final = 2  # of a header block that is not remembered
DATA_BYTES_PER_WORK: Final = 1_024
STREAMS_PER_WORK: Final = 8  # whose windows a setting changes


def http_work(target: str) -> int:
    """What a request of plain HTTP costs, by its path."""
    return JSON_WORK if target.startswith("/v3") else HTTP_WORK


def text_bytes_max(message_bytes: int) -> int:
    """The largest body of plain HTTP: a message of that size as JSON, its bytes in base64."""
    return message_bytes * 4 // 3 + 65_536


class Budget(NamedTuple):
    """How often a thing may happen: `burst` at once, then `rate` per second."""

    burst: int
    rate: float


class Limits(NamedTuple):
    """Limits of one connection. Times in seconds; zero turns a keepalive off."""

    message_bytes_max: int = REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES  # received, per message
    streams_max: int = 131_072  # open at once; etcd's default is "unlimited"
    streams_advertised: int | None = None  # SETTINGS_MAX_CONCURRENT_STREAMS, when configured
    stream_window_bytes: int = 1_048_576  # what one stream may send ahead
    connection_window_bytes: int = 16_777_216  # what all streams together may send ahead
    header_list_bytes_max: int = 65_536  # RFC 9113 §6.5.2 counting
    header_block_bytes_max: int = 65_536  # HEADERS and its CONTINUATIONs as received
    continuation_frames_max: int = 64  # after one HEADERS

    inbound_bytes_max: int = 268_435_456  # incomplete and unread messages of a connection
    outbound_bytes_max: int = 67_108_864  # waiting for windows; above, new streams are refused
    output_bytes_max: int = 4_194_304  # made in one go; above, parsing waits for the socket
    stream_queue_bytes: int = 1_048_576  # what Stream.writable counts from
    slice_work: int = 2_500  # done at once; then another connection has its turn

    keepalive_interval_s: float = 7_200.0  # --grpc-keepalive-interval
    keepalive_timeout_s: float = 20.0  # --grpc-keepalive-timeout
    keepalive_min_time_s: float = 5.0  # --grpc-keepalive-min-time
    handshake_s_max: float = 10.0  # from the start to the client's SETTINGS
    drain_grace_s: float = 1.0  # from the first GOAWAY to the one with the true last stream

    # Rapid reset (CVE-2023-44487), settings, ping, empty-frame and small-update floods.
    resets: Budget = Budget(10_000, 1_000.0)
    settings: Budget = Budget(100, 10.0)
    pings: Budget = Budget(1_000, 100.0)  # those that do not follow an answer of ours
    empty_frames: Budget = Budget(1_000, 100.0)
    odd_frames: Budget = Budget(10_000, 1_000.0)  # PRIORITY and unknown types
    window_updates: Budget = Budget(100_000, 50_000.0)
    stream_faults: Budget = Budget(1_000, 100.0)
