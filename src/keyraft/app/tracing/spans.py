"""The spans of calls: a route's handler is wrapped, so routes that are not traced know nothing.

A handler gets a `TracedCall` in place of the call. It passes everything on, and sees what tells the
story: that the handler has taken a ticket (its request is proposed), that it answers or fails, that
the client gives up. All of it runs on the loop's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from keyraft.app.tracing.attributes import CHILDREN, watch_attributes
from keyraft.base.errors import EtcdError, RawError
from keyraft.grpc import Route, Router, ServerStream, StreamHandler, UnaryCall, status

Cancel = Callable[[Any, int], None]

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_FAULTS: Final = frozenset(
    (
        status.UNKNOWN,
        status.DEADLINE_EXCEEDED,
        status.UNIMPLEMENTED,
        status.INTERNAL,
        status.UNAVAILABLE,
        status.DATA_LOSS,
    )
)
"""Codes that make a server's span an error (OpenTelemetry, semantic conventions for gRPC)."""


class TracedCall:
    """A unary call with its spans (grpc.UnaryCall)."""

    __slots__ = ("_call", "_child", "_on_cancel", "_server")

    def __init__(self, call: UnaryCall, server: Span, child: Span | None) -> None:
        self._call = call
        self._server = server
        self._child = child
        self._on_cancel: Cancel | None = None
        call.on_cancel = self._cancelled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    @property
    def on_cancel(self) -> Cancel | None:
        """See grpc.UnaryCall."""
        return self._on_cancel

    @on_cancel.setter
    def on_cancel(self, cancel: Cancel | None) -> None:
        self._on_cancel = cancel

    @property
    def ticket(self) -> bytes:
        """See grpc.UnaryCall."""
        return self._call.ticket

    @ticket.setter
    def ticket(self, ticket: bytes) -> None:
        self._call.ticket = ticket
        self._tell("handed over to Raft, or to a slice of reads")

    def respond(self, message: bytes) -> None:
        """See grpc.UnaryCall."""
        self._tell("carried out")
        self._call.respond(message)
        self.ended(status.OK, "")

    def fail(self, code: int, text: str) -> None:
        """See grpc.UnaryCall."""
        self._call.fail(code, text)
        self.ended(code, text)

    def ended(self, code: int, text: str) -> None:
        """The spans end; those that have ended already stay as they are."""
        if not self._server.is_recording():
            return
        self._server.set_attribute("rpc.grpc.status_code", code)
        for span in (self._child, self._server):
            if span is not None:
                if code in _FAULTS:
                    span.set_status(StatusCode.ERROR, text)
                span.end()

    def _cancelled(self, _call: Any, code: int) -> None:
        self._tell("given up by the client")
        if self._on_cancel is not None:
            self._on_cancel(self, code)
        self.ended(code, "")

    def _tell(self, event: str) -> None:
        (self._child or self._server).add_event(event)


class TracedRoutes:
    """Wraps the handlers of a router."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def wrap(self, router: Router) -> None:
        """All unary routes, and Watch."""
        for route in router:
            if route.handle is not None:
                self._wrap_unary(route, route.handle)
            elif route.open is not None and route.path == b"/etcdserverpb.Watch/Watch":
                self._wrap_watch(route, route.open)

    def _wrap_unary(self, route: Route, handle: Callable[[UnaryCall, bytes], bytes | None]) -> None:
        name = f"{route.service}/{route.method}"
        attributes = {
            "rpc.system": "grpc",
            "rpc.service": route.service,
            "rpc.method": route.method,
        }
        child_of = CHILDREN.get(name)
        tracer = self._tracer

        def traced(call: UnaryCall, request: bytes) -> bytes | None:
            began_ns = time.time_ns() - max(0, int((time.monotonic() - call.began_s) * 1e9))
            server = tracer.start_span(
                name, _parent(call.metadata), SpanKind.SERVER, attributes, start_time=began_ns
            )
            if not server.is_recording():
                return handle(call, request)
            server.set_attribute("client.address", call.peer)
            child = None
            if child_of is not None:
                child = tracer.start_span(
                    child_of.name,
                    set_span_in_context(server),
                    attributes=child_of.attributes(request),
                )
            told = TracedCall(call, server, child)
            try:
                reply = handle(told, request)
            except (EtcdError, RawError) as refusal:
                told.ended(refusal.code, refusal.text)
                raise
            if reply is not None:
                told.ended(status.OK, "")
            return reply

        route.handle = traced

    def _wrap_watch(self, route: Route, open_: Callable[[ServerStream], StreamHandler]) -> None:
        def traced(stream: ServerStream) -> StreamHandler:
            return _TracedWatch(open_(stream), self._tracer, _parent(stream.metadata))

        route.open = traced


class _TracedWatch:
    """A span for each watch that is created; the rest is the handler's."""

    __slots__ = ("_handler", "_parent", "_tracer", "on_cancel", "on_half_close", "on_writable")

    def __init__(self, handler: StreamHandler, tracer: Tracer, parent: Any) -> None:
        self._handler = handler
        self._tracer = tracer
        self._parent = parent
        self.on_half_close = handler.on_half_close
        self.on_cancel = handler.on_cancel
        self.on_writable = handler.on_writable

    def on_message(self, message: bytes) -> None:
        """One request: if it creates a watch, it has a span."""
        attributes = watch_attributes(message)
        if attributes is None:
            self._handler.on_message(message)
            return
        with self._tracer.start_as_current_span("watch", self._parent, attributes=attributes):
            self._handler.on_message(message)


def _parent(metadata: Mapping[bytes, bytes]) -> Any:
    """The caller's context, of W3C Trace Context; an empty one where there is none."""
    carried = {
        name: metadata[name.encode()].decode("latin-1")
        for name in ("traceparent", "tracestate")
        if name.encode() in metadata
    }
    return _PROPAGATOR.extract(carried, context=_NOTHING) if carried else _NOTHING


_NOTHING: Final = set_span_in_context(None)  # type: ignore[arg-type]  # no span at all
