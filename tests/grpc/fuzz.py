"""Random and mutated frames against both ends: nothing but a GOAWAY may come of them.

    PYTHONPATH=src:. python -m tests.grpc.fuzz SECONDS [SEED]

Every connection is checked after each read. A seed replays a run; the seed of the conversation
that failed is printed.
"""

from __future__ import annotations

import random
import resource
import sys
import time

from keyraft.grpc import Budget, ClientConnection, Limits, Stream
from tests.grpc.bench import Bench
from tests.grpc.wire import PREFACE, Peer, frame, message, settings

LIMITS = Limits(
    message_bytes_max=20_000,
    streams_max=50,
    stream_window_bytes=70_000,
    connection_window_bytes=200_000,
    header_list_bytes_max=4_000,
    inbound_bytes_max=300_000,
    outbound_bytes_max=300_000,
    stream_queue_bytes=50_000,
    resets=Budget(50, 1.0),
    settings=Budget(20, 1.0),
    stream_faults=Budget(50, 1.0),
    slice_work=120,
)
PATHS = ["/t.T/Echo", "/t.T/Hold", "/t.T/Fail", "/t.T/Talk", "/t.T/Many", "/t.T/List", "/no", "/"]
# What one connection may hold at most: its limits, and one read's worth on top.
HELD_BYTES_MAX = 300_000 + 20_005 * 50 + 200_000


def piece(chance: random.Random, peer: Peer, stream: int, wild: float) -> bytes:
    """One frame or call; `wild` is how often it is one that no peer should send.

    `stream` is the next to be opened; frames for streams go to earlier ones.
    """
    if chance.random() < wild:
        return wild_piece(chance, peer, stream)
    kind = chance.randrange(10)
    earlier = max(1, stream - 2 * chance.randrange(1, 6))
    if kind <= 2:
        body = chance.randbytes(chance.choice([0, 9, 5000]))
        return peer.unary(stream, chance.choice(PATHS), body)
    if kind <= 4:
        extra = [("grpc-timeout", "5m"), (f"x-{chance.randrange(5)}", "v" * chance.randrange(99))]
        block = peer.request(chance.choice(PATHS), *extra[: chance.randrange(3)])
        return frame(1, chance.choice([4, 4, 4, 5]), stream, block)
    if kind <= 6:
        body = message(chance.choice([b"echo", b"pause", b"finish", b"x" * 9000]))
        return frame(0, chance.choice([0, 0, 1]), earlier, body)
    if kind == 7:
        name = chance.choice(["table", "window"])
        return settings(**{name: chance.choice([0, 1, 4096, 16384, 65535, 1 << 20])})
    if kind == 8:
        where = chance.choice([0, earlier])
        return frame(8, 0, where, chance.randrange(1, 30_000).to_bytes(4, "big"))
    return chance.choice([frame(3, 0, earlier, b"\0\0\0\x08"), frame(6, 1, 0, b"kraft-dr")])


def wild_piece(chance: random.Random, peer: Peer, stream: int) -> bytes:
    """What ends a stream or the connection, mostly."""
    target = chance.randrange(stream + 3)
    kind = chance.randrange(8)
    if kind == 0:
        return frame(0, chance.choice([0, 1, 8]), target, message(b"x" * 90, chance.randrange(3)))
    if kind == 1:
        return settings(
            **{chance.choice(["frame", "streams", "push"]): chance.choice([0, 3, 1 << 31])}
        )
    if kind == 2:
        return frame(8, 0, target, chance.randrange(1 << 31).to_bytes(4, "big"))
    if kind == 3:
        return frame(3, 0, target, chance.randbytes(chance.choice([3, 4])))
    if kind == 4:
        return frame(6, chance.choice([0, 1]), 0, chance.randbytes(8))
    if kind == 5:
        return frame(9, chance.choice([0, 4]), target, chance.randbytes(chance.randrange(20)))
    if kind == 6:
        block = peer.request(chance.choice(PATHS))
        cut = chance.randrange(len(block) + 1)
        return frame(1, 1, target | 1, block[:cut]) + frame(9, 4, target | 1, block[cut:])
    flags, body = chance.randrange(256), chance.randbytes(chance.randrange(30))
    return frame(chance.randrange(256), flags, target, body)


def mutate(chance: random.Random, data: bytes) -> bytes:
    """Flips, drops or doubles a few bytes."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        if not changed:
            break
        at = chance.randrange(len(changed))
        kind = chance.randrange(3)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del changed[at : at + chance.randrange(1, 5)]
        else:
            changed[at:at] = changed[at : at + chance.randrange(1, 20)]
    return bytes(changed)


def act_on(chance: random.Random, stream: Stream) -> None:
    """What a service does of its own accord."""
    kind = chance.randrange(4)
    if kind == 0:
        stream.send(b"s" * 2000)
    elif kind == 1:
        stream.finish()
    elif kind == 2:
        stream.resume_reading()
    else:
        stream.pause_reading()


def converse_with_server(seed: int, chance: random.Random | None = None) -> int:
    """One conversation, in which every call ends once; returns the frames it got to.

    `chance`: what decides instead of the seed, of which then only oddness counts.
    """
    chance = chance or random.Random(seed)
    bench = Bench(LIMITS, http=bool(seed & 1), listen_from_s=0.0)
    server, now, stream = bench.server, 0.0, 1
    bench.server.receive(PREFACE + settings(window=chance.choice([0, 10, 65_535, 1 << 30])), 0.0)
    spoil = chance.choice([0.0, 0.005, 0.1])
    step = 0
    for step in range(chance.randrange(5, 300)):  # noqa: B007
        data = piece(chance, bench.peer, stream, spoil)
        # A spoilt frame may have opened a stream with a very large number.
        stream = max(stream, server.last_peer_stream + 1 | 1)
        if data[3] == 1 and data[8] == stream & 0xFF:
            stream += 2
        if chance.random() < spoil:
            data = mutate(chance, data)
        for cut in range(0, len(data), 4096):
            server.receive(data[cut : cut + 4096], now)
            while server.wants_turn and chance.random() < 0.9:
                server.check()
                server.resume_output(now)
        server.check()
        now += chance.choice([0.0, 0.0, 0.001, 1.0])
        if chance.random() < 0.1:
            server.tick(now)
        if chance.random() < 0.2 and bench.held:
            bench.held.pop().respond(b"r" * chance.randrange(3000))
        if chance.random() < 0.1 and bench.streams:
            act_on(chance, chance.choice(bench.streams))
        if chance.random() < 0.05 and bench.https:
            bench.https.pop().respond(200, [], b"h" * 500)
        if chance.random() < 0.05:
            if chance.random() < 0.5:
                server.pause_output()
            else:
                server.resume_output(now)
        if chance.random() < 0.01:
            server.shutdown(now)
        server.check()
        assert server.queued_bytes + server.inbound_bytes <= HELD_BYTES_MAX
        if chance.random() < 0.7:
            server.take_output()
        if server.closed:
            break
    server.connection_lost(now)
    while server.wants_resume:
        server.resume_output(now)
    server.check()
    assert all(stream.done for stream in bench.streams)
    for route in bench.router:
        told = [end.code for end in bench.ends if end.route is route]
        assert len(told) == route.started == sum(route.handled), (route.path, route.started, told)
        assert all(route.handled[code] == told.count(code) for code in set(told))
    return step


class _Answers:
    def on_message(self, message: bytes) -> None:
        pass

    def on_end(self, code: int, text: str, trailers: object) -> None:
        pass

    def on_writable(self) -> None:
        pass


def converse_with_client(seed: int, chance: random.Random | None = None) -> int:
    """The same from the other side; every call must end exactly once."""
    chance = chance or random.Random(seed)
    client = ClientConnection(LIMITS, 0.0, authority="a")
    peer, now = Peer(), 0.0
    ends: list[int] = []
    started = 0
    client.receive(settings(streams=chance.choice([1, 3, 100])), 0.0)
    spoil = chance.choice([0.0, 0.005, 0.1])
    step = 0
    for step in range(chance.randrange(5, 200)):  # noqa: B007
        if chance.random() < 0.5:
            timeout = chance.choice([None, 0.5])
            client.unary(
                b"/t.T/Echo",
                b"q" * chance.choice([0, 90, 30_000]),
                lambda *end: ends.append(end[0]),
                now,
                timeout_s=timeout,
            )
            started += 1
        if chance.random() < 0.2:
            stream = client.stream(b"/t.T/Talk", _Answers(), now)
            stream.send(b"m" * chance.choice([3, 50_000]))
            chance.choice([stream.half_close, stream.cancel, stream.pause_reading, lambda: None])()
        target = chance.randrange(1, client.next_stream + 2) | 1
        if chance.random() < 0.8 and client.streams:
            target = next(iter(client.streams))
        head = frame(
            1, 4, target, peer.block((":status", "200"), ("content-type", "application/grpc"))
        )
        body = frame(0, 0, target, message(b"a" * chance.choice([0, 5, 9_000])))
        tail = frame(1, 5, target, peer.block(("grpc-status", str(chance.randrange(17)))))
        data = head + body + tail if chance.random() < 0.6 else wild_piece(chance, peer, target)
        if spoil == 0.0:
            data = head + body + tail if target < client.next_stream else b""
        if chance.random() < spoil:
            data = mutate(chance, data)
        client.receive(data, now)
        while client.wants_turn and chance.random() < 0.9:
            client.check()
            client.resume_output(now)
        client.check()
        now += chance.choice([0.0, 0.01, 1.0])
        client.tick(now)
        client.check()
        client.take_output()
        if client.closed:
            break
    client.connection_lost(now)
    assert len(ends) == started, (len(ends), started)
    return step


def run(seconds: float, seed: int) -> tuple[int, int]:
    """Conversations until the time is up: (conversations, frames)."""
    until = time.monotonic() + seconds
    conversations = frames = 0
    while time.monotonic() < until:
        try:
            frames += converse_with_server(seed) + converse_with_client(seed)
        except BaseException:
            print(f"seed {seed}", file=sys.stderr)
            raise
        conversations += 2
        seed += 1
    return conversations, frames


if __name__ == "__main__":
    duration = float(sys.argv[1])
    first = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = run(duration, first)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"from seed {first}: {done[0]} conversations, {done[1]} steps, resident {before} -> {after} KiB"
    )
