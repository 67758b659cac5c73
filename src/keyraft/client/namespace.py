"""A namespace: keys get a prefix in requests and lose it in answers (etcd `client/v3/namespace`).

request                     on the wire
[key, "")                   [prefix+key, "")
[key, end)                  [prefix+key, prefix+end)
[key, "\\0") (from key)      [prefix+key, end of prefix)
"""

from __future__ import annotations

from keyraft.client.requests import FROM_KEY, prefix_end
from keyraft.proto.lazy import mvcc_pb2, rpc_pb2


class Namespace:
    """The mapping for one prefix; an empty prefix changes nothing."""

    __slots__ = ("_end", "prefix")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self._end = prefix_end(prefix)

    def range_end(self, end: bytes) -> bytes:
        """`end` on the wire."""
        if not end:
            return b""
        return self._end if end == FROM_KEY else self.prefix + end

    def into_range(self, request: rpc_pb2.RangeRequest | rpc_pb2.DeleteRangeRequest) -> None:
        """Prefixes a request in place; one for an empty key is left for the server to refuse."""
        if not request.key:
            return
        if request.key == FROM_KEY and request.range_end == FROM_KEY:
            request.key = b""
        request.key = self.prefix + request.key
        request.range_end = self.range_end(request.range_end)

    def into_put(self, request: rpc_pb2.PutRequest) -> None:
        """Prefixes a request in place."""
        if request.key:
            request.key = self.prefix + request.key

    def into_txn(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnRequest:
        """A prefixed copy, so that the transaction can be committed again."""
        copy = rpc_pb2.TxnRequest()
        copy.CopyFrom(request)
        self._into_txn(copy)
        return copy

    def _into_txn(self, request: rpc_pb2.TxnRequest) -> None:
        for compare in request.compare:
            if compare.key:
                compare.key = self.prefix + compare.key
                compare.range_end = self.range_end(compare.range_end)
        for operation in (*request.success, *request.failure):
            match operation.WhichOneof("request"):
                case "request_range":
                    self.into_range(operation.request_range)
                case "request_put":
                    self.into_put(operation.request_put)
                case "request_delete_range":
                    self.into_range(operation.request_delete_range)
                case "request_txn":
                    self._into_txn(operation.request_txn)

    def strip(self, kv: mvcc_pb2.KeyValue) -> None:
        """Takes the prefix off in place."""
        kv.key = kv.key[len(self.prefix) :]

    def strip_range(self, response: rpc_pb2.RangeResponse) -> None:
        """Takes the prefix off every key."""
        for kv in response.kvs:
            self.strip(kv)

    def strip_put(self, response: rpc_pb2.PutResponse) -> None:
        """Takes the prefix off the previous pair."""
        if response.HasField("prev_kv"):
            self.strip(response.prev_kv)

    def strip_delete(self, response: rpc_pb2.DeleteRangeResponse) -> None:
        """Takes the prefix off the previous pairs."""
        for kv in response.prev_kvs:
            self.strip(kv)

    def strip_txn(self, response: rpc_pb2.TxnResponse) -> None:
        """Takes the prefix off everything in a transaction's answers."""
        for part in response.responses:
            match part.WhichOneof("response"):
                case "response_range":
                    self.strip_range(part.response_range)
                case "response_put":
                    self.strip_put(part.response_put)
                case "response_delete_range":
                    self.strip_delete(part.response_delete_range)
                case "response_txn":
                    self.strip_txn(part.response_txn)

    def strip_events(self, response: rpc_pb2.WatchResponse) -> None:
        """Takes the prefix off every event."""
        for event in response.events:
            self.strip(event.kv)
            if event.HasField("prev_kv"):
                self.strip(event.prev_kv)
