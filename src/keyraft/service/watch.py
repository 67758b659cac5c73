"""Watch: the stream's requests to the hub, and its queue's state to and fro.

A stream that does not read gets no further requests read either: answers to creates and cancels
would otherwise pile up. What watchers are owed is in the store (`mvcc.watch`), so a stream holds
at most its queue (1 MiB, `grpc.Limits.stream_queue_bytes`) and the message that filled it.

Source: etcd `server/etcdserver/api/v3rpc/watch.go`.
"""

from __future__ import annotations

from typing import Final

from keyraft.base import errors
from keyraft.base.clock import Random, Timer
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.parsing import parse
from keyraft.grpc import Router, ServerStream, StreamHandler, status
from keyraft.mvcc import NODELETE, NOPUT, PREVIOUS, WatchStream
from keyraft.proto import rpc_pb2
from keyraft.server import Member
from keyraft.service.guard import Guard

NOTIFY_JITTER: Final = 0.1  # of the interval, so that streams do not all speak at once
_VARIANT: Final = {
    rpc_pb2.WatchCreateRequest.NOPUT: NOPUT,
    rpc_pb2.WatchCreateRequest.NODELETE: NODELETE,
}
_REASONS: Final = (
    errors.InvalidAuthTokenError,
    errors.AuthOldRevisionError,
    errors.UserEmptyError,
)


class WatchService:
    """Registered on a router; one per member."""

    def __init__(self, member: Member, guard: Guard, random: Random) -> None:
        self.member = member
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
        interval_s = self.member.settings.watch_progress_notify_s
        return interval_s * (1.0 + NOTIFY_JITTER * self._random.random())


class WatchHandler:
    """One Watch stream."""

    def __init__(self, service: WatchService, stream: ServerStream) -> None:
        self._service = service
        self._stream = stream
        self._watches = WatchStream(service.member.watches, stream, stream)
        self._timer: Timer | None = None
        self._paused = False
        self._over = False

    # --- the transport's side -----------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """A request to create, to cancel, or for progress; anything else is passed over."""
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
        """The client will ask for nothing more, and still wants its events."""

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
        reason = "" if request.start_revision < 0 else self._forbidden(request)
        if reason:
            self._watches.refuse(reason)
            return
        variant = PREVIOUS if request.prev_kv else 0
        for kind in request.filters:
            variant |= _VARIANT.get(kind, 0)
        self._watches.create(
            request.key,
            request.range_end,
            request.start_revision,
            request.watch_id,
            variant=variant,
            fragment=request.fragment,
            notify=request.progress_notify,
        )
        if request.progress_notify and self._timer is None:
            self._start_timer()

    def _forbidden(self, request: rpc_pb2.WatchCreateRequest) -> str:
        """Why the caller may not watch this; empty if it may. In the words of Go's status."""
        auth = self._service.member.auth
        if not auth.enabled:
            return ""
        try:
            identity = self._service.guard.caller(self._stream)
            auth.check_range(identity, request.key or b"\0", request.range_end)
        except errors.PostponedError:
            raise
        except (EtcdError, RawError) as refusal:
            known = isinstance(refusal, _REASONS)
            error = refusal if known else errors.PermissionDeniedError()
            return f"rpc error: code = {status.CODE_NAMES[error.code]} desc = {error.text}"
        return ""

    def _start_timer(self) -> None:
        loop = self._service.member.loop
        self._timer = loop.call_later(self._service.notify_interval_s(), self._notify)

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
