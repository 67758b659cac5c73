"""The log line "request stats", for requests slower than `--warning-unary-request-duration`.

At level debug every unary request has one (etcd `api/v3rpc/interceptor.go`). Sizes and counts are
given for the KV methods, -1 for others. Values are never shown, only their sizes.

Answers are not parsed, because one of a hundred megabytes would hold up the loop. The count is the
field right behind the header, or the last field of a RangeResponse.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from keyraft.base.answer_heads import header_end, second_number
from keyraft.base.clock import WallClock
from keyraft.base.gotext import quote
from keyraft.base.varints import read_varint
from keyraft.grpc import UNARY, CallEnd, Router
from keyraft.logs.zap import Duration, ZapLogger, time_stamp
from keyraft.proto.lazy import rpc_pb2

TRACE_S: Final = (
    0.1  # etcd traceThreshold: slower requests have a line "trace", steps a share of it
)
CONTENT_CHARACTERS_MAX: Final = 4_096  # of a request in the line; the rest is cut
_RANGE_COUNT: Final = 0x20
_KV: Final = "/etcdserverpb.KV/"


class RequestStats:
    """Writes the line."""

    def __init__(self, log: ZapLogger, wall_clock: WallClock) -> None:
        self._log = log
        self._wall_clock = wall_clock
        self._slow_s = 0.0

    def watch(self, router: Router, slow_s: float) -> None:
        """Listens to the ends of the router's calls; before it serves."""
        self._router = router
        self._slow_s = slow_s
        self.follow_level()

    def follow_level(self) -> None:
        """The level of the log may have changed: connections made from now on tell of all their
        calls, or of slow ones only."""
        self._router.ends.leave(self.report)
        self._router.ends.listen(
            self.report, 0.0 if self._log.is_enabled("debug") else self._slow_s
        )

    def report(self, call: CallEnd) -> None:
        """Reports a call that has ended. Streams and unknown methods have no such line."""
        if call.route is None or call.route.kind != UNARY:
            return
        write = self._log.debug
        if not self._log.is_enabled("debug"):
            if call.took_s < self._slow_s:
                return  # of a connection made while the level was debug
            write = self._log.warn
        asked, request_bytes, counted, reply_bytes, content = _measure(call)
        write(
            "request stats",
            **{
                "start time": time_stamp(self._wall_clock() - call.took_s),
                "time spent": Duration(round(call.took_s * 1e9)),
                "remote": call.peer,
                "response type": call.path,
                "request count": asked,
                "request size": request_bytes,
                "response count": counted,
                "response size": reply_bytes,
                "request content": content,
            },
        )


def _measure(call: CallEnd) -> tuple[int, int, int, int, str]:
    """Counts and sizes of request and answer, and the request as text."""
    reply = call.reply
    sent = 0 if reply is None else len(reply)
    size = len(call.request)
    method = call.path.removeprefix(_KV)
    if method == "Range":
        counted = 0 if reply is None else last_count(reply)
        return 0, size, counted, sent, _content(rpc_pb2.RangeRequest(), call.request)
    if method == "Put":
        return 1, size, 0, sent, _content(rpc_pb2.PutRequest(), call.request)
    if method == "DeleteRange":
        counted = 0 if reply is None else second_number(reply)
        return 0, size, counted, sent, _content(rpc_pb2.DeleteRangeRequest(), call.request)
    if method == "Txn":
        txn = rpc_pb2.TxnRequest()
        content = _content(txn, call.request)
        if reply is None:
            return 0, 0, 0, 0, content
        branch = txn.success if second_number(reply) else txn.failure
        return len(branch), sum(one.ByteSize() for one in branch), 0, sent, content
    return -1, -1, -1, -1, ""


def last_count(reply: bytes) -> int:
    """RangeResponse.count, the last field if it is there at all."""
    first = header_end(reply)
    at = len(reply) - 1
    while at > first and reply[at - 1] & 0x80:
        at -= 1
    return (
        read_varint(reply, at, len(reply))[0] if at > first and reply[at - 1] == _RANGE_COUNT else 0
    )


def _content(message: Message, request: bytes) -> str:
    try:
        message.ParseFromString(request)
    except DecodeError:
        return ""
    pieces: list[str] = []
    _describe(message, pieces, CONTENT_CHARACTERS_MAX)
    text = " ".join(pieces)
    return text if len(text) <= CONTENT_CHARACTERS_MAX else text[:CONTENT_CHARACTERS_MAX] + "..."


def _describe(message: Message, pieces: list[str], left: int) -> int:
    """`name:value` for each field that is set; how many characters may still come."""
    for field, value in message.ListFields():
        for one in value if field.is_repeated else (value,):
            if left <= 0:
                return left
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                inside: list[str] = []
                left = _describe(one, inside, left)
                pieces.append(f"{field.name}:<{' '.join(inside)}>")
                continue
            if field.name == "value":
                text = f"value_size:{len(one)}"
            elif field.type == FieldDescriptor.TYPE_BYTES:
                text = f"{field.name}:{quote(one[:left])}"
            elif field.type == FieldDescriptor.TYPE_ENUM:
                named = field.enum_type.values_by_number if field.enum_type else {}
                text = f"{field.name}:{named[one].name if one in named else one}"
            else:
                text = f"{field.name}:{str(one).lower()}"
            pieces.append(text)
            left -= len(text) + 1
    return left
