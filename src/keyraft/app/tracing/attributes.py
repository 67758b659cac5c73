"""What etcd's spans say of their requests. Keys are told, values never.

Source: etcd `server/etcdserver/v3_server.go`, `api/v3rpc/watch.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from keyraft.proto.lazy import rpc_pb2

KEY_CHARACTERS_MAX: Final = 1_024  # of a key in a span
Attributes = dict[str, str | int | bool]


class Child(NamedTuple):
    """The span below a call's own."""

    name: str
    message: str
    """The class of the request in rpc_pb2."""
    read: Callable[[Any], Attributes]

    def attributes(self, request: bytes) -> Attributes:
        """Those of one request; none of bytes that are no such request."""
        try:
            return self.read(getattr(rpc_pb2, self.message).FromString(request))
        except DecodeError:
            return {}


def _text(key: bytes) -> str:
    return key[:KEY_CHARACTERS_MAX].decode("utf-8", "replace")


def _range(request: Any) -> Attributes:
    return {
        "range_begin": _text(request.key),
        "range_end": _text(request.range_end),
        "rev": request.revision,
        "limit": request.limit,
        "count_only": request.count_only,
        "keys_only": request.keys_only,
    }


def _delete_range(request: Any) -> Attributes:
    return {"range_begin": _text(request.key), "range_end": _text(request.range_end)}


def _txn(request: Any) -> Attributes:
    kind, key, lease = _first(request.success)
    compare = request.compare
    read_only = all(
        one.WhichOneof("request") == "request_range" for one in (*request.success, *request.failure)
    )
    return {
        "compare_first_key": _text(compare[0].key) if compare else "",
        "success_first_key": key,
        "success_first_type": kind,
        "success_first_lease": lease,
        "compare_len": len(compare),
        "success_len": len(request.success),
        "failure_len": len(request.failure),
        "read_only": read_only,
    }


def _first(operations: Sequence[Any]) -> tuple[str, str, int]:
    """Kind, key and lease of the first operation."""
    kind = operations[0].WhichOneof("request") if operations else None
    if kind is None or kind == "request_txn":
        return ("txn" if kind else "unknown"), "", 0
    operation = getattr(operations[0], kind)
    lease = operation.lease if kind == "request_put" else 0
    return kind.removeprefix("request_"), _text(operation.key), lease


CHILDREN: Final[Mapping[str, Child]] = {
    "etcdserverpb.KV/Range": Child("range", "RangeRequest", _range),
    "etcdserverpb.KV/Put": Child("put", "PutRequest", lambda one: {"key": _text(one.key)}),
    "etcdserverpb.KV/DeleteRange": Child("delete_range", "DeleteRangeRequest", _delete_range),
    "etcdserverpb.KV/Txn": Child("txn", "TxnRequest", _txn),
    "etcdserverpb.KV/Compact": Child(
        "compact",
        "CompactionRequest",
        lambda one: {"is_physical": one.physical, "rev": one.revision},
    ),
    "etcdserverpb.Lease/LeaseGrant": Child(
        "lease_grant", "LeaseGrantRequest", lambda one: {"id": one.ID, "ttl": one.TTL}
    ),
    "etcdserverpb.Lease/LeaseRevoke": Child(
        "lease_revoke", "LeaseRevokeRequest", lambda one: {"id": one.ID}
    ),
}
"""Method → the span."""


def watch_attributes(message: bytes) -> Attributes | None:
    """Of a request that creates a watch; None of any other."""
    try:
        request = rpc_pb2.WatchRequest.FromString(message)
    except DecodeError:
        return None
    if request.WhichOneof("request_union") != "create_request":
        return None
    created = request.create_request
    return {
        "key": _text(created.key),
        "range_end": _text(created.range_end),
        "start_rev": created.start_revision,
        "progress_notify": created.progress_notify,
        "prev_kv": created.prev_kv,
        "fragment": created.fragment,
    }
