"""Watches and leases measured on both servers by turns: `python -m bench.watch`.

Rows: a thousand watchers on prefixes of their own, at 5,000 puts a second and at full speed; ten
thousand on one key, at more than any can deliver and at what both can; both kinds together; puts
with ten thousand idle watchers and with a hundred that do not read, in pairs of short turns;
keep-alives; a hundred thousand leases that run out together.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from itertools import pairwise
from typing import Final

from bench.__main__ import Table
from bench.rawclient import (
    Connection,
    Poll,
    Putter,
    header_block,
    percentile,
    stamped,
    weighted_percentile,
)
from bench.servers import ORIGINAL, OURS, Server
from keyraft.mvcc.wire import varint
from keyraft.proto import rpc_pb2

WATCH: Final = "/etcdserverpb.Watch/Watch"
KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
VALUE_BYTES: Final = 64
RATE: Final = 5_000
CONNECTIONS: Final = 10
PAIRED_TURNS: Final = 15
QUIET_S: Final = 3.0  # nothing more is coming
RENEWALS: Final = 200  # under way in each stream


def create_request(key: bytes, range_end: bytes = b"") -> bytes:
    """A WatchRequest."""
    create = rpc_pb2.WatchCreateRequest(key=key, range_end=range_end)
    return rpc_pb2.WatchRequest(create_request=create).SerializeToString()


def put_request(key: bytes, size: int = VALUE_BYTES, due_s: float = 0.0) -> bytes:
    """A PutRequest whose value says when it was due."""
    return rpc_pb2.PutRequest(key=key, value=stamped(size, due_s)).SerializeToString()


def watchers(
    server: Server,
    poll: Poll,
    ranges: list[tuple[bytes, bytes]],
    per_stream: int,
    sample: int = 1,
) -> list[Connection]:
    """Connections with a watcher for each range, all of them created."""
    block = header_block(WATCH, server.endpoint)
    connections = [
        Connection(server.endpoint, counting=True, sample=sample) for _ in range(CONNECTIONS)
    ]
    for connection in connections:
        poll.add(connection)
    for number in range(0, len(ranges), per_stream):
        connection = connections[number // per_stream % CONNECTIONS]
        first, *others = ranges[number : number + per_stream]
        out = [connection.open(block, create_request(*first), end=False)]
        stream = connection.last_stream
        out += [connection.message(stream, create_request(*each)) for each in others]
        connection.socket.sendall(b"".join(out))
        if number // per_stream % 50 == 49:
            poll.once(0.0)
    poll.quiet(0.5)
    return connections


def at_rate(
    poll: Poll, putter: Putter, rate: int, total: int, make: Callable[[float], bytes]
) -> float:
    """So many puts at a rate, each made with the time when it is due; the rate that was reached."""
    start_s = time.perf_counter()
    sent = 0
    while sent < total:
        due = min(int((time.perf_counter() - start_s) * rate) + 1, total) - sent
        due = min(due, putter.room)
        if due > 0:
            putter.send([make(start_s + number / rate) for number in range(sent, sent + due)])
            sent += due
        poll.once(0.0005)
    return sent / (time.perf_counter() - start_s)


def fan_out(
    server: Server,
    table: Table,
    name: str,
    ranges: list[tuple[bytes, bytes]],
    per_stream: int,
    keys: list[bytes],
    seconds: float,
    target: float,
    sample: int = 1,
) -> None:
    """Puts at a rate, of `keys` in turn, to watchers, until all events have been delivered.

    An event's delay counts from the time when its put was due, so that neither a server that holds
    puts back nor one that is still delivering when the last put is in looks better than it is.
    `target` is that of the events delivered a second until the last of them; none where the puts'
    rate is the limit.
    """
    server.start()
    poll = Poll()
    connections = watchers(server, poll, ranges, per_stream, sample)
    putter = Putter(server.endpoint, poll, in_flight=1_000)
    total = int(RATE * seconds)
    puts = list(itertools.islice(itertools.cycle(keys), total))
    ordered = sorted(puts)
    wanted = sum(
        bisect_left(ordered, end or start + b"\0") - bisect_left(ordered, start)
        for start, end in ranges
    )
    each = iter(puts)
    before_s = server.cpu_s()
    own_before_s = time.process_time()
    start_s = time.perf_counter()
    reached = at_rate(poll, putter, RATE, total, lambda due_s: put_request(next(each), due_s=due_s))
    took_s = poll.quiet(QUIET_S) - start_s
    events = sum(connection.events for connection in connections)
    assert 0.97 * wanted < events < 1.03 * wanted, f"{events:,} of {wanted:,} events came"
    delays = [delay for connection in connections for delay in connection.delays_s]
    p50_ms, p99_ms = (weighted_percentile(delays, percent) * 1e3 for percent in (50, 99))
    table.add(server, f"{name}: events", "/s", wanted / took_s, True, target)
    table.add(server, f"{name}: p99 delay", "ms", p99_ms, False, 1.5)
    table.add(server, f"{name}: p50 delay", "ms", p50_ms, False, 0)
    table.add(server, f"{name}: puts", "/s", reached, True, 0)
    table.add(server, f"{name}: put p99", "ms", percentile(putter.latencies_s, 99) * 1e3, False, 0)
    table.add(server, f"{name}: put p50", "ms", percentile(putter.latencies_s, 50) * 1e3, False, 0)
    table.add(server, f"{name}: CPU", "s", server.cpu_s() - before_s, False, 0)
    own_s = (time.process_time() - own_before_s) / took_s
    table.add(server, f"{name}: the client's CPU", "%", own_s * 100, False, 0)
    server.stop()


PREFIXES: Final = [(b"p%04d/" % i, b"p%04d0" % i) for i in range(1_000)]
ON_ONE_KEY: Final = [(b"key", b"")] * 10_000


def prefix_keys(count: int) -> list[bytes]:
    """Keys at random, a hundred below each prefix."""
    rng = random.Random(1)
    return [start + b"%d" % rng.randrange(100) for start, _ in rng.choices(PREFIXES, k=count)]


def many_prefixes(server: Server, table: Table, scale: float) -> None:
    """A thousand watchers on prefixes of their own: as many events as puts."""
    fan_out(server, table, "1,000 prefixes", PREFIXES, 10, prefix_keys(10_000), 6 * scale, 0)


def many_prefixes_at_full_speed(server: Server, table: Table, scale: float) -> None:
    """The same with puts as fast as they are answered: what a server can deliver."""
    server.start()
    poll = Poll()
    connections = watchers(server, poll, PREFIXES, 10)
    putter = Putter(server.endpoint, poll, in_flight=1_000)
    requests = [put_request(key) for key in prefix_keys(10_000)]
    endless = itertools.cycle(requests)
    full_speed(poll, putter, int(10_000 * scale), lambda: next(endless))
    before = sum(connection.events for connection in connections)
    before_s = server.cpu_s()
    own_before_s = time.process_time()
    start_s = time.perf_counter()
    full_speed(poll, putter, int(150_000 * scale), lambda: next(endless))
    took_s = time.perf_counter() - start_s
    events = sum(connection.events for connection in connections) - before
    name = "1,000 prefixes, full speed"
    table.add(server, f"{name}: events", "/s", events / took_s, True, 1.5)
    cpu_us = (server.cpu_s() - before_s) / events * 1e6
    table.add(server, f"{name}: CPU of each", "µs", cpu_us, False, 0)
    own_s = (time.process_time() - own_before_s) / took_s
    table.add(server, f"{name}: the client's CPU", "%", own_s * 100, False, 0)
    server.stop()


def one_key(server: Server, table: Table, scale: float) -> None:
    """Ten thousand watchers on one key: fifty million events a second, more than any can do."""
    name = "10,000 on one key"
    fan_out(server, table, name, ON_ONE_KEY, 100, [b"key"], 1 * scale, 1.5, sample=8)


def one_key_in_a_hundred(server: Server, table: Table, scale: float) -> None:
    """The same, with half a million events a second to deliver, which is what both can do: every
    hundredth put goes to the watched key."""
    name = "10,000 on one key, 50/s"
    keys = [b"key", *(b"other%d" % number for number in range(99))]
    fan_out(server, table, name, ON_ONE_KEY, 100, keys, 6 * scale, 0)


def both(server: Server, table: Table, scale: float) -> None:
    """A thousand watchers on prefixes and ten thousand on one key together; puts go to the one and
    to the other by turns."""
    keys = [each for key in prefix_keys(5_000) for each in (key, b"key")]
    name = "1,000 prefixes, 10,000 on one key"
    fan_out(server, table, name, PREFIXES + ON_ONE_KEY, 100, keys, 1 * scale, 1.5, sample=8)


def full_speed(poll: Poll, putter: Putter, total: int, make: Callable[[], bytes]) -> float:
    """Puts as fast as they are answered; the rate."""
    start_s = time.perf_counter()
    sent = 0
    while sent < total or putter.under_way:
        due = min(putter.room, total - sent)
        if due > 0:
            putter.send([make() for _ in range(due)])
            sent += due
        poll.once(0.05)
    return total / (time.perf_counter() - start_s)


class Paired:
    """Puts in turns without and with what `begin` opens, in one server. A turn with is compared to
    the two without around it, and the median of many short turns is taken, so that what else the
    machine does falls out; more so for the processor's time of a put than for the rate."""

    def __init__(
        self,
        server: Server,
        putter: Putter,
        poll: Poll,
        total: int,
        make: Callable[[], bytes],
        begin: Callable[[], list[Connection]],
    ) -> None:
        self._server = server
        self._measured = lambda: self._measure(putter, poll, total, make)
        without: list[tuple[float, float]] = []
        with_: list[tuple[float, float]] = []
        self._measured()
        for _ in range(PAIRED_TURNS):
            without.append(self._measured())
            opened = begin()
            full_speed(poll, putter, total // 4, make)
            with_.append(self._measured())
            for connection in opened:
                connection.close()
            full_speed(poll, putter, total // 4, make)
        without.append(self._measured())
        self.rate = statistics.median(rate for rate, _ in without)
        self.cpu_us = statistics.median(cpu_us for _, cpu_us in without)
        self.rate_kept = _against(with_, without, 0)
        self.cpu_kept = 1 / _against(with_, without, 1)

    def _measure(
        self, putter: Putter, poll: Poll, total: int, make: Callable[[], bytes]
    ) -> tuple[float, float]:
        before_s = self._server.cpu_s()
        rate = full_speed(poll, putter, total, make)
        return rate, (self._server.cpu_s() - before_s) / total * 1e6


def _against(
    with_: list[tuple[float, float]], without: list[tuple[float, float]], which: int
) -> float:
    around = [(one[which] + other[which]) / 2 for one, other in pairwise(without)]
    return statistics.median(one[which] / near for one, near in zip(with_, around))


def idle(server: Server, table: Table, scale: float) -> None:
    """Puts with no watchers and with ten thousand idle ones, by turns in one server."""
    server.start()
    poll = Poll()
    putter = Putter(server.endpoint, poll, in_flight=500)
    request = put_request(b"busy/key", 256)
    ranges = [(b"idle%d" % i, b"") for i in range(10_000)]
    total = int(8_000 * scale)
    puts = Paired(
        server,
        putter,
        poll,
        total,
        lambda: request,
        lambda: watchers(server, Poll(), ranges, 100),
    )
    table.add(server, "puts without watchers", "/s", puts.rate, True, 0)
    table.add(server, "puts without watchers: CPU of each", "µs", puts.cpu_us, False, 0)
    table.add(server, "10,000 idle watchers: rate kept", "", puts.rate_kept, True, 0)
    table.add(server, "10,000 idle watchers: CPU kept", "", puts.cpu_kept, True, 0)
    server.stop()


def stalled(server: Server, table: Table, scale: float) -> None:
    """Puts with none and with a hundred watchers that do not read; memory with them."""
    server.start()
    poll = Poll()
    putter = Putter(server.endpoint, poll, in_flight=500)
    request = put_request(b"busy/key", 256)
    block = header_block(WATCH, server.endpoint)
    create = create_request(b"busy/", b"busy0")

    def begin() -> list[Connection]:
        opened = []
        for _ in range(100):
            connection = Connection(server.endpoint, counting=True, window_bytes=65_535)
            connection.socket.sendall(connection.open(block, create, False))
            opened.append(connection)
        full_speed(poll, putter, total, lambda: request)  # what fills their windows and queues
        return opened

    total = int(8_000 * scale)
    puts = Paired(server, putter, poll, total, lambda: request, begin)
    table.add(server, "100 stalled watchers: rate kept", "", puts.rate_kept, True, 0)
    table.add(server, "100 stalled watchers: CPU kept", "", puts.cpu_kept, True, 0)
    begin_mb = server.resident_mb()
    full_speed(poll, putter, 10 * total, lambda: request)
    alone_mb = server.resident_mb() - begin_mb
    begin_mb = server.resident_mb()
    opened = begin()
    full_speed(poll, putter, 9 * total, lambda: request)
    with_mb = server.resident_mb() - begin_mb
    added = f"{10 * total:,} puts"
    table.add(server, f"{added}: memory more", "MiB", alone_mb, False, 0)
    table.add(server, f"{added} to 100 stalled: memory more", "MiB", with_mb, False, 0)
    for connection in opened:
        connection.close()
    server.stop()


def grant_all(server: Server, ids: range, ttl_s: int) -> None:
    """Grants leases as fast as they are answered."""
    poll = Poll()
    granter = Putter(server.endpoint, poll, in_flight=500)
    granter._block = header_block(GRANT, server.endpoint)
    each = iter(ids)
    full_speed(
        poll,
        granter,
        len(ids),
        lambda: rpc_pb2.LeaseGrantRequest(ID=next(each), TTL=ttl_s).SerializeToString(),
    )
    granter.close()


def keep_alives(server: Server, table: Table, scale: float) -> None:
    """Ten thousand leases kept alive over twenty streams, with many renewals under way in each,
    so that the server never waits for the client."""
    server.start()
    leases = range(20_000, 30_000)
    grant_all(server, leases, 600)
    block = header_block(KEEP_ALIVE, server.endpoint)
    requests = [rpc_pb2.LeaseKeepAliveRequest(ID=i).SerializeToString() for i in leases]
    mark = b"\x08" + varint(server.cluster_id())  # begins the header of every answer
    poll = Poll()
    connections = []
    for number in range(20):
        connection = Connection(server.endpoint, counting=True)
        connection.mark = mark
        connection.stamped = False
        first, *others = requests[number * RENEWALS : (number + 1) * RENEWALS]
        out = [connection.open(block, first, end=False)]
        out += [connection.message(connection.last_stream, request) for request in others]
        connection.socket.sendall(b"".join(out))
        connections.append(connection)
        poll.add(connection)
    # The renewals of all leases as one long text, from which any number is cut: all are of a size.
    assert len({len(request) for request in requests}) == 1
    messages = [connections[0].message(1, request) for request in requests]
    size, endless = len(messages[0]), b"".join(messages) * 2
    seen = dict.fromkeys(connections, 0)
    at = answered = 0
    before_s = server.cpu_s()
    own_before_s = time.process_time()
    start_s = time.perf_counter()
    while time.perf_counter() < start_s + 4 * scale:
        poll.once(0.05)
        for connection in connections:
            count = connection.events - seen[connection]
            if count:
                seen[connection] = connection.events
                answered += count
                connection.socket.sendall(endless[at * size : (at + count) * size])
                at = (at + count) % len(messages)
    took_s = time.perf_counter() - start_s
    rate = answered / took_s
    table.add(server, "keep-alives", "/s", rate, True, 1.5)
    cpu_us = (server.cpu_s() - before_s) / answered * 1e6
    table.add(server, "keep-alives: CPU of each", "µs", cpu_us, False, 0)
    own_s = (time.process_time() - own_before_s) / took_s
    table.add(server, "keep-alives: the client's CPU", "%", own_s * 100, False, 0)
    server.stop()


def expiry(server: Server, table: Table, scale: float) -> None:
    """A hundred thousand leases run out together; puts go on at a thousand a second."""
    server.start()
    count = int(100_000 * scale)
    start_s = time.perf_counter()
    grant_all(server, range(1, count + 1), 12)
    took_s = time.perf_counter() - start_s
    table.add(server, f"{count:,} grants", "/s", count / took_s, True, 0)
    poll = Poll()
    putter = Putter(server.endpoint, poll, in_flight=1_000)
    at_rate(poll, putter, 1_000, 20_000, lambda due_s: put_request(b"key"))
    worst, p99 = max(putter.latencies_s), percentile(putter.latencies_s, 99)
    table.add(server, f"{count:,} leases run out: worst put", "ms", worst * 1e3, False, 0)
    table.add(server, f"{count:,} leases run out: put p99", "ms", p99 * 1e3, False, 0)
    server.stop()


PARTS: Final[dict[str, Callable[[Server, Table, float], None]]] = {
    "prefixes": many_prefixes,
    "full": many_prefixes_at_full_speed,
    "key": one_key,
    "some": one_key_in_a_hundred,
    "both": both,
    "idle": idle,
    "stalled": stalled,
    "keepalive": keep_alives,
    "expiry": expiry,
}


def main() -> None:
    """Runs the turns and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.watch")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--turns", type=int, default=3, help="lives of each server (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies times and counts")
    parser.add_argument("--data-root", default=None, help="where the data goes")
    parser.add_argument("--only", choices=("etcd", "keyraft"), default=None)
    options = parser.parse_args()
    table = Table()
    for name in options.parts or PARTS:
        for _ in range(options.turns):
            for label, command in (("etcd", ORIGINAL), ("keyraft", OURS)):
                if options.only in (None, label):
                    with Server(label, command, options.data_root) as server:
                        PARTS[name](server, table, options.scale)
    print(table if options.only is None else "", file=sys.stdout)


if __name__ == "__main__":
    main()
