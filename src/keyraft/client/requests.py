"""The key-value requests, built from plain arguments; shared by calls, transactions and etcdctl.

Keys and values are bytes; text is taken as UTF-8. Ranges are half-open, [key, range_end); two
forms have an argument of their own: `prefix` (all keys that begin with `key`) and `from_key` (all
keys at or after `key`). An empty key with `prefix` means every key.
"""

from __future__ import annotations

from typing import Final, Literal

from keyraft.proto.lazy import rpc_pb2

Bytes = bytes | str
SortBy = Literal["", "key", "version", "create", "mod", "value"]
Order = Literal["", "ascend", "descend"]

FROM_KEY: Final = b"\0"
_TARGETS: Final = {
    "": "KEY",
    "key": "KEY",
    "version": "VERSION",
    "create": "CREATE",
    "mod": "MOD",
    "value": "VALUE",
}
_ORDERS: Final = {"": "NONE", "ascend": "ASCEND", "descend": "DESCEND"}


def to_bytes(value: Bytes) -> bytes:
    """`value` as the bytes that are stored."""
    return value if isinstance(value, bytes) else value.encode()


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix`; FROM_KEY when there is none."""
    trimmed = prefix.rstrip(b"\xff")
    if not trimmed:
        return FROM_KEY
    return trimmed[:-1] + bytes((trimmed[-1] + 1,))


def key_range(
    key: Bytes, range_end: Bytes | None = None, *, prefix: bool = False, from_key: bool = False
) -> tuple[bytes, bytes]:
    """(key, range_end) of the wire; ValueError when more than one form of range is asked for."""
    start = to_bytes(key)
    if prefix + from_key + (range_end is not None) > 1:
        raise ValueError("range_end, prefix and from_key exclude each other")
    if prefix:
        return (start, prefix_end(start)) if start else (FROM_KEY, FROM_KEY)
    if from_key:
        return start or FROM_KEY, FROM_KEY
    return start, b"" if range_end is None else to_bytes(range_end)


def range_request(
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
) -> rpc_pb2.RangeRequest:
    """A read; `revision` 0 is the newest, `limit` 0 is no limit."""
    start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
    if sort_by and not order:
        order = "ascend"
    if order == "ascend" and _TARGETS[sort_by] == "KEY":
        order = ""  # the server returns keys in this order anyway
    return rpc_pb2.RangeRequest(
        key=start,
        range_end=end,
        limit=limit,
        revision=revision,
        sort_order=_ORDERS[order],
        sort_target=_TARGETS[sort_by],
        serializable=serializable,
        keys_only=keys_only,
        count_only=count_only,
        min_mod_revision=min_mod_revision,
        max_mod_revision=max_mod_revision,
        min_create_revision=min_create_revision,
        max_create_revision=max_create_revision,
    )


def put_request(
    key: Bytes,
    value: Bytes = b"",
    *,
    lease: int = 0,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
) -> rpc_pb2.PutRequest:
    """A write; `ignore_value` and `ignore_lease` keep what the key has."""
    return rpc_pb2.PutRequest(
        key=to_bytes(key),
        value=to_bytes(value),
        lease=lease,
        prev_kv=prev_kv,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )


def delete_request(
    key: Bytes,
    range_end: Bytes | None = None,
    *,
    prefix: bool = False,
    from_key: bool = False,
    prev_kv: bool = False,
) -> rpc_pb2.DeleteRangeRequest:
    """A deletion of one key or a range."""
    start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
    return rpc_pb2.DeleteRangeRequest(key=start, range_end=end, prev_kv=prev_kv)
