"""RangeStream: a range in chunks, as fast as the client reads."""

from __future__ import annotations

from keyraft.base.errors import EtcdError, PostponedError, RawError
from keyraft.base.parsing import parse
from keyraft.grpc import ServerStream
from keyraft.mvcc import check_range_stream
from keyraft.proto import rpc_pb2
from keyraft.service.guard import Guard
from keyraft.service.ports import Feed, Keys


class RangeStreamHandler:
    """One RangeStream call: both its stream's handler and the sink of its chunks."""

    def __init__(self, keys: Keys, guard: Guard, stream: ServerStream) -> None:
        """Raises what the guard refuses."""
        guard.admit_stream(stream)
        self._keys = keys
        self._guard = guard
        self._stream = stream
        self._feed: Feed | None = None
        self._over = False

    # --- the transport's side -----------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """The request; there is only one."""
        try:
            request = parse(rpc_pb2.RangeRequest, message)
            check_range_stream(request)
            self._feed = self._keys.range_stream(self, request, self._guard.who(self._stream))
        except PostponedError:
            raise
        except (EtcdError, RawError) as refusal:
            self.finish(refusal.code, refusal.text)

    def on_half_close(self) -> None:
        """Expected."""

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._end()

    def on_writable(self) -> None:
        """The client has read; the next chunks may come."""
        if self._feed is not None:
            self._feed.resume()

    # --- the feed's side ----------------------------------------------------------------------

    @property
    def writable(self) -> int:
        """Bytes that may still be queued."""
        return self._stream.writable

    def send(self, message: bytes) -> None:
        """Sends a chunk."""
        self._stream.send(message)

    def finish(self, code: int = 0, text: str = "") -> None:
        """That was all, or it was refused."""
        if not self._over:
            self._end()
            self._stream.finish(code, text)

    def _end(self) -> None:
        self._over = True
        self._guard.left(self._stream)
        if self._feed is not None:
            self._feed.close()
