"""Operations: what Keyraft tells operators and etcd does not; for root while there are users."""

from __future__ import annotations

from keyraft.base.parsing import parse
from keyraft.grpc import Router, UnaryCall
from keyraft.service.guard import Guard
from keyraft.service.ports import Upkeep


class OperationsService:
    """Registered on a router."""

    def __init__(self, upkeep: Upkeep, guard: Guard) -> None:
        self._upkeep = upkeep
        self._guard = guard

    def register(self, router: Router) -> None:
        """Makes the methods callable."""
        router.unary("/keyraftpb.Operations/Usage", self.usage)

    def usage(self, call: UnaryCall, request: bytes) -> bytes | None:
        """UsageRequest -> UsageResponse."""
        from keyraft.proto import operations_pb2  # asked for seldom

        self._guard.admit(call, learner_may=True)
        self._guard.check_admin(call)
        self._upkeep.usage(call, parse(operations_pb2.UsageRequest, request))
        return None
