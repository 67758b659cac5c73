"""Streams over websockets: each message of the client is JSON, each line of the answer a message.

The paths and the calls are those of plain requests; the method is always POST. A token comes in the
subprotocol (`Bearer, TOKEN`) or in the cookie `token`, because browsers let scripts set nothing
else. Source: `tmc/grpc-websocket-proxy` as etcd 3.7 has it; RFC 6455, which `wsproto` carries out.

A method with one request is called with the first message, not when the client has closed its side
(as the original would, and then has nobody to answer).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from hashlib import sha1
from typing import TYPE_CHECKING, Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from keyraft.base import http_status
from keyraft.gateway.json.calls import Header, JsonStream, refuse
from keyraft.gateway.json.decoding import NotDecodedError, decode_value, is_slow
from keyraft.gateway.json.metadata import BadHeaderError, annotate
from keyraft.gateway.json.methods import Method
from keyraft.gateway.json.scanner import EndOfText, SyntaxProblem, find_value
from keyraft.grpc import SERVER_STREAM, HttpRequest, status

if TYPE_CHECKING:
    from keyraft.gateway.json.gateway import JsonGateway

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_VERSION: Final = (b"sec-websocket-version", b"13")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_NORMAL: Final = 1000
_TOO_BIG: Final = 1009
_KEY_BYTES: Final = 16
RESCANNED_BYTES_MAX: Final = 16_777_216  # of a value that comes in many messages


def wants_websocket(headers: list[Header]) -> bool:
    """Whether the client asks to speak websocket."""
    for name, _ in headers:
        if name == b"upgrade":
            return _has_token(headers, b"connection", b"upgrade") and _has_token(
                headers, b"upgrade", b"websocket"
            )
    return False


def _has_token(headers: list[Header], name: bytes, token: bytes) -> bool:
    return any(
        part.strip().lower() == token
        for key, value in headers
        if key == name
        for part in value.split(b",")
    )


def open_websocket(
    gateway: JsonGateway, request: HttpRequest, method: Method | None, extra: list[Header]
) -> None:
    """Answers the handshake, and from then on the client's messages."""
    headers = dict(request.headers)
    key = headers.get(b"sec-websocket-key", b"").strip()
    if request.method != "GET":
        _refuse(request, http_status.METHOD_NOT_ALLOWED, b"Method Not Allowed\n", extra)
        return
    if headers.get(b"sec-websocket-version", b"").strip() != b"13" or not _is_key(key):
        _refuse(request, http_status.BAD_REQUEST, b"Bad Request\n", extra)
        return
    protocol = headers.get(b"sec-websocket-protocol", b"")
    answer = [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", b64encode(sha1(key + _GUID, usedforsecurity=False).digest())),
    ]
    if protocol.startswith(b"Bearer"):
        answer.append((b"sec-websocket-protocol", b"Bearer"))
    socket = Websocket(request, gateway.message_text_bytes_max)
    if not request.upgrade(answer, socket.on_data):
        _refuse(request, http_status.BAD_REQUEST, b"Bad Request\n", extra)
        return
    request.on_close = socket.lost
    request.on_writable = socket.drained
    Conversation(gateway, socket, method, _call_headers(headers)).begin()


def _refuse(request: HttpRequest, code: int, text: bytes, extra: list[Header]) -> None:
    request.respond(code, [_TEXT, _NOSNIFF, _VERSION, *extra], text)


def _is_key(key: bytes) -> bool:
    try:
        return len(b64decode(key, validate=True)) == _KEY_BYTES
    except Base64Error:
        return False


def _call_headers(headers: dict[bytes, bytes]) -> list[Header]:
    """The headers of the call: who asks, and from which page."""
    found: list[Header] = [
        (name, headers[name]) for name in (b"origin", b"referer") if name in headers
    ]
    protocol = headers.get(b"sec-websocket-protocol", b"")
    token = None
    if protocol:
        _, bearer, rest = protocol.partition(b"Bearer,")
        token = b"Bearer " + rest.strip(b" ") if bearer else b""
    for cookie in headers.get(b"cookie", b"").split(b";"):
        name, _, value = cookie.strip().partition(b"=")
        if name == b"token":
            token = b"Bearer " + value.strip(b'"')
            break
    if token is not None:
        found.append((b"authorization", token))
    return found


class Websocket:
    """One websocket, as the answer of a call (`calls.Answer`)."""

    def __init__(self, request: HttpRequest, message_bytes_max: int) -> None:
        self._request = request
        self._protocol = Connection(ConnectionType.SERVER)
        self._bytes_max = message_bytes_max
        self._pieces: list[bytes] = []
        self._size = 0
        self._over = False
        self.on_payload: Callable[[bytes], None] | None = None
        self.on_close: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None

    @property
    def peer(self) -> str:
        """The client's address."""
        return self._request.peer

    @property
    def common_name(self) -> str | None:
        """The CN of the client's verified certificate."""
        return self._request.common_name

    @property
    def writable(self) -> int:
        """Bytes that may be written before the limit."""
        return self._request.writable

    # --- from the client ----------------------------------------------------------------------

    def on_data(self, data: bytes) -> None:
        """Bytes have come."""
        if self._over:
            return
        try:
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                if isinstance(event, TextMessage):
                    self._take(event.data.encode("utf-8"), event.message_finished)
                elif isinstance(event, BytesMessage):
                    self._take(bytes(event.data), event.message_finished)
                elif isinstance(event, Ping):
                    self._send(event.response())
                elif isinstance(event, CloseConnection):
                    self._send(event.response())
                    self._left()
                if self._over:
                    return
        except RemoteProtocolError as fault:
            hint = fault.event_hint
            if isinstance(hint, CloseConnection):
                self._send(hint)
            self._left()

    def _take(self, piece: bytes, finished: bool) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._bytes_max:
            self._send(CloseConnection(code=_TOO_BIG))
            self._left()
        elif finished:
            payload, self._size = b"".join(self._pieces), 0
            self._pieces.clear()
            if self.on_payload is not None:
                self.on_payload(payload + b"\n")

    def _left(self) -> None:
        """The client has closed, or broken the protocol."""
        if not self._over:
            self._over = True
            self._request.end()
            if self.on_close is not None:
                self.on_close()

    def lost(self) -> None:
        """The connection is gone."""
        if not self._over:
            self._over = True
            if self.on_close is not None:
                self.on_close()

    def drained(self) -> None:
        """There is room again."""
        if not self._over and self.on_writable is not None:
            self.on_writable()

    def hold(self, on: bool) -> None:
        """Stops reading, or goes on."""
        self._request.hold_reading(on)

    # --- to the client ------------------------------------------------------------------------

    def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        """A whole answer; status and headers have no place in a websocket."""
        self.write(body)
        self.end()

    def start(self, status: int, headers: list[Header]) -> None:
        """Nothing."""

    def write(self, data: bytes) -> None:
        """Lines, each a message."""
        if not self._over:
            for line in data.split(b"\n"):
                if line:
                    self._send(TextMessage(data=line.decode("utf-8")))

    def end(self) -> None:
        """Closes.

        DEVIATION: the original cuts the connection without a Close frame.
        """
        if not self._over:
            self._over = True
            self._send(CloseConnection(code=_NORMAL))
            self._request.end()

    def abort(self) -> None:
        """Cuts the connection."""
        if not self._over:
            self._over = True
            self._request.abort()

    def _send(self, event: Event) -> None:
        if self._protocol.state is ConnectionState.CLOSED:
            return
        try:
            self._request.write(self._protocol.send(event))
        except LocalProtocolError:
            pass  # the client has closed meanwhile


class Conversation:
    """What the messages of one websocket mean: requests of one call."""

    def __init__(
        self,
        gateway: JsonGateway,
        socket: Websocket,
        method: Method | None,
        headers: list[Header],
    ) -> None:
        self._gateway = gateway
        self._socket = socket
        self._method = method
        self._headers = headers
        self._buffer = b""
        self._rescanned_bytes = 0
        self._stream: JsonStream | None = None
        self._over = False

    def begin(self) -> None:
        """Starts the call, if its requests come one by one."""
        socket, method = self._socket, self._method
        if method is None or method.route is None:
            refuse(socket, [], status.NOT_FOUND, "Not Found")
            return
        try:
            self._metadata, _ = annotate(self._headers)
        except BadHeaderError as refusal:
            refuse(socket, [], refusal.code, refusal.text)
            return
        socket.on_payload = self._payload
        if not method.is_unary and method.route.kind != SERVER_STREAM:
            stream = JsonStream(self._gateway, method, socket, [], self._metadata)
            stream.on_room = lambda: socket.hold(False)
            self._stream = stream
            stream.open()

    def _payload(self, data: bytes) -> None:
        if self._over:
            return
        method = self._method
        assert method is not None, "a path without a method is refused before"
        buffer = self._buffer + data
        if is_slow(buffer):
            # DEVIATION: a message is read at once, so it has no more than a transaction may need.
            self._wrong("too many values in one message")
            return
        at = 0
        try:
            while (found := find_value(buffer, at, ended=False)) is not None:
                start, at = found
                self._rescanned_bytes = 0
                self._request(decode_value(method.request, method.request_table, buffer[start:at]))
                if self._over:
                    return
            self._buffer = b""
        except EndOfText:
            self._buffer = buffer[at:]
            self._rescanned_bytes += len(self._buffer)
            if (
                len(self._buffer) > self._gateway.message_text_bytes_max
                or self._rescanned_bytes > RESCANNED_BYTES_MAX
            ):
                self._wrong("unexpected EOF")
        except (SyntaxProblem, NotDecodedError) as problem:
            self._wrong(str(problem))

    def _request(self, message: bytes) -> None:
        stream, method = self._stream, self._method
        assert method is not None, "a path without a method is refused before"
        if stream is None:
            self._over = True
            self._gateway.start(method, self._socket, [], self._metadata, None, message)
            return
        stream.put(message)
        if stream.full:
            self._socket.hold(True)

    def _wrong(self, text: str) -> None:
        """No request follows that could be understood."""
        self._over = True
        self._buffer = b""
        if self._stream is None:
            refuse(self._socket, [], status.INVALID_ARGUMENT, text)
        else:
            self._stream.end_input()
