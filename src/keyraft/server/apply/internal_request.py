"""The content of a normal log entry: a client's request bytes inside an InternalRaftRequest.

A proposal is `tag(kind) length request  tag(100) length header`, so the request's bytes enter the
log as they came from the network and leave it the same way. The part behind the request, the
*stamp*, holds the request id; our own proposals come back from the log byte for byte, so the stamp
itself is the key under which the proposer waits and no id is ever decoded on the hot path.

Entries of other implementations may order or encode their fields differently; `parse` reads all.
Layout: etcd `api/etcdserverpb/raft_internal.proto`; requests of the v2 API, which members up to 3.5
put into the log for their own attributes, are told apart by field 2 (see `is_v2`).
"""

from __future__ import annotations

from typing import Final

from keyraft.auth import Identity
from keyraft.base.ids import RequestIDGenerator
from keyraft.base.protofields import fields
from keyraft.base.varints import LOW, LOW_BITS, LOW_MASK, CodecError, read_varint
from keyraft.base.varints import encode_varint as varint

KIND_V2: Final = 2  # a Request of the v2 API; see `v2_requests`
KIND_RANGE: Final = 3
KIND_PUT: Final = 4
KIND_DELETE_RANGE: Final = 5
KIND_TXN: Final = 6
KIND_COMPACTION: Final = 7
KIND_LEASE_GRANT: Final = 8
KIND_LEASE_REVOKE: Final = 9
KIND_ALARM: Final = 10
KIND_LEASE_CHECKPOINT: Final = 11
KIND_AUTH_ENABLE: Final = 1000
KIND_AUTH_DISABLE: Final = 1011
KIND_AUTHENTICATE: Final = 1012
KIND_AUTH_STATUS: Final = 1013
KIND_AUTH_USER_ADD: Final = 1100
KIND_AUTH_USER_DELETE: Final = 1101
KIND_AUTH_USER_GET: Final = 1102
KIND_AUTH_USER_CHANGE_PASSWORD: Final = 1103
KIND_AUTH_USER_GRANT_ROLE: Final = 1104
KIND_AUTH_USER_REVOKE_ROLE: Final = 1105
KIND_AUTH_USER_LIST: Final = 1106
KIND_AUTH_ROLE_LIST: Final = 1107
KIND_AUTH_ROLE_ADD: Final = 1200
KIND_AUTH_ROLE_DELETE: Final = 1201
KIND_AUTH_ROLE_GET: Final = 1202
KIND_AUTH_ROLE_GRANT_PERMISSION: Final = 1203
KIND_AUTH_ROLE_REVOKE_PERMISSION: Final = 1204
KIND_CLUSTER_VERSION_SET: Final = 1300
KIND_CLUSTER_MEMBER_ATTR_SET: Final = 1301
KIND_DOWNGRADE_INFO_SET: Final = 1302
KIND_DOWNGRADE_VERSION_TEST: Final = 9900

KINDS: Final = {
    KIND_RANGE: "Range",
    KIND_PUT: "Put",
    KIND_DELETE_RANGE: "DeleteRange",
    KIND_TXN: "Txn",
    KIND_COMPACTION: "Compaction",
    KIND_LEASE_GRANT: "LeaseGrant",
    KIND_LEASE_REVOKE: "LeaseRevoke",
    KIND_ALARM: "Alarm",
    KIND_LEASE_CHECKPOINT: "LeaseCheckpoint",
    KIND_AUTH_ENABLE: "AuthEnable",
    KIND_AUTH_DISABLE: "AuthDisable",
    KIND_AUTHENTICATE: "Authenticate",
    KIND_AUTH_STATUS: "AuthStatus",
    KIND_AUTH_USER_ADD: "AuthUserAdd",
    KIND_AUTH_USER_DELETE: "AuthUserDelete",
    KIND_AUTH_USER_GET: "AuthUserGet",
    KIND_AUTH_USER_CHANGE_PASSWORD: "AuthUserChangePassword",
    KIND_AUTH_USER_GRANT_ROLE: "AuthUserGrantRole",
    KIND_AUTH_USER_REVOKE_ROLE: "AuthUserRevokeRole",
    KIND_AUTH_USER_LIST: "AuthUserList",
    KIND_AUTH_ROLE_LIST: "AuthRoleList",
    KIND_AUTH_ROLE_ADD: "AuthRoleAdd",
    KIND_AUTH_ROLE_DELETE: "AuthRoleDelete",
    KIND_AUTH_ROLE_GET: "AuthRoleGet",
    KIND_AUTH_ROLE_GRANT_PERMISSION: "AuthRoleGrantPermission",
    KIND_AUTH_ROLE_REVOKE_PERMISSION: "AuthRoleRevokePermission",
    KIND_CLUSTER_VERSION_SET: "ClusterVersionSet",
    KIND_CLUSTER_MEMBER_ATTR_SET: "ClusterMemberAttrSet",
    KIND_DOWNGRADE_INFO_SET: "DowngradeInfoSet",
    KIND_DOWNGRADE_VERSION_TEST: "DowngradeVersionTest",
}
"""Field number -> the name that metrics and logs use (etcd `getRequestType`)."""

_HEADER_FIELD: Final = 100
_HEADER_TAG: Final = b"\xa2\x06"


class MalformedEntryError(Exception):
    """The bytes are no InternalRaftRequest."""


_TAGS: Final = {kind: varint(kind << 3 | 2) for kind in (KIND_V2, *KINDS)}


PROPOSERS_MAX: Final = 4_096  # users whose part of a header is remembered


class Stamper:
    """Makes stamps: encoded RequestHeaders, each with an id of its own.

    The upper bits of an id change once in 16,384 requests, so their encoding is kept.
    """

    __slots__ = ("_head", "_high", "_high_bytes", "_ids", "_last", "_last_parts", "_proposers")

    def __init__(self, ids: RequestIDGenerator) -> None:
        self._ids = ids
        self._proposers: dict[tuple[bytes, int], tuple[bytes, bytes]] = {}
        self._last: Identity | None = None  # the last proposer, and its bytes
        self._last_parts = (b"", b"")
        self._high = -1
        self._high_bytes = b""
        self._head = b""

    def stamp(self) -> bytes:
        """The header of a request without a user (authentication is off)."""
        ident = self._ids.next()
        high = ident >> LOW_BITS
        if high != self._high:
            self._begin(high)
        return self._head + LOW[ident & LOW_MASK] + self._high_bytes

    def stamp_for(self, caller: Identity) -> bytes:
        """The header of a request by a user, with the revision at which it was identified."""
        ident = self._ids.next()
        high = ident >> LOW_BITS
        if high != self._high:
            self._begin(high)
        if caller is not self._last:
            self._last = caller
            self._last_parts = self._parts(caller.username, caller.revision)
        before, behind = self._last_parts
        return before + LOW[ident & LOW_MASK] + behind

    def _begin(self, high: int) -> None:
        self._high = high
        self._high_bytes = varint(high)
        self._head = _HEADER_TAG + bytes((3 + len(self._high_bytes), 0x08))
        self._proposers.clear()
        self._last = None

    def _parts(self, username: bytes, auth_revision: int) -> tuple[bytes, bytes]:
        """The bytes before the id's low bits, and those behind them."""
        parts = self._proposers.get((username, auth_revision))
        if parts is not None:
            return parts
        behind = self._high_bytes
        if username:
            behind += b"\x12" + varint(len(username)) + username
        if auth_revision:
            behind += b"\x18" + varint(auth_revision)
        if len(self._proposers) >= PROPOSERS_MAX:
            self._proposers.clear()
        parts = _HEADER_TAG + varint(3 + len(behind)) + b"\x08", behind
        self._proposers[username, auth_revision] = parts
        return parts

    def next_id(self) -> int:
        """An id alone, for read index rounds and leases."""
        return self._ids.next()


def wrap(kind: int, request: bytes, stamp: bytes) -> bytes:
    """The entry's data."""
    return b"".join((_TAGS[kind], varint(len(request)), request, stamp))


def split(data: bytes) -> tuple[int, bytes, bytes] | None:
    """(kind, request, stamp) of an entry in our own layout with a kind below 16, else None."""
    tag = data[0]
    if tag & 0x87 != 2:  # one byte, length-delimited
        return None
    size = len(data)
    if size < 2:
        return None
    length = data[1]
    at = 2
    if length >= 0x80:
        if size < 3:
            return None
        high = data[2]
        at = 3
        length = length & 0x7F | (high & 0x7F) << 7
        if high >= 0x80:
            try:
                length, at = read_varint(data, 1, len(data))
            except CodecError:
                return None
    end = at + length
    if data[end : end + 2] != _HEADER_TAG or tag == 0x12:
        return None
    # The header must be the last field, or another request could hide behind the stamp.
    if end + 3 > size or data[end + 2] != size - end - 3:
        return None
    return tag >> 3, data[at:end], data[end:]


ID_LOW_END: Final = 6  # in a stamp: behind the id's low bits


def proposer_part(stamp: bytes) -> bytes | None:
    """What follows the low bits of the id in a stamp that `split` has found.

    Two stamps with the same have the same proposer, name and revision. The ids of one member differ
    elsewhere once in 16,384 requests. None when the header does not begin with an id of 15 bits or
    more.
    """
    part = stamp[ID_LOW_END:]
    if part and stamp[3] == 8 and stamp[4] & stamp[5] & 0x80:
        return part
    return None


class Parsed:
    """An entry taken apart field by field."""

    __slots__ = ("auth_revision", "ident", "kind", "request", "stamp", "username")

    def __init__(self) -> None:
        self.kind = 0
        self.request = b""
        self.stamp = b""
        self.ident = 0
        self.username = b""
        self.auth_revision = 0


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    try:
        return fields(data)
    except CodecError as error:
        raise MalformedEntryError(str(error)) from None


def parse(data: bytes) -> Parsed:
    """Parses an entry of any implementation; raises MalformedEntryError."""
    parsed = Parsed()
    bare_id = 0
    rank = 1 << 30
    for number, value in _fields(data):
        if number == _HEADER_FIELD and isinstance(value, bytes):
            parsed.stamp = _HEADER_TAG + varint(len(value)) + value
            for inner, content in _fields(value):
                if inner == 1 and isinstance(content, int):
                    parsed.ident = content
                elif inner == 2 and isinstance(content, bytes):
                    parsed.username = content
                elif inner == 3 and isinstance(content, int):
                    parsed.auth_revision = content
        elif number == 1 and isinstance(value, int):
            bare_id = value
        elif number in KINDS and isinstance(value, bytes):
            # Of several requests the original takes membership requests first, then the lowest
            # number.
            order = number - 10_000 if number >= KIND_CLUSTER_VERSION_SET else number
            if order < rank:
                rank, parsed.kind, parsed.request = order, number, value
    if bare_id:
        parsed.ident = bare_id
    return parsed


def is_v2(data: bytes) -> bytes | None:
    """The bytes of a v2 Request when the entry holds one, bare or in field 2, else None.

    A bare Request has its method ("PUT", "SYNC", ...) where InternalRaftRequest had a nested
    message; no method's letters parse as a message, so upper-case letters decide.
    """
    try:
        found = _fields(data)
    except MalformedEntryError:
        return data
    for number, value in found:
        if number == KIND_V2 and isinstance(value, bytes):
            return data if value.isalpha() and value.isupper() else value
    return None
