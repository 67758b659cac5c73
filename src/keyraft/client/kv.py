"""Keys and values: get, put, delete, transactions, compaction.

Answers are etcd's own messages (`keyraft.proto.rpc_pb2`); each has a `header` with the revision at
which it was carried out. Reads are linearizable unless `serializable` is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from keyraft.client.calls import Calls
from keyraft.client.namespace import Namespace
from keyraft.client.requests import (
    Bytes,
    Order,
    SortBy,
    delete_request,
    key_range,
    put_request,
    range_request,
    to_bytes,
)
from keyraft.client.txn import Txn
from keyraft.proto.lazy import mvcc_pb2, rpc_pb2

RANGE: Final = b"/etcdserverpb.KV/Range"
RANGE_STREAM: Final = b"/etcdserverpb.KV/RangeStream"
PUT: Final = b"/etcdserverpb.KV/Put"
DELETE_RANGE: Final = b"/etcdserverpb.KV/DeleteRange"
TXN: Final = b"/etcdserverpb.KV/Txn"
COMPACT: Final = b"/etcdserverpb.KV/Compact"

PAGE_KEYS: Final = 1_000  # `scan` asks for this many at a time


class KV:
    """The key-value calls, under a prefix or not.

    `timeout_s` of every call: None is the client's default, 0 none. Errors: `client.errors`.
    """

    def __init__(self, calls: Calls, prefix: bytes = b"") -> None:
        self._calls = calls
        self._space = Namespace(prefix) if prefix else None

    async def get(
        self,
        key: Bytes,
        range_end: Bytes | None = None,
        *,
        prefix: bool = False,
        from_key: bool = False,
        limit: int = 0,
        revision: int = 0,
        sort_by: SortBy = "",
        order: Order = "",
        serializable: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        min_mod_revision: int = 0,
        max_mod_revision: int = 0,
        min_create_revision: int = 0,
        max_create_revision: int = 0,
        timeout_s: float | None = None,
    ) -> rpc_pb2.RangeResponse:
        """The pairs of a key or a range: `kvs`, `count` without the limit, `more` beyond it."""
        request = range_request(
            key,
            range_end,
            prefix=prefix,
            from_key=from_key,
            limit=limit,
            revision=revision,
            sort_by=sort_by,
            order=order,
            serializable=serializable,
            keys_only=keys_only,
            count_only=count_only,
            min_mod_revision=min_mod_revision,
            max_mod_revision=max_mod_revision,
            min_create_revision=min_create_revision,
            max_create_revision=max_create_revision,
        )
        return await self.range(request, timeout_s)

    async def range(
        self, request: rpc_pb2.RangeRequest, timeout_s: float | None = None
    ) -> rpc_pb2.RangeResponse:
        """Carries out a request that is already built; it is changed when there is a prefix."""
        space = self._space
        if space is not None:
            space.into_range(request)
        response = rpc_pb2.RangeResponse.FromString(
            await self._calls.read(RANGE, request.SerializeToString(), timeout_s)
        )
        if space is not None:
            space.strip_range(response)
        return response

    async def value(self, key: Bytes, *, timeout_s: float | None = None) -> bytes | None:
        """The value of one key, None when there is no such key."""
        response = await self.range(rpc_pb2.RangeRequest(key=to_bytes(key)), timeout_s)
        return response.kvs[0].value if response.kvs else None

    async def scan(
        self,
        key: Bytes,
        range_end: Bytes | None = None,
        *,
        prefix: bool = False,
        from_key: bool = False,
        revision: int = 0,
        keys_only: bool = False,
        page: int = PAGE_KEYS,
    ) -> AsyncIterator[mvcc_pb2.KeyValue]:
        """All pairs of a range in key order, as of one revision, `page` of them in memory.

        CompactedError when that revision is compacted on the way.
        """
        start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
        while True:
            response = await self.get(
                start, end, limit=page, revision=revision, keys_only=keys_only
            )
            revision = revision or response.header.revision
            for kv in response.kvs:
                yield kv
            if not response.more:
                return
            start = response.kvs[-1].key + b"\0"

    async def get_stream(
        self, request: rpc_pb2.RangeRequest
    ) -> AsyncIterator[rpc_pb2.RangeResponse]:
        """A range in several answers (RangeStream, 3.7 and later).

        Raises UnimplementedError from an older server.
        """
        if self._space is not None:
            self._space.into_range(request)
        async for message in self._calls.server_stream(RANGE_STREAM, request.SerializeToString()):
            part = rpc_pb2.RangeStreamResponse.FromString(message).range_response
            if self._space is not None:
                self._space.strip_range(part)
            yield part

    async def put(
        self,
        key: Bytes,
        value: Bytes = b"",
        *,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
        timeout_s: float | None = None,
    ) -> rpc_pb2.PutResponse:
        """Stores a value; `prev_kv` asks for the pair that it replaced."""
        request = put_request(
            key,
            value,
            lease=lease,
            prev_kv=prev_kv,
            ignore_value=ignore_value,
            ignore_lease=ignore_lease,
        )
        space = self._space
        if space is not None:
            space.into_put(request)
        response = rpc_pb2.PutResponse.FromString(
            await self._calls.write(PUT, request.SerializeToString(), timeout_s)
        )
        if space is not None:
            space.strip_put(response)
        return response

    async def delete(
        self,
        key: Bytes,
        range_end: Bytes | None = None,
        *,
        prefix: bool = False,
        from_key: bool = False,
        prev_kv: bool = False,
        timeout_s: float | None = None,
    ) -> rpc_pb2.DeleteRangeResponse:
        """Deletes a key or a range; `deleted` counts the keys."""
        request = delete_request(key, range_end, prefix=prefix, from_key=from_key, prev_kv=prev_kv)
        space = self._space
        if space is not None:
            space.into_range(request)
        response = rpc_pb2.DeleteRangeResponse.FromString(
            await self._calls.write(DELETE_RANGE, request.SerializeToString(), timeout_s)
        )
        if space is not None:
            space.strip_delete(response)
        return response

    def txn(self) -> Txn:
        """Begins a transaction (see `client.txn`)."""
        return Txn(self.commit)

    async def commit(
        self, request: rpc_pb2.TxnRequest, timeout_s: float | None = None
    ) -> rpc_pb2.TxnResponse:
        """Carries out a transaction that is already built; one that only reads may be repeated."""
        space = self._space
        if space is not None:
            request = space.into_txn(request)
        call = self._calls.read if _reads_only(request) else self._calls.write
        response = rpc_pb2.TxnResponse.FromString(
            await call(TXN, request.SerializeToString(), timeout_s)
        )
        if space is not None:
            space.strip_txn(response)
        return response

    async def compact(
        self, revision: int, *, physical: bool = False, timeout_s: float | None = None
    ) -> rpc_pb2.CompactionResponse:
        """Removes versions older than `revision`; `physical` waits until they are deleted."""
        request = rpc_pb2.CompactionRequest(revision=revision, physical=physical)
        return rpc_pb2.CompactionResponse.FromString(
            await self._calls.write(COMPACT, request.SerializeToString(), timeout_s)
        )


def _reads_only(request: rpc_pb2.TxnRequest) -> bool:
    return all(
        operation.WhichOneof("request") == "request_range"
        for operation in (*request.success, *request.failure)
    )
