"""Sends one generator's operations to two servers in step and stops at the first difference."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import grpc

from keyraft.proto import rpc_pb2
from tests.differential.compare import Answer, answer_of, difference, everything, hash_operation
from tests.differential.operations import KV, Generator, Operation
from tests.differential.watching import WATCH, Watches

CALL_TIMEOUT_S = 30.0
WATCH_SHARE = 0.08  # of the operations with watches


class Client:
    """Raw-bytes calls over grpcio, which no line of Keyraft's own takes part in."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(
            endpoint, options=[("grpc.max_send_message_length", -1)]
        )
        self._stubs: dict[str, grpc.UnaryUnaryMultiCallable] = {}

    def call(self, operation: Operation) -> Answer:
        """The answer to one operation."""
        stub = self._stubs.get(operation.method)
        if stub is None:
            stub = self._stubs[operation.method] = self._channel.unary_unary(operation.method)
        try:
            return answer_of(operation.method, stub(operation.request, timeout=CALL_TIMEOUT_S))
        except grpc.RpcError as error:
            return Answer(None, error.code().value[0], error.details())

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()


@dataclass
class Report:
    """What a run has seen: how many of each call, each error text, each known difference."""

    operations: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    watches: int = 0
    events: int = 0
    difference: str = ""

    def __str__(self) -> str:
        lines = [f"{self.operations} operations"]
        if self.watches:
            lines.append(f"  {self.watches} watches, {self.events} events compared")
        for name, counts in (
            ("calls", self.calls),
            ("errors", self.errors),
            ("known differences", self.excused),
        ):
            lines.append(f"  {name}:")
            lines += [f"    {count:6} {what}" for what, count in counts.most_common()]
        return "\n".join([*lines, self.difference])


def run(seed: int, count: int, original: str, ours: str, with_leases: bool = False) -> Report:
    """Runs `count` operations of a seed against two endpoints, both empty at the start."""
    generator = Generator(seed, with_leases)
    report = Report()
    left, right = Client(original), Client(ours)
    try:
        for number in range(count):
            operation = generator.next()
            if not _step(operation, left, right, generator, report):
                report.difference = f"seed {seed}, operation {number}: {report.difference}"
                return report
        for operation in (everything(), hash_operation()):
            if not _step(operation, left, right, generator, report):
                report.difference = f"seed {seed}, at the end: {report.difference}"
    finally:
        left.close()
        right.close()
    return report


def run_with_watches(seed: int, count: int, original: str, ours: str) -> Report:
    """As `run`, with leases, and with watches that come and go beside the operations."""
    generator = Generator(seed, with_leases=True)
    report = Report()
    left, right = Client(original), Client(ours)
    watches = Watches(generator, original, ours)
    try:
        for number in range(count):
            if generator.random.random() < WATCH_SHARE:
                report.operations += 1
                report.calls[WATCH] += 1
                report.difference = watches.act()
            else:
                operation = generator.next()
                if operation.method == KV + "Compact":
                    report.difference = watches.settle()
                if not report.difference:
                    _step(operation, left, right, generator, report)
            if report.difference:
                report.difference = f"seed {seed}, operation {number}: {report.difference}"
                return report
        report.difference = watches.settle()
        for operation in (everything(), hash_operation()):
            if not report.difference:
                _step(operation, left, right, generator, report)
        report.events = watches.compared_events
        report.watches = watches.created
    finally:
        watches.close()
        left.close()
        right.close()
    return report


def _step(
    operation: Operation, left: Client, right: Client, generator: Generator, report: Report
) -> bool:
    original, ours = left.call(operation), right.call(operation)
    report.operations += 1
    report.calls[operation.method] += 1
    if original.message is None:
        report.errors[f"{original.code} {original.text[:90]}"] += 1
    differs, excuse = difference(operation, original, ours)
    if excuse:
        report.excused[excuse] += 1
    if differs:
        report.difference = f"{operation}\n--- original\n{original}\n--- ours\n{ours}"
        return False
    _learn(operation, original, generator)
    return True


def _learn(operation: Operation, answer: Answer, generator: Generator) -> None:
    known = generator.known
    header = getattr(answer.message, "header", None)
    if header is not None:
        known.revision = max(known.revision, header.revision)
    if operation.method == KV + "Compact" and answer.message is not None:
        request = operation.message
        assert isinstance(request, rpc_pb2.CompactionRequest)
        known.compacted = max(known.compacted, request.revision)
