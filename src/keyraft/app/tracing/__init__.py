"""`--enable-distributed-tracing`: spans of calls for an OpenTelemetry collector.

Loaded only with the flag; needs the extra `keyraft[tracing]`. Each unary call that is sampled has a
span of the server, named by its method, and below it the span that etcd has for such a request
(`put`, `range`, `txn` ...), with etcd's attributes: keys, never values. Its events tell when the
request was proposed to Raft and when it was applied, or read. A W3C `traceparent` in the metadata is
taken over: the caller's decision to sample counts more than `--distributed-tracing-sampling-rate`.
Watches have a span when they are created, as with etcd.

DEVIATION: renewals of leases and RangeStreams have none; theirs are streams of many small messages.
"""

from keyraft.app.tracing.export import Tracing, start

__all__ = ["Tracing", "start"]
