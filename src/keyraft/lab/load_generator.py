"""Load for `keyraft bench`: closed loops of calls over our own connections, and the report.

Every client has one call under way and starts the next when it is answered. Clients are distributed
over connections in turn. A call is a callback, not a task, so that the generator takes little
processor time from the server. The report has the form of etcd's `benchmark` tool, so the same
scripts read it.
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from keyraft.base.varints import encode_varint as varint
from keyraft.grpc import Metadata, status
from keyraft.net import Channel
from keyraft.proto import rpc_pb2

PUT: Final = b"/etcdserverpb.KV/Put"
RANGE: Final = b"/etcdserverpb.KV/Range"
TXN: Final = b"/etcdserverpb.KV/Txn"
AUTHENTICATE: Final = b"/etcdserverpb.Auth/Authenticate"
HISTOGRAM_ROWS: Final = 10
HISTOGRAM_WIDTH: Final = 40
PERCENTILES: Final = (10, 25, 50, 75, 90, 95, 99, 99.9)
ERROR_KINDS_MAX: Final = 100

MakeRequest = Callable[[int], bytes]
"""The bytes of request number i."""

Credentials = tuple[str, str]
"""A user's name and password."""


@dataclass(slots=True)
class Results:
    """What a run has measured: seconds of each answered call, errors by text, seconds in all."""

    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    errors: dict[str, int] = field(default_factory=dict)
    total_s: float = 0.0

    @property
    def per_second(self) -> float:
        """Answered calls a second."""
        return len(self.latencies_s) / self.total_s if self.total_s else 0.0

    def percentile_s(self, percent: float) -> float:
        """The latency that so many per cent of the calls did not exceed."""
        ordered = sorted(self.latencies_s)
        if not ordered:
            return math.nan
        return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]


class LoadGenerator:
    """One run of `total` calls; used once, on one loop."""

    def __init__(
        self,
        channels: Sequence[Channel],
        clients: int,
        path: bytes,
        make_request: MakeRequest,
        total: int,
        rate_per_s: float = 0.0,
        metadata: Mapping[Channel, Metadata] | None = None,
    ) -> None:
        """`metadata`: the metadata of each call on a channel: a token, if authentication is on."""
        self._channels = channels
        self._metadata = metadata or {}
        self._clients = min(clients, total)
        self._path = path
        self._make = make_request
        self._total = total
        self._rate = rate_per_s
        self._started = 0
        self._ended = 0
        self._start_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self.results = Results()

    async def run(self) -> Results:
        """Starts the clients and waits for the last answer."""
        self._start_s = time.perf_counter()
        for number in range(self._clients):
            self._next(self._channels[number % len(self._channels)])
        if self._total:
            await self._finished
        self.results.total_s = time.perf_counter() - self._start_s
        return self.results

    def _next(self, channel: Channel) -> None:
        number = self._started
        if number >= self._total:
            return
        self._started += 1
        if self._rate:
            wait_s = self._start_s + number / self._rate - time.perf_counter()
            if wait_s > 0:
                self._loop.call_later(wait_s, self._send, channel, number)
                return
        self._send(channel, number)

    def _send(self, channel: Channel, number: int) -> None:
        begin_s = time.perf_counter()

        def done(code: int, text: str, reply: bytes) -> None:
            if code == status.OK:
                self.results.latencies_s.append(time.perf_counter() - begin_s)
            else:
                errors = self.results.errors
                if text in errors or len(errors) < ERROR_KINDS_MAX:
                    errors[text] = errors.get(text, 0) + 1
            self._ended += 1
            if self._ended == self._total:
                self._finished.set_result(None)
            elif code == status.OK:
                self._next(channel)
            else:
                # Not from within the failed call: with a dead server each call fails at once, so
                # the calls would nest.
                self._loop.call_soon(self._next, channel)

        channel.call(self._path, self._make(number), done, metadata=self._metadata.get(channel, ()))


async def run_load(
    endpoints: Sequence[str],
    connections: int,
    clients: int,
    path: bytes,
    make_request: MakeRequest,
    total: int,
    rate_per_s: float = 0.0,
    credentials: Credentials | None = None,
) -> Results:
    """Connects, runs, disconnects. As with the original, each connection has its own token.

    Raises RpcError when an endpoint cannot be reached or refuses the user.
    """
    channels = [Channel(endpoints[number % len(endpoints)]) for number in range(connections)]
    try:
        metadata: dict[Channel, Metadata] = {}
        for channel in channels:
            await channel.connect()
            if credentials is not None:
                metadata[channel] = ((b"token", await _authenticate(channel, credentials)),)
        generator = LoadGenerator(
            channels, clients, path, make_request, total, rate_per_s, metadata
        )
        return await generator.run()
    finally:
        for channel in channels:
            await channel.close()


async def _authenticate(channel: Channel, credentials: Credentials) -> bytes:
    name, password = credentials
    request = rpc_pb2.AuthenticateRequest(name=name, password=password).SerializeToString()
    reply = await channel.unary(AUTHENTICATE, request)
    return rpc_pb2.AuthenticateResponse.FromString(reply).token.encode()


# --- requests ------------------------------------------------------------------------------------


def bytes_field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def key_maker(size: int, space: int, sequential: bool, random: Random) -> Callable[[int], bytes]:
    """Keys of `size` bytes, from `space` possible ones, in order or at random."""

    def make(number: int) -> bytes:
        index = number % space if sequential else random.randrange(space)
        return b"%0*d" % (size, index)

    return make


def put_maker(make_key: Callable[[int], bytes], value: bytes) -> MakeRequest:
    """PutRequests with the same value."""
    tail = bytes_field(2, value)

    def make(number: int) -> bytes:
        return bytes_field(1, make_key(number)) + tail

    return make


def range_request(key: bytes, range_end: bytes, limit: int, serializable: bool) -> bytes:
    """A RangeRequest."""
    request = bytes_field(1, key)
    if range_end:
        request += bytes_field(2, range_end)
    if limit:
        request += varint(3 << 3) + varint(limit)
    if serializable:
        request += varint(7 << 3) + b"\x01"
    return request


def txn_maker(make_put: MakeRequest, operations: int) -> MakeRequest:
    """TxnRequests of so many puts."""

    def make(number: int) -> bytes:
        first = number * operations
        return b"".join(
            bytes_field(2, bytes_field(2, make_put(first + each))) for each in range(operations)
        )

    return make


# --- the report ----------------------------------------------------------------------------------


def format_report(results: Results) -> str:
    """Summary, histogram and latency distribution, as etcd's `benchmark` prints them."""
    latencies = sorted(results.latencies_s)
    lines = ["", "Summary:", f"  Total:\t{results.total_s:.4f} secs."]
    if latencies:
        mean = math.fsum(latencies) / len(latencies)
        deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in latencies) / len(latencies))
        lines += [
            f"  Slowest:\t{latencies[-1]:.4f} secs.",
            f"  Fastest:\t{latencies[0]:.4f} secs.",
            f"  Average:\t{mean:.4f} secs.",
            f"  Stddev:\t{deviation:.4f} secs.",
            f"  Requests/sec:\t{results.per_second:.4f}",
            "",
            "Response time histogram:",
            *_histogram(latencies),
            "",
            "Latency distribution:",
            *(
                f"  {percent}% in {results.percentile_s(percent):.4f} secs."
                for percent in PERCENTILES
            ),
        ]
    if results.errors:
        lines += ["", "Error distribution:"]
        lines += [f"  [{count}]\t{text}" for text, count in sorted(results.errors.items())]
    return "\n".join(lines) + "\n"


def _histogram(latencies: Sequence[float]) -> list[str]:
    low, high = latencies[0], latencies[-1]
    step = (high - low) / HISTOGRAM_ROWS
    edges = [low + step * row for row in range(HISTOGRAM_ROWS)] + [high]
    counts = [0] * len(edges)
    row = 0
    for latency in latencies:
        while row < HISTOGRAM_ROWS and latency > edges[row]:
            row += 1
        counts[row] += 1
    most = max(counts)
    return [
        f"  {edge:.4f} [{count}]\t|{'∎' * (count * HISTOGRAM_WIDTH // most)}"
        for edge, count in zip(edges, counts, strict=True)
    ]
