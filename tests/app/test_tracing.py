"""Spans of a member's calls, as a collector gets them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.server import OURS, Server, serving

trace = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


class Collector:
    """A small OTLP receiver: keeps all spans, with their resource's attributes."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self._came = threading.Condition()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(
            self._export, trace.ExportTraceServiceRequest.FromString, lambda one: b""
        )
        service, _, method = EXPORT[1:].partition("/")
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _export(self, request: Any, _context: Any) -> None:
        with self._came:
            for one in request.resource_spans:
                attributes = one.resource.attributes
                self.resources.append({each.key: each.value.string_value for each in attributes})
                self.spans += [span for scope in one.scope_spans for span in scope.spans]
            self._came.notify_all()

    def named(self, name: str, count: int = 1) -> list[Any]:
        """So many spans of a name, once they are there."""

        def found() -> list[Any]:
            return [span for span in self.spans if span.name == name]

        with self._came:
            assert self._came.wait_for(lambda: len(found()) >= count, 60), (name, self.spans)
            return found()

    def stop(self) -> None:
        self._server.stop(None)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


def told(span: Any) -> dict[str, Any]:
    """A span's attributes."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.mark.real
def test_spans_reach_a_collector(collector: Collector, tmp_path: Path) -> None:
    from keyraft.proto import rpc_pb2

    server = Server(
        OURS,
        tmp_path / "data",
        flags=(
            "--enable-distributed-tracing",
            f"--distributed-tracing-address={collector.address}",
            "--distributed-tracing-service-name=orders",
            "--distributed-tracing-instance-id=m1",
        ),
    )
    asked = (("traceparent", f"00-{TRACE}-{CALLER}-01"),)
    unasked = (("traceparent", f"00-{TRACE}-{CALLER}-00"),)
    with serving(server), grpc.insecure_channel(server.endpoint) as channel:

        def call(method: str, request: Any, metadata: Any = asked) -> Any:
            path = f"/etcdserverpb.{method}"
            return channel.unary_unary(path)(request.SerializeToString(), metadata=metadata)

        put = rpc_pb2.PutRequest(key=b"k", value=b"a secret")
        call("KV/Put", put, unasked)  # its caller does not sample
        call("KV/Put", put, ())  # and neither does the member, by its rate
        call("KV/Put", put)
        call("KV/Range", rpc_pb2.RangeRequest(key=b"k", limit=7))
        call("KV/Range", rpc_pb2.RangeRequest(key=b"a", range_end=b"z"))
        operation = rpc_pb2.RequestOp(request_put=put)
        call("KV/Txn", rpc_pb2.TxnRequest(success=[operation]))
        call("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(ID=5, TTL=100))
        with pytest.raises(grpc.RpcError):
            call("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=6))
        watch = channel.stream_stream("/etcdserverpb.Watch/Watch")
        create = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=b"w"))
        answers = watch(iter([create.SerializeToString()]), metadata=asked)
        assert rpc_pb2.WatchResponse.FromString(next(answers)).created
        server.stop()  # sends the last batch
        (above,) = collector.named("etcdserverpb.KV/Put")
        (below,) = collector.named("put")
        ranges = collector.named("range", 2)
        (txn,) = collector.named("txn")
        (lease,) = collector.named("lease_grant")
        (refused,) = collector.named("etcdserverpb.Lease/LeaseRevoke")
        (watched,) = collector.named("watch")
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert above.parent_span_id.hex() == CALLER
    assert below.parent_span_id == above.span_id
    assert above.kind == 2  # a server's
    assert told(above)["rpc.grpc.status_code"] == 0
    assert told(below) == {"key": "k"}
    assert above.start_time_unix_nano <= below.start_time_unix_nano
    assert below.end_time_unix_nano <= above.end_time_unix_nano
    assert [event.name for event in below.events][-1] == "carried out"
    assert len(below.events) == 2
    assert told(ranges[0])["limit"] == 7
    assert told(ranges[1])["range_end"] == "z"
    assert told(txn)["success_first_type"] == "put" and told(txn)["success_len"] == 1
    assert told(lease) == {"id": 5, "ttl": 100}
    assert told(refused)["rpc.grpc.status_code"] == 5
    assert watched.parent_span_id.hex() == CALLER and told(watched)["key"] == "w"
    assert collector.resources[0]["service.name"] == "orders"
    assert collector.resources[0]["service.instance.id"] == "m1"
    assert not any(b"a secret" in span.SerializeToString() for span in collector.spans)


def test_without_the_packages_the_flag_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyraft.app.start_checks import StartError

    for name in [one for one in sys.modules if one.startswith("keyraft.app.tracing")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(StartError, match=r"needs the packages of the extra keyraft\[tracing\]"):
        import keyraft.app.tracing  # noqa: F401


class FakeCall:
    """A unary call as the transport makes it."""

    def __init__(self, **metadata: str) -> None:
        self.metadata = {name.encode(): value.encode() for name, value in metadata.items()}
        self.peer, self.began_s, self.cancelled = "10.0.0.1:5", 0.0, False
        self.on_cancel: Any = None
        self.ticket = b""
        self.answers: list[Any] = []

    def respond(self, message: bytes) -> None:
        self.answers.append(message)

    def fail(self, code: int, text: str) -> None:
        self.answers.append((code, text))


def traced(sampler: Any, handle: Any) -> tuple[Any, Any]:
    """A route whose calls are traced, and where their spans go."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from keyraft.app.tracing.spans import TracedRoutes
    from keyraft.grpc import Router

    spans = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    router = Router()
    route = router.unary("/etcdserverpb.KV/Put", handle)
    TracedRoutes(provider.get_tracer("t")).wrap(router)
    return route, spans


def test_a_client_that_gives_up_ends_its_spans() -> None:
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    given_up: list[Any] = []
    seen: list[Any] = []

    def handle(call: Any, request: bytes) -> None:
        call.ticket = b"stamp"
        call.on_cancel = lambda waiter, code: given_up.append((waiter, code))
        seen.append(call)

    route, spans = traced(ALWAYS_ON, handle)
    call = FakeCall()
    assert route.handle(call, b"\x0a\x01k") is None
    assert call.ticket == b"stamp"
    assert not spans.get_finished_spans()
    call.on_cancel(call, 4)
    assert given_up == [(seen[0], 4)]  # the one that the handler knows
    below, above = spans.get_finished_spans()
    assert (below.name, above.name) == ("put", "etcdserverpb.KV/Put")
    assert above.attributes["rpc.grpc.status_code"] == 4
    assert not above.status.is_ok
    seen[0].respond(b"late")
    assert len(spans.get_finished_spans()) == 2


def test_who_is_not_sampled_meets_the_handler_itself() -> None:
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

    seen: list[Any] = []

    def handle(call: Any, request: bytes) -> bytes:
        seen.append(call)
        return b"done"

    route, spans = traced(ParentBased(ALWAYS_OFF), handle)
    for metadata in ({}, {"traceparent": "nonsense"}, {"traceparent": f"00-{TRACE}-{CALLER}-00"}):
        call = FakeCall(**metadata)
        assert route.handle(call, b"") == b"done"
        assert seen[-1] is call
    assert not spans.get_finished_spans()
    call = FakeCall(traceparent=f"00-{TRACE}-{CALLER}-01", tracestate="a=b")
    assert route.handle(call, b"\xff") == b"done"
    assert [span.name for span in spans.get_finished_spans()] == ["put", "etcdserverpb.KV/Put"]
    assert f"{spans.get_finished_spans()[0].context.trace_id:032x}" == TRACE
