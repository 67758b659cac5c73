"""Watch: passes a stream's requests to its watches, and handles its back pressure.

While a client does not read, its requests are not read either: otherwise answers to creates and
cancels would pile up. The engine keeps the pending events, so a stream holds at most its queue (1
MiB, `grpc.Limits.stream_queue_bytes`) and the message that filled it.

Source: etcd `server/etcdserver/api/v3rpc/watch.go`.
"""

from __future__ import annotations

from typing import Final

from keyraft.base import errors
from keyraft.base.clock import Random, Timer
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.parsing import parse
from keyraft.grpc import Router, ServerStream, StreamHandler, status
from keyraft.proto import rpc_pb2
from keyraft.service.guard import Guard
from keyraft.service.ports import Watching

NOTIFY_JITTER: Final = 0.1  # of the interval, so that streams do not all send at once
_REASONS: Final = (
    errors.InvalidAuthTokenError,
    errors.AuthOldRevisionError,
    errors.UserEmptyError,
)


class WatchService:
    """Registered on a router."""

    def __init__(self, watching: Watching, guard: Guard, random: Random) -> None:
        self.watching = watching
        self.guard = guard
        self._random = random

    def register(self, router: Router) -> None:
        """Makes the method callable."""
        router.stream("/etcdserverpb.Watch/Watch", self.open)

    def open(self, stream: ServerStream) -> StreamHandler:
        """A new stream; raises what the guard refuses."""
        self.guard.admit_stream(stream)
        return WatchHandler(self, stream)

    def notify_interval_s(self) -> float:
        """The time to a stream's next progress notifications."""
        return self.watching.notify_s * (1.0 + NOTIFY_JITTER * self._random.random())


class WatchHandler:
    """One Watch stream."""

    def __init__(self, service: WatchService, stream: ServerStream) -> None:
        self._service = service
        self._stream = stream
        self._watches = service.watching.open(stream, stream, service.guard.who(stream))
        self._timer: Timer | None = None
        self._paused = False
        self._over = False

    # --- the transport's side -----------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """A request to create, to cancel, or for progress; any other is ignored."""
        try:
            request = parse(rpc_pb2.WatchRequest, message)
        except RawError as refusal:
            self._end()
            self._stream.finish(refusal.code, refusal.text)
            return
        which = request.WhichOneof("request_union")
        if which == "create_request":
            self._create(request.create_request)
        elif which == "cancel_request":
            self._watches.cancel(request.cancel_request.watch_id)
        elif which == "progress_request":
            self._watches.progress()
        if not self._paused and self._stream.writable <= 0:
            self._paused = True
            self._stream.pause_reading()

    def on_half_close(self) -> None:
        """The client sends no more requests, but still wants its events."""

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._end()

    def on_writable(self) -> None:
        """The client has read."""
        self._watches.on_writable()
        if self._paused:
            self._paused = False
            self._stream.resume_reading()

    # --- the work -----------------------------------------------------------------------------

    def _create(self, request: rpc_pb2.WatchCreateRequest) -> None:
        caller = None
        guard = self._service.guard
        if guard.rules.enabled and request.start_revision >= 0:
            try:
                caller = guard.identify(self._stream)
                self._service.watching.check(request.key, request.range_end, caller)
            except errors.PostponedError:
                raise
            except (EtcdError, RawError) as refusal:
                self._watches.refuse(_reason(refusal))
                self._tell(request, *_denial(refusal))
                return
        self._watches.create(request, caller)
        self._tell(request)
        if request.progress_notify and self._timer is None:
            self._start_timer()

    def _tell(self, request: rpc_pb2.WatchCreateRequest, code: int = 0, text: str = "") -> None:
        tell = self._service.guard.on_watch
        if tell is not None:
            tell(self._stream, request.SerializeToString(), code, text)

    def _start_timer(self) -> None:
        self._timer = self._service.guard.loop.call_later(
            self._service.notify_interval_s(), self._notify
        )

    def _notify(self) -> None:
        self._timer = None
        if not self._over:
            self._watches.tick()
            if self._watches.notifying:
                self._start_timer()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._watches.close()
            self._service.guard.left(self._stream)


def _reason(refusal: EtcdError | RawError) -> str:
    """Why the caller may not watch this range, in the words of Go's status."""
    return status.described(*_denial(refusal))


def _denial(refusal: EtcdError | RawError) -> tuple[int, str]:
    """What the caller is told for this error."""
    known = isinstance(refusal, _REASONS)
    error = refusal if known else errors.PermissionDeniedError()
    return error.code, error.text
