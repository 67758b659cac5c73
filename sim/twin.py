"""A dumb second store: what the log says, carried out with dictionaries, once for the whole cluster.

It is fed with each committed entry when the first member applies it, so it knows the one true
sequence of events, the true keys and leases, and which value was written at which revision. It
shares no code with the members: entries are read by protobuf, keys live in one dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from keyraft.proto import raft_internal_pb2, rpc_pb2
from sim.watches import Event


@dataclass(slots=True, frozen=True)
class Item:
    """A living key."""

    value: str
    create: int
    mod: int
    version: int
    lease: int


@dataclass(slots=True, frozen=True)
class Expiry:
    """A lease that was revoked, with the keys that went; `revision` 0 when it had none."""

    lease: int
    keys: tuple[str, ...]
    revision: int


@dataclass(slots=True)
class Twin:
    """The state behind the newest entry that any member has applied."""

    revision: int = 1
    compacted: int = 0
    items: dict[str, Item] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    leases: dict[int, int] = field(default_factory=dict)  # lease -> granted TTL in seconds
    once: bool = False  # clients write no value twice
    revision_of: dict[str, int] = field(default_factory=dict)  # value -> where it was written

    def apply(self, data: bytes) -> Expiry | None:
        """Carries out one normal entry; a revocation is returned."""
        request = raft_internal_pb2.InternalRaftRequest.FromString(data)
        if request.HasField("put"):
            if request.put.lease and request.put.lease not in self.leases:
                return None
            self._change([("put", request.put)])
        elif request.HasField("delete_range"):
            self._change([("delete", request.delete_range)])
        elif request.HasField("txn"):
            self._txn(request.txn)
        elif request.HasField("compaction"):
            if self.compacted < request.compaction.revision <= self.revision:
                self.compacted = request.compaction.revision
        elif request.HasField("lease_grant"):
            self.leases.setdefault(request.lease_grant.ID, request.lease_grant.TTL)
        elif request.HasField("lease_revoke"):
            return self._revoke(request.lease_revoke.ID)
        return None

    def hanging_on(self, lease: int) -> list[str]:
        """The keys under a lease, sorted."""
        return sorted(key for key, item in self.items.items() if item.lease == lease)

    def _txn(self, txn: rpc_pb2.TxnRequest) -> None:
        holds = True
        for compare in txn.compare:
            assert compare.target == rpc_pb2.Compare.MOD, "clients here compare nothing else"
            item = self.items.get(compare.key.decode())
            holds = holds and (item.mod if item is not None else 0) == compare.mod_revision
        changes: list[tuple[str, rpc_pb2.PutRequest | rpc_pb2.DeleteRangeRequest]] = []
        for operation in txn.success if holds else txn.failure:
            if operation.HasField("request_put"):
                changes.append(("put", operation.request_put))
            elif operation.HasField("request_delete_range"):
                changes.append(("delete", operation.request_delete_range))
        self._change(changes)

    def _change(
        self, changes: list[tuple[str, rpc_pb2.PutRequest | rpc_pb2.DeleteRangeRequest]]
    ) -> None:
        revision = self.revision + 1
        count = len(self.events)
        for _, change in changes:
            if isinstance(change, rpc_pb2.PutRequest):
                self._put(revision, change)
            else:
                end = change.range_end.decode() or change.key.decode() + "\0"
                inside = [key for key in self.items if change.key.decode() <= key < end]
                self._delete(revision, sorted(inside))
        if len(self.events) > count:
            self.revision = revision

    def _put(self, revision: int, put: rpc_pb2.PutRequest) -> None:
        key, value = put.key.decode(), put.value.decode()
        before = self.items.get(key)
        create, version = (before.create, before.version + 1) if before else (revision, 1)
        self.items[key] = Item(value, create, revision, version, put.lease)
        written = self.revision_of.setdefault(value, revision)
        assert not self.once or written == revision, (
            f"a value is applied twice: {value} at {written} and at {revision}"
        )
        self.revision_of[value] = revision
        previous = before.value if before is not None else None
        self.events.append(Event(revision, key, value, create, version, put.lease, previous))

    def _delete(self, revision: int, keys: list[str]) -> None:
        for key in keys:
            gone = self.items.pop(key)
            self.events.append(Event(revision, key, None, previous=gone.value))

    def _revoke(self, lease: int) -> Expiry | None:
        if self.leases.pop(lease, None) is None:
            return None
        keys = self.hanging_on(lease)
        if keys:
            self.revision += 1
            self._delete(self.revision, keys)
        return Expiry(lease, tuple(keys), self.revision if keys else 0)
