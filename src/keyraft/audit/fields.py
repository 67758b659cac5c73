"""What of a request is shown: the fields that are listed here, and no others.

Values, passwords and tokens are in no table. Fields are read from the request's bytes, so that the
audit process needs no message classes. Numbers are those of etcd's `rpc.proto`, `v3lock.proto` and
`v3election.proto`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from json.encoder import encode_basestring as quoted
from typing import Final, NamedTuple

from keyraft.base.protofields import fields
from keyraft.base.varints import CodecError

KEY_BYTES_MAX: Final = 2_048
DETAILS_CHARACTERS_MAX: Final = 65_536
DEPTH_MAX: Final = 8  # of transactions in transactions

KEY: Final = "key"
TEXT: Final = "text"
URL: Final = "url"  # without who logs in by it
NUMBER: Final = "number"
ID: Final = "id"
FLAG: Final = "flag"


class Shown(NamedTuple):
    """A field that is shown: its name, and its kind or the table of the message that it is."""

    name: str
    kind: str | Mapping[int, Shown]
    many: bool = False


Table = Mapping[int, Shown]

_RANGE: Final[Table] = {
    1: Shown("key", KEY),
    2: Shown("range_end", KEY),
    3: Shown("limit", NUMBER),
    4: Shown("revision", NUMBER),
}
_PUT: Final[Table] = {1: Shown("key", KEY), 3: Shown("lease", ID)}
_DELETE: Final[Table] = {1: Shown("key", KEY), 2: Shown("range_end", KEY)}
_OPERATION: dict[int, Shown] = {
    1: Shown("range", _RANGE),
    2: Shown("put", _PUT),
    3: Shown("delete", _DELETE),
}
_TXN: Final[Table] = {
    1: Shown("compare", {3: Shown("key", KEY), 64: Shown("range_end", KEY)}, many=True),
    2: Shown("success", _OPERATION, many=True),
    3: Shown("failure", _OPERATION, many=True),
}
_OPERATION[4] = Shown("txn", _TXN)
_NAME: Final[Table] = {1: Shown("name", TEXT)}
_ROLE: Final[Table] = {1: Shown("role", TEXT)}
_LEASE: Final[Table] = {1: Shown("lease", ID)}
_MEMBER: Final[Table] = {1: Shown("member", ID)}
_PEER_URLS: Final = Shown("peer_urls", URL, many=True)
_LEADER_KEY: Final[Table] = {
    1: Shown("name", KEY),
    2: Shown("key", KEY),
    3: Shown("revision", NUMBER),
    4: Shown("lease", ID),
}
_LOCK: Final[Table] = {1: Shown("name", KEY), 2: Shown("lease", ID)}

SHOWN: Final[Mapping[str, Table]] = {
    "/etcdserverpb.KV/Range": _RANGE,
    "/etcdserverpb.KV/RangeStream": _RANGE,
    "/etcdserverpb.KV/Put": _PUT,
    "/etcdserverpb.KV/DeleteRange": _DELETE,
    "/etcdserverpb.KV/Txn": _TXN,
    "/etcdserverpb.KV/Compact": {1: Shown("revision", NUMBER), 2: Shown("physical", FLAG)},
    "/etcdserverpb.Watch/Watch": {
        1: Shown("key", KEY),
        2: Shown("range_end", KEY),
        3: Shown("start_revision", NUMBER),
        7: Shown("watch_id", NUMBER),
    },  # of the WatchCreateRequest
    "/etcdserverpb.Lease/LeaseGrant": {1: Shown("ttl", NUMBER), 2: Shown("lease", ID)},
    "/etcdserverpb.Lease/LeaseRevoke": _LEASE,
    "/etcdserverpb.Lease/LeaseKeepAlive": _LEASE,
    "/etcdserverpb.Lease/LeaseTimeToLive": {1: Shown("lease", ID), 2: Shown("keys", FLAG)},
    "/etcdserverpb.Cluster/MemberAdd": {1: _PEER_URLS, 2: Shown("learner", FLAG)},
    "/etcdserverpb.Cluster/MemberRemove": _MEMBER,
    "/etcdserverpb.Cluster/MemberUpdate": {1: Shown("member", ID), 2: _PEER_URLS},
    "/etcdserverpb.Cluster/MemberPromote": _MEMBER,
    "/etcdserverpb.Maintenance/Alarm": {
        1: Shown("action", NUMBER),
        2: Shown("member", ID),
        3: Shown("alarm", NUMBER),
    },
    "/etcdserverpb.Maintenance/HashKV": {1: Shown("revision", NUMBER)},
    "/etcdserverpb.Maintenance/MoveLeader": _MEMBER,
    "/etcdserverpb.Maintenance/Downgrade": {1: Shown("action", NUMBER), 2: Shown("version", TEXT)},
    "/etcdserverpb.Auth/Authenticate": _NAME,
    "/etcdserverpb.Auth/UserAdd": _NAME,
    "/etcdserverpb.Auth/UserGet": _NAME,
    "/etcdserverpb.Auth/UserDelete": _NAME,
    "/etcdserverpb.Auth/UserChangePassword": _NAME,
    "/etcdserverpb.Auth/UserGrantRole": {1: Shown("name", TEXT), 2: Shown("role", TEXT)},
    "/etcdserverpb.Auth/UserRevokeRole": {1: Shown("name", TEXT), 2: Shown("role", TEXT)},
    "/etcdserverpb.Auth/RoleAdd": _ROLE,
    "/etcdserverpb.Auth/RoleGet": _ROLE,
    "/etcdserverpb.Auth/RoleDelete": _ROLE,
    "/etcdserverpb.Auth/RoleGrantPermission": {
        1: Shown("role", TEXT),
        2: Shown(
            "permission",
            {1: Shown("type", NUMBER), 2: Shown("key", KEY), 3: Shown("range_end", KEY)},
        ),
    },
    "/etcdserverpb.Auth/RoleRevokePermission": {
        1: Shown("role", TEXT),
        2: Shown("key", KEY),
        3: Shown("range_end", KEY),
    },
    "/keyraftpb.Operations/Usage": {1: Shown("prefix", KEY), 2: Shown("depth", NUMBER)},
    "/v3lockpb.Lock/Lock": _LOCK,
    "/v3lockpb.Lock/Unlock": {1: Shown("key", KEY)},
    "/v3electionpb.Election/Campaign": _LOCK,
    "/v3electionpb.Election/Proclaim": {1: Shown("leader", _LEADER_KEY)},
    "/v3electionpb.Election/Leader": {1: Shown("name", KEY)},
    "/v3electionpb.Election/Observe": {1: Shown("name", KEY)},
    "/v3electionpb.Election/Resign": {1: Shown("leader", _LEADER_KEY)},
}
"""Method → the fields of its request that are shown; of any other none is."""

_PLAIN_PUT: Final = "/etcdserverpb.KV/Put"
_PLAIN: Final = frozenset((_PLAIN_PUT, "/etcdserverpb.KV/Range", "/etcdserverpb.KV/DeleteRange"))


class _Room:
    """What is left for one request."""

    __slots__ = ("left", "left_out")

    def __init__(self) -> None:
        self.left = DETAILS_CHARACTERS_MAX
        self.left_out = 0


def details(method: str, request: bytes) -> str:
    """The object `request` of a line, as JSON; "" if nothing of this method is shown."""
    table = SHOWN.get(method)
    if table is None or not request:
        return ""
    room = _Room()
    try:
        text = _object(table, request, room, 0)
    except CodecError:
        return '{"malformed":true}'
    if room.left_out:
        more = f'"left_out":{room.left_out}}}'
        text = f"{text[:-1]},{more}" if len(text) > 2 else "{" + more
    return text


def plain_key(method: str, request: bytes | str) -> str | None:
    """The key of a request of which nothing else is shown, as nearly all are; None for others."""
    if method not in _PLAIN or isinstance(request, str) or request[:1] != b"\x0a":
        return None
    size = len(request)
    end = 2 + request[1] if size > 1 else size + 1
    if end > size or request[1] > 127:
        return None
    if end < size:  # nothing but a value may follow, shorter than 16,384 bytes
        if method != _PLAIN_PUT or request[end] != 0x12 or end + 2 > size:
            return None
        length, stop = request[end + 1], end + 2
        if length > 127 and stop < size:
            length, stop = length & 127 | request[stop] << 7, stop + 1
        if stop + length != size:
            return None
    try:
        return request[2:end].decode("utf-8")
    except UnicodeDecodeError:
        return None


def key_text(name: str, key: bytes) -> str:
    """`"name":…` of a key, in base64 if it is no text, and its length if it is cut."""
    cut = key[:KEY_BYTES_MAX]
    suffix = f',"{name}_bytes":{len(key)}' if len(key) > KEY_BYTES_MAX else ""
    try:
        text = key.decode("utf-8")
    except UnicodeDecodeError:
        return f'"{name}_base64":"{b64encode(cut).decode()}"{suffix}'
    if suffix:
        text = cut.decode("utf-8", "ignore")
    return f'"{name}":{quoted(text)}{suffix}'


def _object(table: Table, data: bytes, room: _Room, depth: int) -> str:
    pieces: list[str] = []
    many: dict[str, list[str]] = {}
    for number, value in fields(data):
        field = table.get(number)
        if field is None:
            continue
        if room.left <= 0:
            room.left_out += 1
            continue
        name, kind = field.name, field.kind
        if isinstance(value, int):
            if kind is ID:
                piece = f'"{name}":"{value & 0xFFFFFFFFFFFFFFFF:x}"'
            elif kind is NUMBER:
                piece = f'"{name}":{value - (1 << 64) if value >> 63 else value}'
            elif kind is FLAG:
                piece = f'"{name}":{"true" if value else "false"}'
            else:
                continue
        elif kind is KEY or kind is TEXT:
            piece = key_text(name, value)
        elif kind is URL:
            scheme, _, rest = value.decode("utf-8", "replace").partition("://")
            text = quoted(f"{scheme}://{rest.rpartition('@')[2]}"[:KEY_BYTES_MAX])
            room.left -= len(text) + 4
            many.setdefault(name, []).append(text)
            continue
        elif isinstance(kind, Mapping):
            if depth >= DEPTH_MAX:
                room.left_out += 1
                continue
            inside = _object(kind, value, room, depth + 1)
            if field.many:
                many.setdefault(name, []).append(inside)
                continue
            piece = f'"{name}":{inside}'
        else:
            continue
        room.left -= len(piece) + 4
        pieces.append(piece)
    pieces += (f'"{name}":[{",".join(found)}]' for name, found in many.items())
    return "{" + ",".join(pieces) + "}"
