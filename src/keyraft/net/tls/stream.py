"""A TLS connection: the transport between a socket and its protocol, after a handshake in a thread.

    shaking -> (verified) -> open -> closing -> closed

OpenSSL does TLS, over two buffers in memory. While a connection shakes hands, each flight that
arrives goes to a worker (`workers`), and what OpenSSL answers is sent here: the loop's thread never
computes a signature. An open connection is read and written on the loop.

Memory: an idle connection has no buffer of its own. All connections of a loop receive into one and
decrypt into another (`Shared`); OpenSSL frees its own between records (SSL_MODE_RELEASE_BUFFERS).

Ownership: the loop's thread owns everything but the `ssl.SSLObject` and its buffers while
`_working`; then they are the worker's.

Both ends say why they hang up: an alert that OpenSSL makes is sent before the socket is closed
(RFC 8446 §6). Closing sends close_notify and waits for no answer, as Go does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from .sending import RECORD_BYTES_MAX, Sending
from .workers import Workers

RECEIVE_BYTES: Final = 65_536  # taken from a socket in one turn
SAY_TURNS: Final = 1  # of the loop that OpenSSL's own words wait for the protocol's
CLOSE_S_MAX: Final = 5.0  # for the rest of the output, and for close_notify (Go `tls.Conn.Close`)


class Shared:
    """What the connections of one loop share. Nobody keeps anything in the buffers over a turn."""

    __slots__ = ("loop", "plain", "received", "workers")

    def __init__(self, loop: asyncio.AbstractEventLoop, workers: Workers | None = None) -> None:
        self.loop = loop
        self.workers = workers or Workers(loop)
        self.received = memoryview(bytearray(RECEIVE_BYTES))
        self.plain = memoryview(bytearray(RECEIVE_BYTES))


def _is_light(flight: bytes, tls: ssl.SSLObject, guarded: bool) -> bool:
    """Whether two hashes are all that is left to compute: a thread would cost more.

    In TLS 1.3 when an encrypted record begins the flight, perhaps behind a change_cipher_spec: keys
    are exchanged, and a client that need not (`guarded`) shows no certificate. A second ClientHello
    (RFC 8446 §4.1.4) is not encrypted. In TLS 1.2 when a session is resumed: behind the
    change_cipher_spec nothing but Finished comes (RFC 5246 §7.3, figure 2).
    """
    if flight[:1] != b"\x14":
        return flight[:1] == b"\x17" and not guarded
    behind = flight[6:7]
    return (behind == b"\x17" and not guarded) or (behind == b"\x16" and bool(tls.session_reused))


Begun = Callable[["TLSStream"], None]
"""Called when the hands are shaken; it calls `open`, or ends the connection."""

Failed = Callable[["TLSStream", OSError], None]
"""Called when the handshake fails; the connection is closed then."""


class TLSStream(Sending):
    """One socket, which it owns."""

    __slots__ = (
        "_begun",
        "_context",
        "_error",
        "_failed",
        "_hello",
        "_here",
        "_incoming",
        "_paused",
        "_peername",
        "_reading",
        "_saying",
        "_server_name",
        "_shaking",
        "_shared",
        "_timer",
        "_working",
    )

    def __init__(
        self,
        shared: Shared,
        connected: socket.socket,
        context: ssl.SSLContext,
        begun: Begun,
        failed: Failed,
        within_s: float,
        *,
        server_name: str | None = None,
        peername: Any = None,
    ) -> None:
        """Shakes hands as a client when a `server_name` is given, else as a server.

        Exactly one of `begun` and `failed` is called, unless the connection is aborted before.
        """
        super().__init__(shared.loop, connected)
        self._shared = shared
        self._context = context
        self._server_name = server_name
        self._peername = peername
        self._begun: Begun | None = begun
        self._failed: Failed | None = failed
        self._incoming = ssl.MemoryBIO()
        self._hello = b""
        self._shaking = True
        self._working = False
        self._here = False  # the step that is due is for the loop's thread
        self._error: OSError | None = None
        self._reading = False  # the loop watches the socket
        self._saying = False  # `_say` runs soon
        self._paused = False  # the protocol wants nothing
        self._timer: asyncio.TimerHandle | None = shared.loop.call_later(within_s, self._late)
        if server_name is None:
            self._watch()  # an accepted socket is like the one that listens: without delay
        else:
            if connected.family in (socket.AF_INET, socket.AF_INET6):
                with contextlib.suppress(OSError):
                    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._working = True
            shared.workers.submit(self)

    # --- the handshake --------------------------------------------------------------------------

    def work(self) -> None:
        """One step, in a thread (workers.Step)."""
        if self._closing:
            return  # given up while it was queued
        try:
            tls = self._tls
            if tls is None:
                name = self._server_name
                tls = self._tls = self._context.wrap_bio(
                    self._incoming, self._outgoing, name is None, name
                )
            tls.do_handshake()
            self._shaking = False
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self._error = error
        except ValueError as error:  # a server name that can be none
            self._error = OSError(None, str(error))

    def worked(self) -> bool:
        """Back on the loop's thread (workers.Step)."""
        if self._here:
            self._here = False
            self.work()
        self._working = False
        if self._closing:  # given up meanwhile
            return False
        if self._outgoing.pending and (self._shaking or self._server_name is not None):
            self._send(self._outgoing.read())
        if self._error is not None:
            self._lose(self._error)
        if self._closing:
            return True
        if self._shaking:
            self._watch()
            return False
        begun, self._begun = self._begun, None
        self._failed = None
        self._stop_timer()
        assert begun is not None, "a handshake ended twice"
        begun(self)
        if self._outgoing.pending:
            self._say_soon()
        return True

    def _say_soon(self) -> None:
        """What OpenSSL says of itself, as the end of a handshake, goes out with what the protocol
        says next, if that is soon: most have something to say when they begin."""
        if not self._saying:
            self._saying = True
            self._loop.call_soon(self._say, SAY_TURNS)

    def _say(self, turns: int) -> None:
        if turns and self._outgoing.pending:
            self._loop.call_soon(self._say, turns - 1)
            return
        self._saying = False
        if self._outgoing.pending and not self._closing and not self._working:
            self._send(self._outgoing.read())

    def _shake(self) -> None:
        """Takes what has arrived to a worker."""
        try:
            data = self._socket.recv(RECORD_BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        if not data:
            self._fail(ConnectionResetError())
            return
        if not self._hello:
            self._hello = data
        self._incoming.write(data)
        self._working = True
        tls = self._tls
        if tls is not None and _is_light(data, tls, bool(self._context.verify_mode)):
            self._here = True
            self._shared.workers.later(self)
        else:
            self._shared.workers.submit(self)

    def _fail(self, error: OSError) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            failed(self, error)
        self._end()

    def _late(self) -> None:
        self._timer = None
        if self._failed is not None:
            self._fail(TimeoutError())
        else:
            self._lose(None)  # closing took too long

    @property
    def hello(self) -> bytes:
        """The first bytes that arrived."""
        return self._hello

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """What is known about the other end."""
        assert self._tls is not None, "no handshake has begun"
        return self._tls

    def open(self, protocol: asyncio.BaseProtocol) -> None:
        """Begins to read for `protocol`."""
        self._protocol = cast("asyncio.Protocol", protocol)
        self._hello = b""
        protocol.connection_made(self)
        if self._closing:
            return
        self._watch()
        if self._incoming.pending and not self._paused:
            self._take()

    # --- reading --------------------------------------------------------------------------------

    def _watch(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def _unwatch(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _readable(self) -> None:
        if self._paused or self._working:
            self._unwatch()  # only now: who pauses often goes on soon
            return
        if self._protocol is None:
            if self._shaking:
                self._shake()
            else:
                self._unwatch()  # until it is let in
            return
        received = self._shared.received
        try:
            count = self._socket.recv_into(received)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if not count:
            self._eof()
            return
        self._incoming.write(received[:count])
        self._take()

    def _take(self) -> None:
        """Decrypts what has arrived and hands it on."""
        tls, incoming, plain, protocol = (
            self._tls,
            self._incoming,
            self._shared.plain,
            self._protocol,
        )
        assert tls is not None and protocol is not None
        ended = False
        while not ended and not self._paused and not self._closing:
            count = 0
            more = True
            failure: OSError | None = None
            while more and count <= RECEIVE_BYTES - RECORD_BYTES_MAX:
                try:
                    # With a buffer it returns a count, which typeshed leaves out.
                    got = cast("int", tls.read(RECORD_BYTES_MAX, plain[count:]))
                except ssl.SSLWantReadError:
                    more = False
                except OSError as error:
                    failure, more = error, False
                else:
                    count += got
                    ended = not got  # close_notify
                    more = not ended and bool(incoming.pending)
            if failure is not None and self._outgoing.pending:
                self._send(self._outgoing.read())  # an alert
            if count:
                protocol.data_received(bytes(plain[:count]))
            if failure is not None:
                self._lose(failure)
                return
            if self._outgoing.pending:
                self._say_soon()
            if not more:
                break
        if ended:
            self._eof()

    def _eof(self) -> None:
        if self._closing:
            return
        assert self._protocol is not None
        self._protocol.eof_received()
        self.close()

    def pause_reading(self) -> None:
        """Hands nothing on until `resume_reading`."""
        self._paused = True

    def resume_reading(self) -> None:
        """Goes on with what has arrived."""
        if not self._paused or self._closing:
            self._paused = False
            return
        self._paused = False
        if self._incoming.pending:
            self._loop.call_soon(self._resume)
        else:
            self._watch()

    def _resume(self) -> None:
        if not self._paused and not self._closing and self._protocol is not None:
            self._watch()
            self._take()

    # --- the end --------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether nothing more is read or written."""
        return self._closing

    def close(self) -> None:
        """Sends what is queued and close_notify, then closes the socket."""
        if self._closing:
            return
        if self._backlog:
            self._closing = True
            self._unwatch()
            self._stop_timer()
            self._timer = self._loop.call_later(CLOSE_S_MAX, self._late)
        else:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        if self._tls is not None and not self._shaking and not self._working:
            with contextlib.suppress(OSError):
                self._tls.unwrap()  # makes a close_notify; the other end's is not waited for
            with contextlib.suppress(OSError):
                self._socket.send(self._outgoing.read())
        self._lose(None)

    def abort(self) -> None:
        """Closes the socket at once."""
        self._lose(None)

    def _lose(self, error: OSError | None) -> None:
        """Ends the connection; the protocol hears of it in another turn."""
        if self._socket.fileno() < 0:
            return
        if error is not None and self._failed is not None:
            self._fail(error)
            return
        protocol = self._protocol
        self._end()
        if protocol is not None:
            self._loop.call_soon(protocol.connection_lost, error)

    def _end(self) -> None:
        self._closing = True
        self._unwatch()
        self._stop_writing()
        self._stop_timer()
        self._backlog.clear()
        self._queued_bytes = 0
        self._begun = self._failed = None
        self._socket.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what it is -----------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """From now on another."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """asyncio's names; asked for when a connection begins."""
        tls = self._tls
        try:
            match name:
                case "ssl_object":
                    return tls
                case "sslcontext":
                    return self._context
                case "peercert":
                    return default if tls is None else tls.getpeercert()
                case "cipher":
                    return default if tls is None else tls.cipher()
                case "peername":
                    if self._peername is None:
                        self._peername = self._socket.getpeername()
                    return self._peername
                case "sockname":
                    return self._socket.getsockname()
                case "socket":
                    return self._socket
        except OSError:
            return default
        return default
