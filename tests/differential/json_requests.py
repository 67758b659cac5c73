"""Random JSON requests for every method of the gateway, good and bad, the same for the same seed."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from keyraft.gateway.json.methods import Method, methods_of
from keyraft.grpc import Router

STREAM_S: Final = "150m"  # Grpc-Timeout of streams: how long they are listened to
WAITING: Final = ("/v3/lock/lock", "/v3/election/campaign")  # may wait for another holder
HOLDER: Final = 3  # the lease of all locks and candidates
STREAMS: Final = ("/v3/watch", "/v3/lease/keepalive", "/v3/election/observe")
NEVER: Final = (
    "/v3/auth/enable",  # a round of its own
    "/v3/maintenance/downgrade",  # 3.5.1 cannot
)
_KEYS: Final = [b"a", b"ab", b"b", b"key", b"k\xff\x00", b"z" * 30]
_NAMES: Final = ["root", "user", "role", "r2", "", "ü"]


ODD: Final = frozenset(
    (
        *(
            "odd number",
            "odd base64",
            "URL alphabet",
            "unknown enum",
            "wrong type",
            "null",
            "fields twice",
        ),
        *("a byte changed", "bytes inserted", "no permission", "user without options", "token"),
    )
)
"""What jsonpb of 3.5 reads otherwise than protojson of 3.7, what makes 3.5 panic, and a token while
there are no users, which 3.5 refuses."""


@dataclass
class JsonRequest:
    """One request; `why` names what is odd about it, for failures."""

    path: str
    body: bytes
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)


class Requests:
    """An endless sequence of requests."""

    def __init__(self, seed: int, *, old: bool = False) -> None:
        """`old`: only what 3.5 takes and refuses as 3.7 does, so that their data stay alike."""
        self._old = old
        self._random = random.Random(seed)
        methods = methods_of(Router())
        self._paths = [path for path in sorted(methods) if path not in NEVER]
        self._methods: dict[str, Method] = methods
        self._first = [
            JsonRequest("/v3/lease/grant", b'{"ID":%d,"TTL":"5000"}' % lease)
            for lease in (1, 2, HOLDER)
        ]

    def next(self) -> JsonRequest:
        """The next one."""
        if self._first:
            return self._first.pop()
        while True:
            request = self._any()
            if request.path.endswith("maintenance/alarm") and "unknown enum" in request.why:
                continue  # an unknown action ends every member of the original
            if not self._old or ODD.isdisjoint(request.why):
                return request

    def _any(self) -> JsonRequest:
        chance = self._random
        busy = chance.random() < 0.4
        path = chance.choice(
            ["/v3/kv/put", "/v3/kv/range", "/v3/kv/txn", "/v3/kv/deleterange"]
            if busy
            else self._paths
        )
        request = JsonRequest(path, b"")
        if path == "/v3/maintenance/snapshot" and chance.random() < 0.8:
            path = request.path = "/v3/kv/range"
        body = self._message(self._methods[path].request.DESCRIPTOR, request, path, 0)
        if path in WAITING:  # of one holder, nobody waits
            body["lease"] = chance.choice([HOLDER, str(HOLDER)])
        if path == "/v3/auth/role/grant" and "perm" not in body:
            request.why.append("no permission")
        if path == "/v3/auth/user/add" and "options" not in body:
            request.why.append("user without options")
        request.body = json.dumps(body, ensure_ascii=chance.random() < 0.8).encode()
        if path in STREAMS:
            request.headers["Grpc-Timeout"] = STREAM_S
            for _ in range(chance.choice([0, 0, 1, 2])):
                more = self._message(self._methods[path].request.DESCRIPTOR, request, path, 0)
                request.body += chance.choice([b"", b"\n", b"  "]) + json.dumps(more).encode()
        if path in WAITING:
            request.headers["Grpc-Timeout"] = "20S"
        # A voter that is not there would stop the cluster.
        if "member/add" not in path and chance.random() < 0.3:
            self._spoil(request)
        return request

    # --- bodies -------------------------------------------------------------------------------

    def _message(
        self, descriptor: Any, request: JsonRequest, path: str, depth: int
    ) -> dict[str, Any]:
        chance = self._random
        out: dict[str, Any] = {}
        oneofs: set[str] = set()
        for known in descriptor.fields:
            share = 0.9 if known.name in ("key", "ID", "name", "TTL") else 0.35
            if known.message_type is not None:
                share = 0.7 if depth < 2 else 0.1
            if chance.random() > share:
                continue
            oneof = known.containing_oneof
            if oneof is not None:
                if oneof.name in oneofs and chance.random() < 0.97:
                    continue
                oneofs.add(oneof.name)
            name = known.name
            if known.json_name != name and chance.random() < 0.5:
                name = known.json_name
                request.why.append("camel case")
            out[name] = self._field(known, request, path, depth)
        if chance.random() < 0.06:
            request.why.append("unknown field")
            out[chance.choice(["nothing", "x_y", "[a.b]", "@type"])] = chance.choice(
                [1, "a", None, [1, {"a": "b"}], {"a": [True, -1.5e3]}]
            )
        return out

    def _field(self, known: FieldDescriptor, request: JsonRequest, path: str, depth: int) -> Any:
        chance = self._random
        if chance.random() < 0.02:
            request.why.append("null")
            return None
        if chance.random() < 0.02:
            request.why.append("wrong type")
            return chance.choice([1, 1.5, "text", True, [], {}, [None], "1", -1, "", "YQ"])
        if known.is_repeated:
            return [
                self._single(known, request, path, depth) for _ in range(chance.choice([0, 1, 2]))
            ]
        return self._single(known, request, path, depth)

    def _single(self, known: FieldDescriptor, request: JsonRequest, path: str, depth: int) -> Any:
        if known.message_type is not None:
            return self._message(known.message_type, request, path, depth + 1)
        return _VALUES[known.type](self, known, request, path)

    def _integer(self, known: FieldDescriptor, request: JsonRequest, path: str) -> Any:
        chance = self._random
        name = known.name
        if name == "TTL":
            value = chance.choice([5000, 6000, 7000, 0, -1, 1 << 40])
            value = value if value else 5000
        elif name in ("ID", "lease"):
            value = chance.choice([0, 1, 2, 3, 3, 7, 77])
            if "lease/grant" in path:
                value = value or 7
            elif "lease/revoke" in path and value == HOLDER:
                value = 77
        elif name == "revision":
            value = chance.choice([0, 0, 0, 1, 2, 5, 1 << 50, -1])
        elif name in ("start_revision", "watch_id"):
            value = chance.choice([0, 1, 2, -1, 1 << 40])
        elif name == "limit":
            value = chance.choice([0, 1, 2, 100, -1])
        else:
            value = chance.choice([0, 1, 2, 3, -1, 1 << 33, 1 << 62])
        if known.type == FieldDescriptor.TYPE_UINT64 and value < 0:
            value = 12
        form = chance.random()
        if form < 0.45:
            return value
        if form < 0.9:
            request.why.append("number as string")
            return str(value)
        request.why.append("odd number")
        return chance.choice(
            [float(value), f"{value}.0", f"{value}e0", f" {value}", 1e3, 0.5, "", "0x1", 1 << 64]
        )

    def _bytes(self, known: FieldDescriptor, request: JsonRequest, path: str) -> Any:
        chance = self._random
        raw = chance.choice(_KEYS)
        if known.name == "range_end":
            # Two permissions that begin with one key are kept apart here, not so by etcd.
            raw = b"" if "/auth/" in path else chance.choice([b"", b"\0", b"c", b"zz", b"a"])
        elif known.name in ("value", "blob"):
            raw = chance.randbytes(chance.choice([0, 1, 2, 3, 30, 400]))
        form = chance.random()
        if form < 0.8:
            return base64.b64encode(raw).decode()
        if form < 0.9 and (raw or "/auth/" not in path):
            request.why.append("URL alphabet")
            return base64.urlsafe_b64encode(raw + b"\xfb\xff").decode()
        request.why.append("odd base64")
        return chance.choice(
            [
                base64.b64encode(raw).decode().rstrip("="),
                base64.b64encode(raw + b"\xff").decode() + "=",
                "a-+b",
                "YQ=a",
                "YR==",
                "!!!!",
                "Y\nQ==",
                "Y",
            ]
        )

    def _string(self, known: FieldDescriptor, request: JsonRequest, path: str) -> Any:
        chance = self._random
        if known.name == "peerURLs":
            return chance.choice(["http://127.0.0.1:1", "nonsense", "http://h", ""])
        if known.name == "version":
            return chance.choice(["3.5", "x"])
        return chance.choice(_NAMES)

    def _bool(self, known: FieldDescriptor, request: JsonRequest, path: str) -> Any:
        if "member/add" in path:
            return True  # a voter more would stop the cluster
        return self._random.random() < 0.5

    def _enum(self, known: FieldDescriptor, request: JsonRequest, path: str) -> Any:
        chance = self._random
        enum = known.enum_type
        assert enum is not None, known.full_name
        value = chance.choice(list(enum.values))
        if known.name == "alarm" and chance.random() < 0.9:
            value = enum.values_by_name["NONE"]
        form = chance.random()
        if form < 0.5:
            return value.name
        if form < 0.9:
            return value.number
        request.why.append("unknown enum")
        return chance.choice(["NOTHING", 99, -1, "1", 1.0])

    # --- what is wrong ------------------------------------------------------------------------

    def _spoil(self, request: JsonRequest) -> None:
        chance = self._random
        name, spoil = chance.choice(_SPOILS)
        request.why.append(name)
        spoil(request, chance)


_VALUES: Final[dict[int, Callable[[Requests, FieldDescriptor, JsonRequest, str], Any]]] = {
    FieldDescriptor.TYPE_BOOL: Requests._bool,
    FieldDescriptor.TYPE_BYTES: Requests._bytes,
    FieldDescriptor.TYPE_ENUM: Requests._enum,
    FieldDescriptor.TYPE_INT32: Requests._integer,
    FieldDescriptor.TYPE_INT64: Requests._integer,
    FieldDescriptor.TYPE_STRING: Requests._string,
    FieldDescriptor.TYPE_UINT32: Requests._integer,
    FieldDescriptor.TYPE_UINT64: Requests._integer,
}


def _cut(request: JsonRequest, chance: random.Random) -> None:
    request.body = request.body[: chance.randrange(0, len(request.body) + 1)]


def _flip(request: JsonRequest, chance: random.Random) -> None:
    if request.body:
        at = chance.randrange(0, len(request.body))
        odd = bytes([chance.choice(b'{}[]",:\\x0\n\xff e1-.')])
        request.body = request.body[:at] + odd + request.body[at + 1 :]


def _insert(request: JsonRequest, chance: random.Random) -> None:
    at = chance.randrange(0, len(request.body) + 1)
    odd = chance.choice(
        [b"\\ud800", b"\\ud83d\\ude00", b"\\u00e9", b"\xff", b"\x01", b"tru", b"-", b"1.", b"]"]
    )
    request.body = request.body[:at] + odd + request.body[at:]


def _empty(request: JsonRequest, chance: random.Random) -> None:
    request.body = chance.choice([b"", b" ", b"\n\t", b"{}", b"null", b"[]", b"1", b'"a"', b"true"])


def _trail(request: JsonRequest, chance: random.Random) -> None:
    request.body += chance.choice([b" x", b"{}", b"]", b"\0", b' {"key":"YQ=="}', b"\n\n"])


def _twice(request: JsonRequest, chance: random.Random) -> None:
    if request.body[:1] == b"{" and len(request.body) > 2:
        request.body = request.body[:-1] + b"," + request.body[1:]


def _verb(request: JsonRequest, chance: random.Random) -> None:
    request.method = chance.choice(["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
    if request.method in ("GET", "HEAD", "OPTIONS"):
        request.body = b""


def _path(request: JsonRequest, chance: random.Random) -> None:
    path = request.path
    request.path = chance.choice(
        [
            path + "/",
            path + "x",
            path.upper(),
            path.replace("/v3/", "/v3alpha/"),
            path.replace("/v3/", "/v2/"),
            path.replace("/v3/", "/v3/v3/"),
            "/v3/",
            "/v3/kv",
            path.replace("k", "%6B"),
            path + "?pretty=true",
        ]
    )


def _before(request: JsonRequest, chance: random.Random) -> None:
    request.path = request.path.replace("/v3/", "/v3beta/")


def _header(request: JsonRequest, chance: random.Random) -> None:
    name, value = chance.choice(
        [
            ("Grpc-Timeout", "x"),
            ("Grpc-Timeout", "5"),
            ("Grpc-Timeout", "10S"),
            ("Grpc-Timeout", "1n"),
            ("Grpc-Metadata-hasleader", "true"),
            ("Grpc-Metadata-x-bin", "YWI="),
            ("Grpc-Metadata-x-bin", "!!"),
            ("Authorization", "nonsense"),
            ("Content-Type", "application/json"),
            ("Content-Type", "text/plain"),
            ("Accept", "application/xml"),
            ("Origin", "http://example.com"),
        ]
    )
    request.headers[name] = value
    if name == "Authorization":
        request.why.append("token")


_SPOILS: Final[list[tuple[str, Callable[[JsonRequest, random.Random], None]]]] = [
    ("cut", _cut),
    ("a byte changed", _flip),
    ("bytes inserted", _insert),
    ("empty or no object", _empty),
    ("trailing data", _trail),
    ("fields twice", _twice),
    ("wrong method", _verb),
    ("wrong path", _path),
    ("old path", _before),
    ("header", _header),
]
