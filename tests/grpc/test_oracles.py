"""Random conversations with `h2`, random tables against `hpack`, random cuts of the same bytes."""

from __future__ import annotations

import itertools

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
from hypothesis import given
from hypothesis import strategies as st

from keyraft.grpc import ClientConnection, Limits, Router, ServerConnection, Stream
from keyraft.grpc.deadline import format_timeout, parse_timeout
from keyraft.grpc.http2 import huffman
from keyraft.grpc.http2.errors import HpackError
from keyraft.grpc.http2.hpack import HpackDecoder, HpackEncoder
from keyraft.grpc.status import decode_text, encode_text
from tests.grpc.bench import Bench
from tests.grpc.wire import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, Peer, frame, message
from tests.grpc.wire import settings as settings_frame
from tests.support.examples import examples

names = st.sampled_from([b":path", b"x-one", b"x-two", b"user-agent", b"content-type", b"token"])
values = st.binary(max_size=60).map(lambda v: v.replace(b"\n", b"n").replace(b"\r", b"r"))
header_lists = st.lists(st.tuples(names, values), max_size=12)


@given(st.lists(st.one_of(header_lists, st.integers(0, 6_000)), max_size=12))
@examples(60)
def test_our_encoder_is_understood_by_hpack(steps: list[list[tuple[bytes, bytes]] | int]) -> None:
    ours = HpackEncoder(frozenset((b"x-one", b":path", b"user-agent")), frozenset((b"token",)))
    theirs = hpack.Decoder(max_header_list_size=1 << 20)
    theirs.max_allowed_table_size = 4_096
    for step in steps:
        if isinstance(step, int):
            ours.limit(step)
            continue
        settled = ours.settled(step)
        generation = ours.generation
        block = ours.encode(step)
        if settled:
            assert ours.generation == generation
        assert [(bytes(n), bytes(v)) for n, v in theirs.decode(block, raw=True)] == step
        ours.table.check()


@given(st.lists(st.one_of(header_lists, st.integers(0, 4_096)), max_size=12), st.booleans())
@examples(60)
def test_hpack_is_understood_by_our_decoder(
    steps: list[list[tuple[bytes, bytes]] | int], coded: bool
) -> None:
    ours, theirs = HpackDecoder(1 << 20), hpack.Encoder()
    for step in steps:
        if isinstance(step, int):
            # Told the same size twice, the oracle forgets to announce the first change.
            if step != theirs.header_table_size:
                theirs.header_table_size = step
            continue
        block = theirs.encode(step, huffman=coded)
        generation = ours.table.generation
        before = list(ours.table.entries)
        assert ours.decode(block) == step
        ours.table.check()
        if ours.table.generation == generation:
            assert ours.table.entries == before


@given(st.binary(max_size=300))
def test_huffman_round_trip(text: bytes) -> None:
    coded = huffman.encode(text)
    assert len(coded) == huffman.encoded_size(text)
    assert huffman.decode(coded) == text


@given(st.binary(max_size=200))
@examples(200)
def test_no_header_block_does_more_than_raise_its_own_error(block: bytes) -> None:
    decoder = HpackDecoder(4_096)
    try:
        decoder.decode(block)
    except HpackError:
        pass
    decoder.table.check()


@given(st.text(max_size=40))
@examples(50)
def test_status_text_round_trip(text: str) -> None:
    coded = encode_text(text)
    assert all(0x20 <= byte < 0x7F for byte in coded)
    assert decode_text(coded) == text


@given(st.floats(1e-9, 1e8))
def test_timeouts_never_get_shorter_on_the_wire(seconds: float) -> None:
    coded = format_timeout(seconds)
    assert len(coded) <= 9
    parsed = parse_timeout(coded)
    assert parsed is not None
    assert seconds * (1 - 1e-5) <= parsed <= max(seconds * 1.00002 + 1e-9, 0) or parsed >= 3_600


class _Echo:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def on_message(self, message: bytes) -> None:
        self.stream.send(message)

    def on_half_close(self) -> None:
        self.stream.finish()

    def on_cancel(self, code: int) -> None:
        pass

    def on_writable(self) -> None:
        pass


calls = st.lists(
    st.tuples(
        st.sampled_from(["/t.T/Echo", "/t.T/Echoes"]),
        st.lists(st.integers(0, 40_000), min_size=1, max_size=3),
        st.sampled_from([(), (("x-nonce", "a"),), (("grpc-timeout", "9S"),)]),
    ),
    min_size=1,
    max_size=6,
)


@given(calls, st.integers(1, 70_000), st.integers(1, 100_000), st.sampled_from([16_384, 50_000]))
@examples(25)
def test_h2_as_the_client(
    todo: list[tuple[str, list[int], tuple[tuple[str, str], ...]]],
    cut: int,
    window: int,
    frame_bytes: int,
) -> None:
    # Two updates of a window and a frame for each piece: some hundreds of pieces say all there is.
    body_max = min(window, frame_bytes) * 100
    router = Router()
    router.unary("/t.T/Echo", lambda call, request: request)
    router.stream("/t.T/Echoes", _Echo)
    ours = ServerConnection(router, Limits(), 0.0)
    theirs = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    theirs.initiate_connection()
    theirs.update_settings(
        {
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window,
            h2.settings.SettingCodes.MAX_FRAME_SIZE: frame_bytes,
        }
    )
    received: dict[int, bytes] = {}
    trailers: dict[int, dict[str, str]] = {}

    now = itertools.count()  # a window of one byte costs an update each, of which so many a second

    def settle() -> None:
        while True:
            sent = theirs.data_to_send()
            for start in range(0, len(sent), cut):
                ours.receive(sent[start : start + cut], next(now) / 10_000)
            ours.check()
            got = ours.take_output()
            if not sent and not got:
                return
            for event in theirs.receive_data(got):
                if isinstance(event, h2.events.DataReceived):
                    assert event.stream_id is not None
                    received[event.stream_id] = received.get(event.stream_id, b"") + event.data
                    theirs.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.TrailersReceived):
                    assert event.stream_id is not None and event.headers is not None
                    trailers[event.stream_id] = dict(event.headers)  # type: ignore[arg-type]

    settle()
    expected: dict[int, bytes] = {}
    for path, sizes, extra in todo:
        stream = theirs.get_next_available_stream_id()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")]
        theirs.send_headers(stream, [*fields, ("content-type", "application/grpc"), *extra])
        sizes = sizes[:1] if path == "/t.T/Echo" else sizes
        sizes = [min(size, body_max) for size in sizes]
        body = b"".join(message(bytes((size & 0xFF,)) * size) for size in sizes)
        expected[stream] = body
        while body:
            room = min(theirs.local_flow_control_window(stream), theirs.max_outbound_frame_size)
            if not room:
                settle()
                continue
            theirs.send_data(stream, body[:room], end_stream=len(body) <= room)
            body = body[room:]
        if len(expected) & 1:
            settle()
    settle()
    assert received == expected
    assert trailers == {stream: {"grpc-status": "0"} for stream in expected}
    assert (ours.queued_bytes, ours.inbound_bytes, ours.streams) == (0, 0, {})


@given(
    st.lists(st.integers(0, 100_000), min_size=1, max_size=6),
    st.integers(1, 70_000),
    st.integers(1, 5),
)
@examples(25)
def test_h2_as_the_server(sizes: list[int], cut: int, streams: int) -> None:
    ours = ClientConnection(Limits(keepalive_interval_s=0.0), 0.0, authority="a")
    theirs = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
    )
    theirs.local_settings = h2.settings.Settings(
        client=False,
        initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: streams},
    )
    theirs.initiate_connection()
    bodies: dict[int, bytes] = {}
    waiting: dict[int, bytes] = {}
    ends: list[tuple[int, str, bytes]] = []

    def answer(stream: int) -> None:
        body = waiting.pop(stream)
        while body:
            room = min(theirs.local_flow_control_window(stream), theirs.max_outbound_frame_size)
            if not room:
                waiting[stream] = body
                return
            theirs.send_data(stream, body[:room])
            body = body[room:]
        theirs.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    def settle() -> None:
        while True:
            sent = ours.take_output()
            for event in theirs.receive_data(sent):
                if isinstance(event, h2.events.RequestReceived):
                    assert event.stream_id is not None
                    bodies[event.stream_id] = b""
                elif isinstance(event, h2.events.DataReceived):
                    assert event.stream_id is not None
                    bodies[event.stream_id] += event.data
                    theirs.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    assert event.stream_id is not None
                    head = [(":status", "200"), ("content-type", "application/grpc+proto")]
                    theirs.send_headers(event.stream_id, head)
                    waiting[event.stream_id] = bodies.pop(event.stream_id)
            for stream in list(waiting):
                answer(stream)
            got = theirs.data_to_send()
            for start in range(0, len(got), cut):
                ours.receive(got[start : start + cut], 0.0)
            ours.check()
            if not sent and not got:
                return

    settle()
    for size in sizes:
        ours.unary(b"/t.T/Echo", b"z" * size, lambda *end: ends.append(end), 0.0)
        assert len(ours.streams) <= streams
    settle()
    assert sorted(ends) == sorted((0, "", b"z" * size) for size in sizes)
    assert (ours.queued_bytes, ours.inbound_bytes, ours.streams) == (0, 0, {})


def conversation(script: list[tuple[str, int, str]]) -> bytes:
    """A client's bytes: calls of every kind, whole and in parts, with varied header blocks."""
    peer = Peer()
    out = [PREFACE, settings_frame(window=1 << 20)]
    for number, (path, size, nonce) in enumerate(script):
        stream = 1 + 2 * number
        extra = (("grpc-timeout", nonce),) if nonce else ()
        out.append(frame(HEADERS, END_HEADERS, stream, peer.request(path, *extra)))
        body = message(b"m" * size)
        if size % 3 == 0:
            out.append(frame(DATA, END_STREAM, stream, body))
        else:
            out.append(frame(DATA, 0, stream, body[: size // 2]))
            out.append(frame(DATA, 0, stream, body[size // 2 :]))
            out.append(frame(DATA, END_STREAM, stream))
    return b"".join(out)


scripts = st.lists(
    st.tuples(
        st.sampled_from(["/t.T/Echo", "/t.T/Fail", "/t.T/Talk", "/t.T/None", "/t.T/Hold"]),
        st.integers(0, 300),
        st.sampled_from(["", "5S", "77777u", "x"]),
    ),
    max_size=8,
)


@given(scripts, st.lists(st.integers(1, 200), max_size=30))
@examples(60)
def test_the_cut_of_the_bytes_makes_no_difference(
    script: list[tuple[str, int, str]], cuts: list[int]
) -> None:
    data = conversation(script)
    whole, single, mixed = Bench(), Bench(), Bench()
    outputs = []
    for bench, sizes in (
        (whole, [len(data)]),
        (single, [1] * len(data)),
        (mixed, [*cuts, len(data)]),
    ):
        out, pos = b"", 0
        for size in sizes:
            bench.server.receive(data[pos : pos + size], 0.0)
            bench.server.check()
            out += bench.server.take_output()
            pos += size
        outputs.append(out)
    assert outputs[0] == outputs[1] == outputs[2]
    assert whole.log == single.log == mixed.log
    assert sorted(whole.server.streams) == sorted(single.server.streams)
