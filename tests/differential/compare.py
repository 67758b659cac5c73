"""What two answers must have in common, and the differences from 3.5.1 that are known by name.

Masked are identifiers and the term: they follow from ports and elections. Everything else,
revisions, counts, hashes, codes and texts, must be equal. Where the original changed between
3.5.1 and 3.7.1, Keyraft follows 3.7.1; each such change is an entry of `KNOWN`, with its source,
and excuses exactly the pair of answers that it describes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c
from google.protobuf.message import Message

from keyraft.proto import mvcc_pb2 as kv_pb2
from keyraft.proto import rpc_pb2
from tests.differential.operations import KV, LEASE, MAINTENANCE, RESPONSES, Operation


@dataclass(frozen=True)
class Answer:
    """A response message, or a status: its code and text."""

    message: Message | None
    code: int = 0
    text: str = ""

    def __str__(self) -> str:
        if self.message is not None:
            return str(self.message)[:4000]
        return f"error {self.code}: {self.text}"


def answer_of(method: str, response: bytes) -> Answer:
    """A response's answer, identifiers masked."""
    message = RESPONSES[method].FromString(response)
    header = getattr(message, "header", None)
    if header is not None and message.HasField("header"):
        header.ClearField("cluster_id")
        header.ClearField("member_id")
        header.ClearField("raft_term")
    return Answer(message)


@dataclass(frozen=True)
class Known:
    """A change of the original after 3.5.1: when it applies to an operation and two answers."""

    name: str
    source: str
    applies: Callable[[Operation, Answer, Answer], bool]


def _invalid_sort(operation: Operation, original: Answer, ours: Answer) -> bool:
    return (
        (ours.code, ours.text) == (3, "etcdserver: invalid sort option")
        and operation.message is not None
        and _any_range(operation.message, lambda get: get.sort_order > 2 or get.sort_target > 4)
    )


def _hash_at_compaction(operation: Operation, original: Answer, ours: Answer) -> bool:
    request = operation.message
    return (
        isinstance(request, rpc_pb2.HashKVRequest)
        and isinstance(ours.message, rpc_pb2.HashKVResponse)
        and (original.code, original.text)
        == (11, "etcdserver: mvcc: required revision has been compacted")
        and ours.message.hash_revision == request.revision
    )


def _hash_revision(operation: Operation, original: Answer, ours: Answer) -> bool:
    left, right = original.message, ours.message
    if not (isinstance(left, rpc_pb2.HashKVResponse) and isinstance(right, rpc_pb2.HashKVResponse)):
        return False
    masked = rpc_pb2.HashKVResponse()
    masked.CopyFrom(right)
    masked.ClearField("hash_revision")
    return masked == left


def _hash_of_nothing(operation: Operation, original: Answer, ours: Answer) -> bool:
    left, right = original.message, ours.message
    if not (isinstance(left, rpc_pb2.HashKVResponse) and isinstance(right, rpc_pb2.HashKVResponse)):
        return False
    nothing = (crc32c(b"key"), -1, 0)
    return (left.hash, left.compact_revision, left.hash_revision) == nothing and (
        right.hash_revision == right.header.revision == left.header.revision
    )


def _malformed(operation: Operation, original: Answer, ours: Answer) -> bool:
    """The code and gRPC's own words must be equal; what follows is the decoder's own."""
    prefix = "grpc: error unmarshalling request: "
    return (
        operation.message is None
        and original.code == ours.code == 13
        and ours.text.startswith(prefix)
        and original.text.startswith(prefix)
    )


def _malformed_method(operation: Operation, original: Answer, ours: Answer) -> bool:
    return (
        original.text == ours.text
        and original.text.startswith("malformed method name: ")
        and (original.code, ours.code) == (8, 12)
    )


def _ties(operation: Operation, original: Answer, ours: Answer) -> bool:
    """Pairs that sort alike may come in any order, and a limit may cut any of them off."""
    if original.message is None or ours.message is None or operation.message is None:
        return False
    if not _any_range(operation.message, lambda get: bool(get.sort_order or get.sort_target)):
        return False
    left = _untied(operation.message, original.message)
    return left == _untied(operation.message, ours.message)


def _first_fault(operation: Operation, original: Answer, ours: Answer) -> bool:
    return (
        isinstance(operation.message, rpc_pb2.TxnRequest)
        and (original.code, original.text)
        in ((3, "etcdserver: key not found"), (5, "etcdserver: requested lease not found"))
        and (ours.code, ours.text)
        in (
            (11, "etcdserver: mvcc: required revision is a future revision"),
            (11, "etcdserver: mvcc: required revision has been compacted"),
            (5, "etcdserver: requested lease not found"),
        )
    )


KNOWN: Final = (
    Known(
        "a transaction is refused for its first faulty operation",
        "3.5.1 looked at all puts before all ranges, and at keys before leases; 3.7 txn.checkTxn",
        _first_fault,
    ),
    Known(
        "pairs that sort alike come in no promised order",
        "Go's sort.Sort is not stable, and another algorithm since Go 1.19; ours is stable",
        _ties,
    ),
    Known(
        "a path that is no method is Unimplemented, no longer ResourceExhausted",
        "grpc-go of etcd 3.7, server.handleStream: codes.Unimplemented",
        _malformed_method,
    ),
    Known(
        "an unknown sort order or target is refused",
        "CHANGELOG-3.6: 'Return ErrInvalidSortOption'; etcd server/etcdserver/api/v3rpc/key.go",
        _invalid_sort,
    ),
    Known(
        "HashKV at exactly the compacted revision is allowed",
        "CHANGELOG-3.5: 3.5.10; etcd server/storage/mvcc/kvstore.go, hashByRev",
        _hash_at_compaction,
    ),
    Known(
        "HashKV tells the revision it was taken at",
        "3.6: HashKVResponse.hash_revision",
        _hash_revision,
    ),
    Known(
        "HashKV without a revision is not that of an earlier compaction at revision 0",
        "hashStorage.HashByRev of 3.5.5 to 3.7.1 finds the one kept for it, DEVIATION",
        _hash_of_nothing,
    ),
    Known(
        "bytes that are no message are refused in the decoder's own words",
        "another protobuf library; gRPC's code and prefix are compared",
        _malformed,
    ),
)


def difference(operation: Operation, original: Answer, ours: Answer) -> tuple[bool, str]:
    """Whether the answers differ without excuse, and the name of the excuse otherwise."""
    if (original.code, original.text) == (ours.code, ours.text):
        if _mask(operation, original.message) == _mask(operation, ours.message):
            return False, ""
    for known in KNOWN:
        if known.applies(operation, original, ours):
            return False, known.name
    return True, ""


def _mask(operation: Operation, message: Message | None) -> Message | None:
    """Remaining seconds run on, and a lease's keys come in no order in the original."""
    if message is not None and operation.method == LEASE + "LeaseTimeToLive":
        masked = rpc_pb2.LeaseTimeToLiveResponse()
        masked.CopyFrom(message)
        masked.TTL = min(masked.TTL, 1)
        keys = sorted(masked.keys)
        del masked.keys[:]
        masked.keys.extend(keys)
        return masked
    return message


def _any_range(message: Message, wanted: Callable[[rpc_pb2.RangeRequest], bool]) -> bool:
    if isinstance(message, rpc_pb2.RangeRequest):
        return wanted(message)
    if isinstance(message, rpc_pb2.TxnRequest):
        for op in (*message.success, *message.failure):
            if op.HasField("request_range") and wanted(op.request_range):
                return True
            if op.HasField("request_txn") and _any_range(op.request_txn, wanted):
                return True
    return False


def _untied(request: Message, response: Message) -> Message:
    """The response with pairs that sort alike in the order of their keys.

    Of pairs that a limit may have cut a group of, only what they were sorted by is kept.
    """
    result = type(response)()
    result.CopyFrom(response)
    if isinstance(request, rpc_pb2.RangeRequest) and isinstance(result, rpc_pb2.RangeResponse):
        sorted_by = _SORTED_BY[request.sort_target]
        pairs = sorted(result.kvs, key=lambda pair: pair.key)
        pairs.sort(key=sorted_by, reverse=request.sort_order == rpc_pb2.RangeRequest.DESCEND)
        assert [sorted_by(pair) for pair in pairs] == [sorted_by(pair) for pair in result.kvs]
        del result.kvs[:]
        for pair in pairs:
            kept = result.kvs.add()
            if result.more and sorted_by(pair) == sorted_by(pairs[-1]):
                kept.value = str(sorted_by(pair)).encode()
            else:
                kept.CopyFrom(pair)
    elif isinstance(request, rpc_pb2.TxnRequest) and isinstance(result, rpc_pb2.TxnResponse):
        branch = request.success if result.succeeded else request.failure
        for op, answer in zip(branch, result.responses, strict=True):
            if op.HasField("request_range"):
                untied = _untied(op.request_range, answer.response_range)
                answer.response_range.CopyFrom(untied)
            elif op.HasField("request_txn"):
                answer.response_txn.CopyFrom(_untied(op.request_txn, answer.response_txn))
    return result


_SORTED_BY: Final[dict[int, Callable[[kv_pb2.KeyValue], bytes | int]]] = {
    rpc_pb2.RangeRequest.KEY: lambda pair: pair.key,
    rpc_pb2.RangeRequest.VERSION: lambda pair: pair.version,
    rpc_pb2.RangeRequest.CREATE: lambda pair: pair.create_revision,
    rpc_pb2.RangeRequest.MOD: lambda pair: pair.mod_revision,
    rpc_pb2.RangeRequest.VALUE: lambda pair: pair.value,
}


def hash_operation(revision: int = 0) -> Operation:
    """HashKV, as the end of a run."""
    request = rpc_pb2.HashKVRequest(revision=revision)
    return Operation(MAINTENANCE + "HashKV", request.SerializeToString(), request)


def everything() -> Operation:
    """A range over the whole keyspace."""
    request = rpc_pb2.RangeRequest(key=b"\x00", range_end=b"\x00")
    return Operation(KV + "Range", request.SerializeToString(), request)
