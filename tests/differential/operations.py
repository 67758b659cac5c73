"""A seeded generator of requests: all options of every KV call, and bad requests of every kind.

The keyspace is small so that requests meet: keys overlap, ranges nest, revisions are asked for
just below and above what is compacted and current. `Knowledge` is what the answers of the
original have shown so far; nothing else steers the generator, so one seed makes one run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from google.protobuf.message import Message

from keyraft.proto import rpc_pb2

KEYS: Final = tuple(
    [f"k/{number:02d}".encode() for number in range(24)]
    + [f"k/{number:02d}/sub".encode() for number in range(0, 24, 6)]
    + [b"a", b"a\x00", b"b", b"\x00", b"\x00\x01", b"\xfe", b"\xff", b"\xff\xff", b"k", b"k/"]
)
UNKNOWN_LEASE: Final = 0x7AD0_0000_0000_0001
LEASES: Final = tuple(range(0x7700, 0x7708))
TXN_OPS_MAX: Final = 128
REQUEST_BYTES_MAX: Final = 1_572_864
MESSAGE_BYTES_MAX: Final = 2_097_152

KV: Final = "/etcdserverpb.KV/"
MAINTENANCE: Final = "/etcdserverpb.Maintenance/"
LEASE: Final = "/etcdserverpb.Lease/"

RESPONSES: Final[dict[str, type[Message]]] = {
    KV + "Put": rpc_pb2.PutResponse,
    KV + "Range": rpc_pb2.RangeResponse,
    KV + "DeleteRange": rpc_pb2.DeleteRangeResponse,
    KV + "Txn": rpc_pb2.TxnResponse,
    KV + "Compact": rpc_pb2.CompactionResponse,
    MAINTENANCE + "HashKV": rpc_pb2.HashKVResponse,
    MAINTENANCE + "Alarm": rpc_pb2.AlarmResponse,
    LEASE + "LeaseGrant": rpc_pb2.LeaseGrantResponse,
    LEASE + "LeaseRevoke": rpc_pb2.LeaseRevokeResponse,
    LEASE + "LeaseTimeToLive": rpc_pb2.LeaseTimeToLiveResponse,
    LEASE + "LeaseLeases": rpc_pb2.LeaseLeasesResponse,
}


@dataclass(frozen=True)
class Operation:
    """One request: its method and its bytes; `message` is None when the bytes are none."""

    method: str
    request: bytes
    message: Message | None = None

    def __str__(self) -> str:
        shown = str(self.message) if self.message is not None else repr(self.request[:80])
        return f"{self.method} {{\n{shown[:4000]}}}"


@dataclass
class Knowledge:
    """What the original's answers have told."""

    revision: int = 1
    compacted: int = 0


class Generator:
    """Makes operations; `with_leases` also those of the Lease service."""

    def __init__(self, seed: int, with_leases: bool = False) -> None:
        self.random = Random(seed)
        self.known = Knowledge()
        self.with_leases = with_leases
        self._makers: list[Callable[[], Operation]] = []
        self._weights: list[int] = []
        for weight, maker in (
            (260, self._put),
            (260, self._range),
            (80, self._delete),
            (200, self._txn),
            (14, self._compact),
            (20, self._hash_kv),
            (2, self._alarms),
            (4, self._unknown_method),
            (6, self._garbage),
            (3, self._large),
        ):
            self._makers.append(maker)
            self._weights.append(weight)
        if with_leases:
            for weight, maker in ((20, self._grant), (12, self._revoke), (20, self._time_to_live)):
                self._makers.append(maker)
                self._weights.append(weight)

    def next(self) -> Operation:
        """The next operation."""
        (maker,) = self.random.choices(self._makers, self._weights)
        return maker()

    # --- parts ---------------------------------------------------------------------------------

    def _chance(self, percent: float) -> bool:
        return self.random.random() * 100 < percent

    def _key(self) -> bytes:
        return b"" if self._chance(1) else self.random.choice(KEYS)

    def _range_end(self, key: bytes) -> bytes:
        kind = self.random.randrange(7)
        if kind <= 1:
            return b""
        if kind == 2:
            return b"\x00"
        if kind == 3:
            return _prefix_end(key)
        if kind == 4:
            return key + b"\x00"
        return self.random.choice(KEYS)

    def _revision(self) -> int:
        known = self.known
        kind = self.random.randrange(10)
        if kind <= 4:
            return 0
        if kind == 5:
            return known.revision + self.random.randint(-2, 2)
        if kind == 6:
            return known.compacted + self.random.randint(-2, 2)
        if kind == 7 and self._chance(10):
            return self.random.choice((-1, -(1 << 63), (1 << 63) - 1))
        return self.random.randint(known.compacted, max(known.compacted, known.revision))

    def _value(self) -> bytes:
        kind = self.random.randrange(20)
        if kind == 0:
            return b""
        if kind == 1:
            return self.random.randbytes(self.random.randrange(5000))
        return b"v%d" % self.random.randrange(12)

    def _put_request(self) -> rpc_pb2.PutRequest:
        put = rpc_pb2.PutRequest(key=self._key(), value=self._value())
        put.prev_kv = self._chance(30)
        if self._chance(8):
            put.ignore_value = True
            if self._chance(85):
                put.value = b""
        if self._chance(8):
            put.ignore_lease = True
        if self._chance(2):
            put.lease = UNKNOWN_LEASE
        elif self.with_leases and self._chance(25):
            put.lease = self.random.choice(LEASES)
        return put

    def _range_request(self) -> rpc_pb2.RangeRequest:
        random = self.random
        key = self._key()
        get = rpc_pb2.RangeRequest(key=key, range_end=self._range_end(key))
        get.revision = self._revision()
        if self._chance(30):
            get.limit = random.choice((1, 2, 3, 5, 10, 100, -1))
        if self._chance(50):
            get.sort_order = random.randrange(3)  # type: ignore[assignment]  # protobuf takes numbers
            get.sort_target = random.randrange(5)  # type: ignore[assignment]  # protobuf takes numbers
        get.serializable = self._chance(40)
        get.keys_only = self._chance(15)
        get.count_only = self._chance(10)
        if self._chance(20):
            low = random.randint(0, self.known.revision)
            high = random.choice((0, random.randint(low, low + 50)))
            if self._chance(50):
                get.min_mod_revision, get.max_mod_revision = low, high
            else:
                get.min_create_revision, get.max_create_revision = low, high
        return get

    def _delete_request(self) -> rpc_pb2.DeleteRangeRequest:
        key = self._key()
        end = self._range_end(key) if self._chance(40) else b""
        return rpc_pb2.DeleteRangeRequest(key=key, range_end=end, prev_kv=self._chance(40))

    def _compare(self) -> rpc_pb2.Compare:
        random = self.random
        compare = rpc_pb2.Compare(key=self._key())
        compare.result = random.randrange(4)  # type: ignore[assignment]  # protobuf takes numbers
        if self._chance(15):
            compare.range_end = self._range_end(compare.key)
        target = random.randrange(5)
        compare.target = target  # type: ignore[assignment]  # protobuf takes numbers
        if target == 0:
            compare.version = random.randrange(4)
        elif target == 1:
            compare.create_revision = random.choice((0, self._revision()))
        elif target == 2:
            compare.mod_revision = random.choice((0, self._revision()))
        elif target == 3:
            compare.value = self._value()
        else:
            compare.lease = random.choice((0, UNKNOWN_LEASE, *LEASES))
        if self._chance(3):
            # The target and the value that was given need not belong together.
            compare.target = random.randrange(5)  # type: ignore[assignment]  # protobuf takes numbers
        return compare

    def _request_op(self, depth: int) -> rpc_pb2.RequestOp:
        op = rpc_pb2.RequestOp()
        kind = self.random.randrange(100)
        if kind < 45:
            op.request_put.CopyFrom(self._put_request())
        elif kind < 75:
            op.request_range.CopyFrom(self._range_request())
        elif kind < 88:
            op.request_delete_range.CopyFrom(self._delete_request())
        elif kind < 99 and depth < 3:
            op.request_txn.CopyFrom(self._txn_request(depth + 1))
        return op

    def _txn_request(self, depth: int = 0) -> rpc_pb2.TxnRequest:
        random = self.random
        txn = rpc_pb2.TxnRequest()
        txn.compare.extend(self._compare() for _ in range(random.choice((0, 1, 1, 2, 3))))
        txn.success.extend(self._request_op(depth) for _ in range(random.randrange(4)))
        txn.failure.extend(self._request_op(depth) for _ in range(random.randrange(3)))
        if self._chance(1):
            many = TXN_OPS_MAX + random.randint(-2, 2)
            get = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=b"a"))
            side = random.choice((txn.success, txn.failure))
            side.extend(get for _ in range(many - len(side)))
        return txn

    # --- operations ----------------------------------------------------------------------------

    def _put(self) -> Operation:
        return _operation(KV + "Put", self._put_request())

    def _range(self) -> Operation:
        get = self._range_request()
        if self._chance(2):
            # Not within a transaction, where 3.5.1 would go on and write. An unknown target is
            # never sent: 3.5.1 panics on it.
            get.sort_order = 7  # type: ignore[assignment]  # protobuf takes numbers
        return _operation(KV + "Range", get)

    def _delete(self) -> Operation:
        return _operation(KV + "DeleteRange", self._delete_request())

    def _txn(self) -> Operation:
        txn = self._txn_request()
        if _has_delete(txn):
            # A put that takes over what the same transaction deletes makes the original panic,
            # at the first try and at every start that replays it.
            _take_nothing_over(txn)
        return _operation(KV + "Txn", txn)

    def _compact(self) -> Operation:
        revision = self._revision()
        if self._chance(60):
            revision = max(self.known.compacted, self.known.revision - self.random.randrange(60))
        request = rpc_pb2.CompactionRequest(revision=revision, physical=self._chance(50))
        return _operation(KV + "Compact", request)

    def _hash_kv(self) -> Operation:
        return _operation(MAINTENANCE + "HashKV", rpc_pb2.HashKVRequest(revision=self._revision()))

    def _alarms(self) -> Operation:
        return _operation(MAINTENANCE + "Alarm", rpc_pb2.AlarmRequest())

    def _unknown_method(self) -> Operation:
        method = self.random.choice(
            (KV + "Nosuch", "/etcdserverpb.Nosuch/Range", "/nosuch", "/a/b/c", KV + "range")
        )
        return Operation(method, b"")

    def _garbage(self) -> Operation:
        method = self.random.choice((KV + "Put", KV + "Range", KV + "Txn", KV + "DeleteRange"))
        whole = self._txn_request().SerializeToString() + b"\x0a\x05abc"
        kind = self.random.randrange(3)
        if kind == 0:
            return Operation(method, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
        if kind == 1:
            return Operation(method, b"\x0f" + self.random.randbytes(8))
        return Operation(method, whole)

    def _large(self) -> Operation:
        size = self.random.choice(
            (REQUEST_BYTES_MAX - 200, REQUEST_BYTES_MAX + 200, MESSAGE_BYTES_MAX + 200)
        )
        value = bytes(size) if self._chance(50) else b"x" * size
        return _operation(KV + "Put", rpc_pb2.PutRequest(key=b"large", value=value))

    def _grant(self) -> Operation:
        request = rpc_pb2.LeaseGrantRequest(ID=self.random.choice(LEASES))
        request.TTL = self.random.choice((5000, 9000, 9_000_000_000, 9_000_000_001))
        return _operation(LEASE + "LeaseGrant", request)

    def _revoke(self) -> Operation:
        request = rpc_pb2.LeaseRevokeRequest(ID=self.random.choice((*LEASES, UNKNOWN_LEASE)))
        return _operation(LEASE + "LeaseRevoke", request)

    def _time_to_live(self) -> Operation:
        request = rpc_pb2.LeaseTimeToLiveRequest(ID=self.random.choice((*LEASES, UNKNOWN_LEASE)))
        request.keys = self._chance(70)
        return _operation(LEASE + "LeaseTimeToLive", request)


def _operation(method: str, message: Message) -> Operation:
    return Operation(method, message.SerializeToString(), message)


def _has_delete(txn: rpc_pb2.TxnRequest) -> bool:
    return any(
        op.HasField("request_delete_range")
        or (op.HasField("request_txn") and _has_delete(op.request_txn))
        for op in (*txn.success, *txn.failure)
    )


def _take_nothing_over(txn: rpc_pb2.TxnRequest) -> None:
    for op in (*txn.success, *txn.failure):
        if op.HasField("request_put"):
            op.request_put.ignore_value = op.request_put.ignore_lease = False
        elif op.HasField("request_txn"):
            _take_nothing_over(op.request_txn)


def _prefix_end(key: bytes) -> bytes:
    for at in range(len(key) - 1, -1, -1):
        if key[at] < 0xFF:
            return key[:at] + bytes([key[at] + 1])
    return b"\x00"
