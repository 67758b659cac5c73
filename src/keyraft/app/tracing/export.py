"""Where spans go: batches, sent by a thread of the SDK's to the collector."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Final

from keyraft.app.start_checks import StartError
from keyraft.app.tracing.spans import TracedRoutes
from keyraft.base.log import Logger
from keyraft.base.version import VERSION
from keyraft.config.config import Config
from keyraft.grpc import Router

try:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, TraceIdRatioBased
except ImportError as missing:
    raise StartError(
        f"--enable-distributed-tracing needs the packages of the extra keyraft[tracing]: {missing}"
    ) from None

SAMPLES_OF: Final = 1_000_000  # the flag's rate is per million
EXPORT_S: Final = 5.0  # for the collector to take a batch
CLOSE_S: Final = 2.0  # for the last batch, when the member stops


class Tracing:
    """One member's spans."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def watch(self, router: Router) -> None:
        """From now on the router's calls have spans; before it serves."""
        tracer = self._provider.get_tracer("keyraft", VERSION)
        TracedRoutes(tracer).wrap(router)

    async def close(self) -> None:
        """Sends what is left, for at most CLOSE_S."""
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            loop.call_soon_threadsafe(closed.set)

        threading.Thread(target=shut_down, name="keyraft-tracing-end", daemon=True).start()
        try:
            await asyncio.wait_for(closed.wait(), CLOSE_S)
        except TimeoutError:
            return


def start(config: Config) -> Tracing:
    """With an exporter to `--distributed-tracing-address`."""
    _take_log(config.log)
    exporter = OTLPSpanExporter(
        endpoint=config.distributed_tracing_address, insecure=True, timeout=EXPORT_S
    )
    tracing = tracing_to(exporter, config)
    config.log.debug(
        "distributed tracing enabled",
        address=config.distributed_tracing_address,
        service_name=config.distributed_tracing_service_name,
        service_instance_id=config.distributed_tracing_instance_id,
        sampling_rate=config.distributed_tracing_sampling_rate,
    )
    return tracing


def tracing_to(exporter: SpanExporter, config: Config) -> Tracing:
    """The same with another exporter."""
    named = {SERVICE_NAME: config.distributed_tracing_service_name}
    if config.distributed_tracing_instance_id:
        named[SERVICE_INSTANCE_ID] = config.distributed_tracing_instance_id
    provider = TracerProvider(
        sampler=ParentBased(_sampler(config.distributed_tracing_sampling_rate)),
        resource=Resource.create(named),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


def _sampler(rate: int) -> Sampler:
    return TraceIdRatioBased(rate / SAMPLES_OF) if rate else ALWAYS_OFF


class _ToLog(logging.Handler):
    """Has the SDK's complaints written as lines of the member's log."""

    def __init__(self, log: Logger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """One complaint: mostly that the collector cannot be reached."""
        self._log.warn("distributed tracing", error=record.getMessage())


def _take_log(log: Logger) -> None:
    theirs = logging.getLogger("opentelemetry")
    theirs.handlers = [_ToLog(log)]
    theirs.propagate = False
