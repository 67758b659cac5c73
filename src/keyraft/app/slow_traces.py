"""The log line "trace", for requests of the KV service that took longer than 100 ms: its steps.

Source: etcd `pkg/traceutil`, `etcdserver/v3_server.go`. A step is told if it took its share of the
100 ms. What a member measures at no cost are two of them: until a read may be answered, or a write
is applied, and what that takes itself. A large answer that is sent in pieces has the time of its
sending with them.

DEVIATION: the original has more steps, and no bound but that of repeating lines.
"""

from __future__ import annotations

from random import SystemRandom
from typing import Any, Final

from google.protobuf.message import DecodeError

from keyraft.app.request_stats import TRACE_S, last_count
from keyraft.base.answer_heads import header_revision
from keyraft.base.clock import WallClock
from keyraft.base.durations import SECOND, format_duration
from keyraft.grpc import CallEnd
from keyraft.logs.zap import Duration, ZapLogger, time_stamp
from keyraft.proto.lazy import rpc_pb2
from keyraft.server import Member

TRACES_PER_S_MAX: Final = 20  # an overloaded member has more to do
_AGREEMENT: Final = "agreement among raft nodes before linearized reading"
_RAFT: Final = "process raft request"
_OK: Final = 0

Fields = dict[str, object]


class SlowTraces:
    """Writes the lines of one member."""

    def __init__(self, log: ZapLogger, wall_clock: WallClock, member: Member) -> None:
        self._log = log
        self._wall_clock = wall_clock
        self._member = member
        self._random = SystemRandom()
        self._second = 0
        self._told = 0

    def report(self, call: CallEnd) -> None:
        """Tells of a call that has ended, if it is one of KV's and was answered."""
        service, _, method = call.path.rpartition("/")
        if service != "/etcdserverpb.KV" or call.code != _OK or method not in _DETAILS:
            return
        now = self._wall_clock()
        if int(now) != self._second:
            self._second, self._told = int(now), 0
        self._told += 1
        if self._told > TRACES_PER_S_MAX:
            return
        operation, last = _NAMES[method]
        try:
            details = _DETAILS[method](call)
        except DecodeError:
            return
        first, split_s = self._split(call, method)
        lasted = [(first, split_s), (last, call.took_s - split_s)]
        steps = [
            f"'{name}'  (duration: {format_duration(round(took_s * SECOND))})"
            for name, took_s in lasted
            if took_s > TRACE_S / (len(lasted) + 1)
        ]
        self._log.info(
            "trace",
            trace_id=self._random.getrandbits(31),
            operation=operation,
            detail="{"
            + "".join(f"{name}:{_shown(value)}; " for name, value in details.items())
            + "}",
            duration=Duration(round(call.took_s * SECOND)),
            start=time_stamp(now - call.took_s),
            end=time_stamp(now),
            steps=steps,
            step_count=len(steps),
        )

    def _split(self, call: CallEnd, method: str) -> tuple[str, float]:
        """The first step, and how long after the request's begin it ended.

        The call ends in the turn of the loop in which it was carried out.
        """
        member = self._member
        began_s = member.loop.time() - call.took_s
        if method == "Range":
            asked_s, read_s = member.counters.request_times.last_read
            here = abs(asked_s - began_s) < 0.001
            return _AGREEMENT, min(read_s - asked_s, call.took_s) if here else 0.0
        return _RAFT, min(max(member.queue.began_s - began_s, 0.0), call.took_s)


def _shown(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value).lower() if isinstance(value, bool) else value


def _revision(call: CallEnd) -> int:
    return header_revision(call.reply or b"")


def _range(call: CallEnd) -> Fields:
    request = rpc_pb2.RangeRequest.FromString(call.request)
    count = last_count(call.reply or b"")
    found = 0 if request.count_only else min(count, request.limit) if request.limit else count
    return {
        "range_begin": request.key,
        "range_end": request.range_end,
        "response_count": found,
        "response_revision": _revision(call),
    }


def _put(call: CallEnd) -> Fields:
    key = rpc_pb2.PutRequest.FromString(call.request).key
    size = len(call.request)
    return {"key": key, "req_size": size, "response_revision": _revision(call)}


def _delete(call: CallEnd) -> Fields:
    request = rpc_pb2.DeleteRangeRequest.FromString(call.request)
    revision = _revision(call)
    return {"key": request.key, "range_end": request.range_end, "response_revision": revision}


def _txn(call: CallEnd) -> Fields:
    request = rpc_pb2.TxnRequest.FromString(call.request)
    branches = [*request.success, *request.failure]
    return {
        "read_only": all(one.HasField("request_range") for one in branches),
        "response_revision": _revision(call),
    }


def _compact(call: CallEnd) -> Fields:
    request = rpc_pb2.CompactionRequest.FromString(call.request)
    return {"revision": request.revision, "response_revision": _revision(call)}


_DETAILS: Final[dict[str, Any]] = {
    "Range": _range,
    "Put": _put,
    "DeleteRange": _delete,
    "Txn": _txn,
    "Compact": _compact,
}
_NAMES: Final = {
    "Range": ("range", "range keys and send them"),
    "Put": ("put", "store the key"),
    "DeleteRange": ("delete_range", "delete the keys"),
    "Txn": ("transaction", "carry out the operations"),
    "Compact": ("compact", "check and update compact revision"),
}
"""Method → the operation, and the step behind the wait for Raft."""
