"""The standard gRPC health service: one name, "", SERVING once the member is ready."""

from __future__ import annotations

from typing import Final

from keyraft.base.errors import RawError
from keyraft.base.log import Logger
from keyraft.base.parsing import parse
from keyraft.grpc import SERVER_STREAM, Router, ServerStream, StreamHandler, UnaryCall, status
from keyraft.proto import health_pb2

_UNKNOWN_SERVICE: Final = "unknown service"


class HealthService:
    """Registered on a router; the owner sets `serving`."""

    def __init__(self) -> None:
        self._serving = False
        self._resumes = False  # when what it is paused for has ended
        self._watchers: set[_Watcher] = set()

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        router.unary("/grpc.health.v1.Health/Check", self.check)
        router.unary("/grpc.health.v1.Health/List", self.list)
        router.stream("/grpc.health.v1.Health/Watch", self.watch, kind=SERVER_STREAM)

    @property
    def serving(self) -> bool:
        """Whether the state is SERVING."""
        return self._serving

    @serving.setter
    def serving(self, value: bool) -> None:
        if value != self._serving:
            self._serving = value
            for watcher in self._watchers:
                watcher.tell()

    def pause(self, log: Logger, reason: str, paused: bool) -> None:
        """Not serving while `paused`, then as before."""
        if paused and self._serving:
            self._resumes = True
            self.serving = False
            log.warn("grpc service status changed", service="", status="NOT_SERVING", reason=reason)
        elif not paused and self._resumes:
            self._resumes = False
            self.serving = True
            log.info("grpc service status changed", service="", status="SERVING")

    def stop(self) -> None:
        """Not serving, and never again."""
        self._resumes = self.serving = False

    def state(self) -> health_pb2.HealthCheckResponse:
        """The answer for the name ""."""
        kinds = health_pb2.HealthCheckResponse
        return kinds(status=kinds.SERVING if self._serving else kinds.NOT_SERVING)

    def check(self, call: UnaryCall, request: bytes) -> bytes | None:
        """HealthCheckRequest -> HealthCheckResponse."""
        if parse(health_pb2.HealthCheckRequest, request).service:
            raise RawError(status.NOT_FOUND, _UNKNOWN_SERVICE)
        return self.state().SerializeToString()

    def list(self, call: UnaryCall, request: bytes) -> bytes | None:
        """HealthListRequest -> HealthListResponse."""
        parse(health_pb2.HealthListRequest, request)
        return health_pb2.HealthListResponse(statuses={"": self.state()}).SerializeToString()

    def watch(self, stream: ServerStream) -> StreamHandler:
        """HealthCheckRequest -> a HealthCheckResponse now and with every change."""
        return _Watcher(self, stream)

    def follow(self, watcher: _Watcher) -> None:
        """Adds a watcher of changes."""
        self._watchers.add(watcher)

    def leave(self, watcher: _Watcher) -> None:
        """Removes a watcher."""
        self._watchers.discard(watcher)


class _Watcher:
    """One Watch call. While the queue is full, a change waits until there is room."""

    def __init__(self, service: HealthService, stream: ServerStream) -> None:
        self._service = service
        self._stream = stream
        self._known = False
        self._told: health_pb2.HealthCheckResponse | None = None

    def on_message(self, message: bytes) -> None:
        """The name to watch; an unknown name stays SERVICE_UNKNOWN for ever."""
        try:
            self._known = not parse(health_pb2.HealthCheckRequest, message).service
        except RawError as refusal:
            self._stream.finish(refusal.code, refusal.text)
            return
        self._service.follow(self)
        self.tell()

    def tell(self) -> None:
        """Sends the state if it has changed."""
        kinds = health_pb2.HealthCheckResponse
        state = self._service.state() if self._known else kinds(status=kinds.SERVICE_UNKNOWN)
        if state != self._told and self._stream.writable > 0:
            self._told = state
            self._stream.send(state.SerializeToString())

    def on_half_close(self) -> None:
        """Expected."""

    def on_cancel(self, code: int) -> None:
        """The client is gone."""
        self._service.leave(self)

    def on_writable(self) -> None:
        """Sends a change that was held back."""
        self.tell()
