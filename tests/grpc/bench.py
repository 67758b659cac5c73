"""A server connection with a few methods, and the peer at its other end."""

from __future__ import annotations

from typing import Any

from keyraft.base.errors import EmptyKeyError
from keyraft.grpc import (
    REPLY_HEAD_BYTES,
    Call,
    CallEnd,
    EndedCall,
    HttpRequest,
    Limits,
    Router,
    ServerConnection,
    Stream,
)
from tests.grpc.wire import PREFACE, Frame, Peer, settings


class Recorder:
    """A stream handler that writes down what happens; `act` may do something on each message."""

    def __init__(self, stream: Stream, log: list[object]) -> None:
        self.stream = stream
        self.log = log

    def on_message(self, message: bytes) -> None:
        self.log.append(message)
        if message == b"echo":
            self.stream.send(b"echo")
        elif message == b"pause":
            self.stream.pause_reading()
        elif message == b"finish":
            self.stream.finish(5, "enough")
        elif message == b"begin":
            self.stream.begin([(b"x-initial", b"hello"), (b"x-data-bin", b"q6ur")])
        elif message == b"farewell":
            self.stream.finish(0, "", [(b"x-trailing-bin", b"q6ur")])

    def on_half_close(self) -> None:
        self.log.append("half close")

    def on_cancel(self, code: int) -> None:
        self.log.append(("cancel", code))

    def on_writable(self) -> None:
        self.log.append("writable")


class ManyRecorder(Recorder):
    """The same, taking what came at once at once: up to the first message that does something."""

    def __init__(self, stream: Stream, log: list[object], sizes: list[int]) -> None:
        super().__init__(stream, log)
        self.sizes = sizes

    def on_messages(self, messages: list[bytes]) -> int:
        taken = 0
        for message in messages:
            self.on_message(message)
            taken += 1
            if message in (b"pause", b"finish"):
                break
        self.sizes.append(taken)
        return taken


class EndRecorder:
    """A `grpc.Recorder`: the codes of all ends, those of answered calls first."""

    def __init__(self) -> None:
        self.answered: list[Any] = []
        self.told: list[int] = []
        self.due = False

    def soon(self) -> None:
        self.due = True

    def tell(self, call: EndedCall, code: int, text: str, reply: bytes | None, now: float) -> None:
        assert reply is None or code == 0
        self.told.append(code)

    def forget(self) -> None:
        self.answered.clear()
        self.told.clear()
        self.due = False

    def codes(self) -> list[int]:
        assert self.due or not self.answered, "it was not said that something may come"
        for call, reply in zip(self.answered[::2], self.answered[1::2]):
            assert call.done and len(reply) <= REPLY_HEAD_BYTES
        return [0] * (len(self.answered) // 2) + self.told


class Bench:
    """`held` are the calls of /t.T/Hold, `streams` those of /t.T/Talk, `log` what happened.

    `ends` are those of calls that took `listen_from_s`, if it is given.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        http: bool = False,
        listen_from_s: float | None = None,
        recorder: EndRecorder | None = None,
    ) -> None:
        self.router = Router()
        self.router.ends.recorder = recorder
        self.ends: list[CallEnd] = []
        if listen_from_s is not None:
            self.router.ends.listen(self.ends.append, listen_from_s)
        self.held: list[Call] = []
        self.cancels: list[int] = []
        self.streams: list[Stream] = []
        self.log: list[object] = []
        self.https: list[HttpRequest] = []
        self.sizes: list[int] = []  # of what /t.T/Many was handed at once
        self.router.unary("/t.T/Echo", lambda call, request: request)
        self.router.unary("/t.T/Hold", self._hold)
        self.router.unary("/t.T/Fail", self._fail)
        self.router.stream("/t.T/Talk", self._talk)
        self.router.stream("/t.T/Many", self._many)
        self.router.stream("/t.T/List", self._talk, "server_stream")
        self.peer = Peer()
        self.server = ServerConnection(
            self.router,
            limits or Limits(),
            0.0,
            peer="1.2.3.4:5",
            on_http=self.https.append if http else None,
            early=lambda target: target == "/early",
            clock=lambda: self.now,
        )
        self.now = 0.0

    def _hold(self, call: Call, request: bytes) -> None:
        call.on_cancel = lambda _, code: self.cancels.append(code)
        self.held.append(call)

    def _fail(self, call: Call, request: bytes) -> bytes:
        raise EmptyKeyError

    def _talk(self, stream: Stream) -> Recorder:
        self.streams.append(stream)
        return Recorder(stream, self.log)

    def _many(self, stream: Stream) -> ManyRecorder:
        self.streams.append(stream)
        return ManyRecorder(stream, self.log, self.sizes)

    def start(self, **values: int) -> list[Frame]:
        return self.feed(PREFACE + settings(**values))

    def feed(self, data: bytes, cut: int = 0) -> list[Frame]:
        pieces = [data[i : i + cut] for i in range(0, len(data), cut)] if cut else [data]
        for piece in pieces:
            self.server.receive(piece, self.now)
            self.server.check()
            while self.server.wants_turn:
                self.server.resume_output(self.now)
                self.server.check()
        return self.out()

    def out(self) -> list[Frame]:
        while self.server.wants_turn:
            self.server.resume_output(self.now)
        return self.peer.read(self.server.take_output())
