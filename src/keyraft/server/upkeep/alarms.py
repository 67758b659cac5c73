"""Alarms of members, stored in the database of every member.

An alarm is raised and disarmed through the log, so every member refuses the same requests from the
same entry on: NOSPACE refuses what makes the database grow, CORRUPT refuses everything that reads
or writes keys (etcd `api/v3alarm/alarms.go`, `apply/capped.go`, `apply/corrupt.go`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from keyraft.base.invariants import hold
from keyraft.mvcc.backend import ALARM, Backend, BackendError
from keyraft.proto import rpc_pb2

NONE: Final = 0
NOSPACE: Final = 1
CORRUPT: Final = 2

GET: Final = 0
ACTIVATE: Final = 1
DEACTIVATE: Final = 2

NAMES: Final = {NOSPACE: "NOSPACE", CORRUPT: "CORRUPT"}


class AlarmStore:
    """The raised alarms. Changed by apply only."""

    __slots__ = ("_backend", "_count", "_raised", "any", "corrupt", "nospace")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._raised: set[tuple[int, int]] = set()
        self._count: Counter[int] = Counter()  # by kind
        self.any = False
        self.nospace = False
        self.corrupt = False
        self.load(backend)

    def load(self, backend: Backend) -> None:
        """Reads the alarms again, at the start and after a snapshot has replaced the database.

        Raises BackendError for a record that is none.
        """
        self._backend = backend
        self._raised = set()
        self._count.clear()
        for key, _ in backend.range(ALARM):
            try:
                member = rpc_pb2.AlarmMember.FromString(key)
            except DecodeError as error:
                raise BackendError(f"damaged alarm {bytes(key).hex()}: {error}") from None
            self._raised.add((member.alarm, member.memberID))
            self._count[member.alarm] += 1
        self._look()

    def _look(self) -> None:
        self.any = bool(self._raised)
        self.nospace = self._count[NOSPACE] > 0
        self.corrupt = self._count[CORRUPT] > 0

    def raised(self, kind: int = NONE) -> list[tuple[int, int]]:
        """(kind, member) of all, or of one kind; ascending."""
        return sorted(alarm for alarm in self._raised if kind in (NONE, alarm[0]))

    def is_raised(self, kind: int, member_id: int) -> bool:
        """Whether one alarm is raised."""
        return (kind, member_id) in self._raised

    def apply(self, request: rpc_pb2.AlarmRequest) -> rpc_pb2.AlarmResponse:
        """Carries out an AlarmRequest that came through the log."""
        response = rpc_pb2.AlarmResponse()
        alarm = (request.alarm, request.memberID)
        found: list[tuple[int, int]] = []
        if request.action == GET:
            found = self.raised(request.alarm)
        elif request.action == ACTIVATE and request.alarm != NONE:
            if alarm not in self._raised:
                self._raised.add(alarm)
                self._count[alarm[0]] += 1
                self._backend.put(ALARM, _record(alarm), b"")
            found = [alarm]
        elif request.action == DEACTIVATE and alarm in self._raised:
            self._raised.remove(alarm)
            self._count[alarm[0]] -= 1
            self._backend.delete(ALARM, _record(alarm))
            found = [alarm]
        for kind, member_id in found:
            response.alarms.add(memberID=member_id, alarm=kind)
        self._look()
        return response

    def check(self) -> None:
        """Database, memory and what is asked on the hot path agree. Raises InvariantError."""
        stored = {record for record, _ in self._backend.range(ALARM)}
        held = {_record(alarm) for alarm in self._raised}
        hold(stored == held, "alarms are stored", stored, held)
        kinds = [kind for kind, _ in self._raised]
        hold(+self._count == Counter(kinds), "alarms are counted", self._count, kinds)
        told = (self.any, self.nospace, self.corrupt)
        found = (bool(kinds), NOSPACE in kinds, CORRUPT in kinds)
        hold(told == found, "alarms are told", told, found)

    def texts(self) -> list[str]:
        """As Maintenance.Status lists them."""
        return [
            f"memberID:{member_id} alarm:{NAMES.get(kind, kind)} "
            for kind, member_id in self.raised()
        ]


def _record(alarm: tuple[int, int]) -> bytes:
    return rpc_pb2.AlarmMember(memberID=alarm[1], alarm=alarm[0]).SerializeToString()  # type: ignore[arg-type]  # an enum's number


OfMember = Callable[[int, int], bytes]
"""A request by the kind of alarm and the member's id."""


def activation(kind: int, member_id: int) -> bytes:
    """The request that raises an alarm for a member."""
    request = rpc_pb2.AlarmRequest(action=ACTIVATE, memberID=member_id, alarm=kind)  # type: ignore[arg-type]  # enums' numbers
    return request.SerializeToString()


def deactivation(kind: int, member_id: int) -> bytes:
    """The request that disarms an alarm of a member."""
    request = rpc_pb2.AlarmRequest(action=DEACTIVATE, memberID=member_id, alarm=kind)  # type: ignore[arg-type]
    return request.SerializeToString()
