"""The member's side of the audit log: what is put down at the end of each call.

The transport adds each answered unary call to one flat list (`grpc.Recorder`), which costs it two
references; all other ends are told. At the end of a turn the list is marked with the time. A few
milliseconds later `flush` cuts it into columns and hands them on as one batch. Calls with equal
headers on one connection, as nearly all are, share one description of where they came from.

Overload: `outbox` keeps a bounded number of bytes. Beyond it batches are dropped and counted, or,
with `refuse`, every method of the router refuses its calls until there is room.

Owned by the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from keyraft.audit.fields import details
from keyraft.audit.lines import Columns, Origin, Other
from keyraft.audit.outbox import KEPT_BYTES_MAX, Outbox
from keyraft.base.clock import Loop, WallClock
from keyraft.base.errors import RawError
from keyraft.base.invariants import hold
from keyraft.grpc import (
    REPLY_HEAD_BYTES,
    UNARY,
    CallContext,
    EndedCall,
    HandleUnary,
    OpenStream,
    Route,
    Router,
    ServerStream,
    StreamHandler,
    UnaryCall,
    status,
)

FLUSH_S: Final = 0.005  # how long the end of a call waits for others
REQUEST_BYTES_MAX: Final = 2_048  # that are handed on as they are
METHOD_CHARACTERS_MAX: Final = 256
REFUSING_BYTES_MAX: Final = 4 * KEPT_BYTES_MAX  # of the calls that were let in before
REFUSAL: Final = "etcdserver: audit log cannot be written"

HEALTH: Final = "grpc.health.v1.Health"

_WATCH: Final = b"/etcdserverpb.Watch/Watch"
_FROM_GATEWAY: Final = b"grpcgateway-accept"
_NO_METADATA: Final[Mapping[bytes, bytes]] = MappingProxyType({})

Who = Callable[[Mapping[bytes, bytes], "str | None"], str]
"""The user that metadata or a certificate's name stand for, or ""."""


class _Staged:
    """In place of a header: a line of a stream that has not ended."""

    __slots__ = ("metadata", "path", "stage")

    def __init__(self, path: bytes, stage: str, metadata: Mapping[bytes, bytes]) -> None:
        self.metadata = metadata
        self.path = path
        self.stage = stage


class AuditTrail:
    """Of one member."""

    def __init__(
        self,
        loop: Loop,
        wall_clock: WallClock,
        outbox: Outbox,
        refuses: bool,
    ) -> None:
        """`refuses`: calls are refused while there is no room."""
        self._loop = loop
        self._wall_clock = wall_clock
        self._outbox = outbox
        self._refuses = refuses
        self._who: Who = _nobody
        self.answered: list[Any] = []
        self._others: list[Other] = []
        self._marks: list[float] = []  # how many of `answered`, and when
        self._marking = False
        self._waiting = False
        self._router: Router | None = None
        self._shut: list[tuple[Route, HandleUnary | None, OpenStream | None]] = []
        self._lost_before = 0  # told by the next batch
        self.recorded = 0
        self.lost = 0
        self.refused = 0

    def attach(self, router: Router, who: Who) -> None:
        """Records all calls of the router, whose methods are registered."""
        self._router, self._who = router, who
        for route in router:
            if route.open is not None and route.path != _WATCH:
                route.open = partial(_Opened, self, route.open)
        router.ends.recorder = self

    def watched(self, stream: CallContext, request: bytes, code: int, text: str) -> None:
        """A watch of a stream was created, or refused; `request` is its WatchCreateRequest."""
        self.note(stream, _WATCH, "watch", request, code, text)

    def note(
        self, stream: Any, path: bytes, stage: str, request: bytes, code: int = 0, text: str = ""
    ) -> None:
        """A line about a stream that goes on."""
        shown = details(path.decode(), request)
        origin = self._origin(_Staged(path, stage, stream.metadata), stream.connection)
        self._others.append((origin, shown, None, code, text, self._loop.time(), 0.0))
        self.soon()

    # --- while calls end (grpc.Recorder) --------------------------------------------------------

    def soon(self) -> None:
        """Recorder.soon."""
        if not self._marking:
            self._marking = True
            self._loop.call_soon(self._mark)

    def tell(self, call: EndedCall, code: int, text: str, reply: bytes | None, now: float) -> None:
        """Recorder.tell."""
        if code and text == REFUSAL:
            self.refused += 1
            return
        self._others.append(
            (
                self._origin(call.header, call.connection),
                _short(call.header.path, call.request),
                reply[:REPLY_HEAD_BYTES] if reply else None,
                code,
                text,
                now,
                now - call.began_s,
            )
        )
        self.soon()

    def _mark(self) -> None:
        """What was answered up to now was answered about now."""
        self._marking = False
        self._marks += (len(self.answered) // 2, self._loop.time())
        if not self._waiting:
            self._waiting = True
            self._loop.call_later(FLUSH_S, self.flush)

    # --- a moment later -------------------------------------------------------------------------

    def flush(self) -> None:
        """Hands on what was put down; comes again as long as there was something."""
        self._waiting = False
        answered, others, marks = self.answered[:], self._others, self._marks
        if not answered and not others:
            return
        self.answered.clear()
        self._others, self._marks = [], []
        count = len(answered) // 2 + len(others)
        box = self._outbox
        if not (box.has_room or (self._refuses and box.kept_bytes < REFUSING_BYTES_MAX)):
            self.lost += count
            self._lost_before += count
        else:
            clock = self._wall_clock() - self._loop.time()
            marks += (len(answered) // 2, self._loop.time())
            box.put((clock, self._lost_before, self._columns(answered), marks, others), count)
            self._lost_before = 0
            self.recorded += count
            if self._refuses and not box.has_room:
                self._shut_doors()
        self._waiting = True
        self._loop.call_later(FLUSH_S, self.flush)

    def _columns(self, answered: list[Any]) -> Columns:
        """Cuts the list. A header belongs to one connection, so it stands for the origin, too."""
        calls = answered[::2]
        headers = [call.header for call in calls]
        requests: list[bytes | str] = [call.request for call in calls]
        if max(map(len, requests), default=0) > REQUEST_BYTES_MAX:
            requests = [_short(call.header.path, call.request) for call in calls]
        index: dict[Any, Any] = dict(zip(headers, calls))
        origins: list[Origin] = []
        for header, call in index.items():
            index[header] = len(origins)
            origins.append(self._origin(header, call.connection))
        which = list(map(index.__getitem__, headers))
        return origins, which, requests, answered[1::2], [call.began_s for call in calls]

    def end(self) -> int:
        """The last lines; how many calls have none because they could not be written in time."""
        self.flush()
        if not self._outbox.end():
            self.lost += self._outbox.kept_calls
        return self.lost

    def room(self) -> None:
        """There is room again."""
        for route, handle, open_ in self._shut:
            if route.handle is _refuse or route.open is _refuse_stream:
                route.handle, route.open = handle, open_
        self._shut.clear()

    def check(self) -> None:
        """The list holds pairs, and marks do not go back."""
        hold(len(self.answered) % 2 == 0, "the audit log's list has pairs")
        marks = self._marks[::2]
        hold(marks == sorted(marks), "the audit log's marks rise", marks)

    def _origin(self, header: Any, connection: Any) -> Origin:
        """Where calls came from, and what they called."""
        metadata: Mapping[bytes, bytes] | None = getattr(header, "metadata", None)
        stage = ""
        if type(header) is _Staged:
            stage = header.stage
        elif header.route is not None and header.route.kind != UNARY:
            stage = "end"
        if metadata is None:  # of the JSON gateway it is the call that has it
            metadata = getattr(connection, "metadata", None) or _NO_METADATA
        name = certificate = connection.common_name
        gateway = hasattr(connection, "certificate")  # a call of ours
        if gateway:
            certificate = connection.certificate
        return (
            header.path.decode("utf-8", "replace")[:METHOD_CHARACTERS_MAX],
            self._who(metadata, name),
            certificate or "",
            connection.peer,
            "json" if gateway or _FROM_GATEWAY in metadata else "grpc",
            stage,
        )

    def _shut_doors(self) -> None:
        """Calls are refused from now on, but for the health of the member."""
        assert self._router is not None, "attached before it records"
        if self._shut:
            return
        for route in self._router:
            if route.service != HEALTH:
                self._shut.append((route, route.handle, route.open))
                if route.handle is not None:
                    route.handle = _refuse
                else:
                    route.open = _refuse_stream


class _Opened:
    """A stream's handler, whose first request makes a line."""

    __slots__ = (
        "_inner",
        "_noted",
        "_stream",
        "_trail",
        "on_cancel",
        "on_half_close",
        "on_writable",
    )

    def __init__(self, trail: AuditTrail, open_: OpenStream, stream: ServerStream) -> None:
        self._trail = trail
        self._stream: Any = stream
        self._noted = False
        inner = self._inner = open_(stream)
        self.on_half_close = inner.on_half_close
        self.on_cancel = inner.on_cancel
        self.on_writable = inner.on_writable

    def on_message(self, message: bytes) -> None:
        """StreamHandler.on_message."""
        if not self._noted:
            self._note(message)
        self._inner.on_message(message)

    def on_messages(self, messages: list[bytes]) -> int:
        """BatchHandler.on_messages, also for a handler that takes one at a time."""
        if not self._noted:
            self._note(messages[0])
        take: Callable[[list[bytes]], int] | None = getattr(self._inner, "on_messages", None)
        if take is not None:
            return take(messages)
        self._inner.on_message(messages[0])
        return 1

    def _note(self, message: bytes) -> None:
        self._noted = True
        stream = self._stream
        path: bytes = stream.header.path
        if len(message) <= REQUEST_BYTES_MAX:
            stream.request = message  # for the line of its end
        self._trail.note(stream, path, "open", message)


def _short(path: bytes, request: bytes) -> bytes | str:
    """The request, or what is shown of it if it is long."""
    return request if len(request) <= REQUEST_BYTES_MAX else details(path.decode(), request)


def _nobody(metadata: Mapping[bytes, bytes], common_name: str | None) -> str:
    return ""


def _refuse(call: UnaryCall, request: bytes) -> bytes | None:
    raise RawError(status.UNAVAILABLE, REFUSAL)


def _refuse_stream(stream: ServerStream) -> StreamHandler:
    raise RawError(status.UNAVAILABLE, REFUSAL)
