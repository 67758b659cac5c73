"""Members and configuration from a snapshot's tree and the log, where the database cannot say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyraft.base.ids import ClusterID, MemberID
from keyraft.base.log import NullLogger
from keyraft.cluster import ChangeContext, MemberRecord, MembershipDataError, RaftCluster
from keyraft.mvcc import MemoryBackend
from keyraft.mvcc.backend import MEMBERS, META, META_CONF_STATE
from keyraft.proto import membership_pb2, raft_internal_pb2
from keyraft.raft import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    SnapshotMeta,
    codec,
)
from keyraft.server.apply import internal_request
from keyraft.server.membership import v2_tree
from keyraft.server.membership.recovery import is_vouched, recover, vouch
from keyraft.storage.snap import decode_snap

DATA = Path(__file__).parents[1] / "storage" / "data"
ADD, REMOVE = ConfChangeType.ADD_NODE, ConfChangeType.REMOVE_NODE
UPDATE, LEARNER = ConfChangeType.UPDATE_NODE, ConfChangeType.ADD_LEARNER_NODE


def member(number: int, **more: object) -> MemberRecord:
    fields: dict[str, object] = {"peer_urls": (f"http://h{number}:2380",)}
    return MemberRecord(MemberID(number), **(fields | more))  # type: ignore[arg-type]  # by name


def started(number: int) -> MemberRecord:
    return member(number, name=f"m{number}", client_urls=(f"http://h{number}:2379",))


def database(*members: MemberRecord) -> RaftCluster:
    cluster = RaftCluster(ClusterID(7), MemberID(1), MemoryBackend())
    for one in members:
        cluster.add(one)
    return cluster


def tree(*members: MemberRecord, removed: tuple[int, ...] = ()) -> bytes:
    cluster = RaftCluster(ClusterID(7), MemberID(1), MemoryBackend())
    cluster.found(members)
    cluster.forget(removed)
    return v2_tree.encode(cluster)


class Log:
    """Entries from an index on."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.entries: list[Entry] = []

    def _add(self, data: bytes, kind: EntryType = EntryType.NORMAL) -> Log:
        self.entries.append(Entry(2, self.first + len(self.entries), data, kind))
        return self

    def change(self, kind: ConfChangeType, number: int, context: bytes = b"") -> Log:
        return self._add(
            codec.encode_conf_change(ConfChange(kind, number, context)), EntryType.CONF_CHANGE
        )

    def add(self, added: MemberRecord, kind: ConfChangeType = ADD) -> Log:
        return self.change(kind, added.id, added.to_json())

    def promote(self, number: int) -> Log:
        context = ChangeContext(MemberRecord(MemberID(number)), is_promote=True)
        return self.change(ADD, number, context.to_json())

    def v2(self, path: str, value: str) -> Log:
        request = raft_internal_pb2.Request(ID=77, Method="PUT", Path=path, Val=value)
        return self._add(request.SerializeToString())

    def data(self, data: bytes) -> Log:
        return self._add(data)


def run(
    cluster: RaftCluster, start: SnapshotMeta, snapshot: bytes, log: Log, index: int = 1 << 40
) -> ConfState:
    state = recover(cluster, start, snapshot, log.entries, index, NullLogger())
    again = RaftCluster(cluster.id, cluster.local_id, cluster._backend)
    again.load()
    assert again.members == cluster.members and again.removed == cluster.removed
    cluster.check()
    return state


def test_a_restored_database_belongs_to_the_new_cluster() -> None:
    """What is written in `confState` is the old cluster's and is never asked."""
    cluster = database(member(1), member(2))
    cluster._backend.put(META, META_CONF_STATE, b'{"voters":[91,92,93],"auto_leave":false}')
    mark = SnapshotMeta(ConfState([1, 2]), 2, 1)
    state = run(cluster, mark, tree(member(1), member(2)), Log(3).add(member(3)))
    assert state.is_equivalent(ConfState([1, 2, 3]))
    assert [one.id for one in cluster.members] == [1, 2, 3]


def test_rows_that_3_5_1_never_wrote_again_are_completed() -> None:
    cluster = database(member(1), member(2), member(3, is_learner=True))
    mark = SnapshotMeta(ConfState([1, 2], [3]), 10, 2)
    log = (
        Log(11)
        .promote(3)
        .change(UPDATE, 2, member(2, peer_urls=("http://elsewhere:2380",)).to_json())
        .v2("/0/members/3/attributes", json.dumps({"name": "m3", "clientURLs": ["http://h3:2379"]}))
        .v2("/0/version", "3.5.0")
        .v2("/1/somebody", "else")
    )
    told = tree(started(1), started(2), member(3, is_learner=True))
    state = run(cluster, mark, told, log)
    assert state.is_equivalent(ConfState([1, 2, 3]))
    moved = member(
        2, name="m2", client_urls=("http://h2:2379",), peer_urls=("http://elsewhere:2380",)
    )
    assert cluster.members == [started(1), moved, started(3)]
    assert str(cluster.version) == "3.5.0"


def test_attributes_in_todays_form_are_taken_too() -> None:
    request = membership_pb2.ClusterMemberAttrSetRequest(
        member_ID=1,
        member_attributes=membership_pb2.Attributes(name="new", client_urls=["http://n"]),
    ).SerializeToString()
    stamp = b"\xa2\x06\x02\x08\x07"
    log = Log(11).data(
        internal_request.wrap(internal_request.KIND_CLUSTER_MEMBER_ATTR_SET, request, stamp)
    )
    cluster = database(member(1))
    run(cluster, SnapshotMeta(ConfState([1]), 10, 2), tree(started(1)), log)
    assert cluster.members == [member(1, name="new", client_urls=("http://n",))]


def test_changes_that_were_refused_change_nothing() -> None:
    known = [started(1), started(2), member(3, is_learner=True)]
    log = (
        Log(11)
        .add(member(4, peer_urls=("http://h1:2380",)))  # a peer URL that is taken
        .add(member(3))  # is there, and this is no promotion
        .promote(2)  # votes already
        .change(REMOVE, 9)  # unknown
        .add(member(8))  # removed once
        .add(member(5, is_learner=True), LEARNER)  # one learner is enough
        .promote(6)
    )
    cluster = database(*known)
    mark = SnapshotMeta(ConfState([1, 2], [3]), 10, 2)
    state = run(cluster, mark, tree(*known, removed=(8,)), log)
    assert state.is_equivalent(ConfState([1, 2], [3]))
    assert cluster.members == known and cluster.removed == {8}


def test_changes_behind_the_consistent_index_are_still_to_come() -> None:
    """3.4 has them in its rows; they are applied again, and must not be refused then."""
    cluster = database(started(1), member(2))
    mark = SnapshotMeta(ConfState([1]), 10, 2)
    log = Log(11).add(member(2)).add(member(3))
    state = run(cluster, mark, tree(started(1)), log, index=10)
    assert state.is_equivalent(ConfState([1]))
    assert cluster.members == [started(1)]
    assert dict(cluster._backend.range(MEMBERS)).keys() == {b"1"}


def test_from_the_beginning_of_the_log_there_is_nobody() -> None:
    cluster = database()
    log = Log(1).add(member(1)).add(member(2)).change(REMOVE, 2)
    state = run(cluster, SnapshotMeta(), b"", log)
    assert state.is_equivalent(ConfState([1]))
    assert cluster.members == [member(1)] and cluster.removed == {2}


@pytest.mark.parametrize(
    "snapshot",
    [
        b"",  # of 3.8
        b"{",
        tree(started(1), started(2), started(3), started(4)),  # of another moment
    ],
)
def test_without_a_tree_of_the_moment_the_rows_stand_in(snapshot: bytes) -> None:
    cluster = database(started(1), started(2), started(4))
    cluster.remove(MemberID(4))
    cluster.add(member(5, is_learner=True))
    mark = SnapshotMeta(ConfState([1, 2, 4]), 10, 2)
    log = Log(11).change(REMOVE, 4).add(member(5, is_learner=True), LEARNER).add(member(4))
    state = run(cluster, mark, snapshot, log)
    assert state.is_equivalent(ConfState([1, 2], [5]))
    assert cluster.members == [started(1), started(2), member(5, is_learner=True)]
    assert cluster.removed == {4}


def test_a_name_that_only_the_database_knows_is_kept() -> None:
    cluster = database(started(1))
    run(cluster, SnapshotMeta(ConfState([1]), 10, 2), tree(member(1)), Log(11))
    assert cluster.members == [started(1)]


def test_changes_of_the_second_form_have_no_effect() -> None:
    changes = ConfChangeV2(changes=[ConfChangeSingle(ADD, 3), ConfChangeSingle(REMOVE, 2)])
    log = Log(11)
    log._add(codec.encode_conf_change_v2(changes), EntryType.CONF_CHANGE_V2)
    known = [started(1), started(2)]
    mark = SnapshotMeta(ConfState([1, 2]), 10, 2)
    state = run(database(*known), mark, tree(*known), log)
    assert state.is_equivalent(ConfState([1, 2]))


def test_a_database_of_ours_says_that_it_is() -> None:
    backend = MemoryBackend()
    assert not is_vouched(backend)
    vouch(backend, ConfState([1], [2]))
    assert is_vouched(backend)
    assert json.loads(backend.get(META, META_CONF_STATE) or b"") == {
        "voters": [1],
        "learners": [2],
        "auto_leave": False,
    }


def test_the_tree_of_etcd_3_5_1_is_read() -> None:
    name = "0000000000000002-0000000000000012.snap"
    snapshot = decode_snap((DATA / name).read_bytes(), name)
    told = v2_tree.decode(snapshot.data)
    assert [one.id for one in told.members] == snapshot.meta.conf_state.voters
    assert all(one.is_started and one.client_urls and one.peer_urls for one in told.members)
    assert str(told.version) == "3.5.0"


BAD_MEMBERS: list[dict[str, object]] = [
    {"zz": {}},
    {"1": {}},
    {"1": {"Children": {"raftAttributes": {"Value": "[]"}}}},
]


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"Root":7}', b'{"Root":{"Children":{"0":{"Children":7}}}}']
    + [
        json.dumps(
            {"Root": {"Children": {"0": {"Children": {"members": {"Children": bad}}}}}}
        ).encode()
        for bad in BAD_MEMBERS
    ],
)
def test_a_tree_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(MembershipDataError):
        v2_tree.decode(data)


def test_a_tree_says_what_it_was_made_of() -> None:
    cluster = database(started(1), member(2, is_learner=True))
    cluster.remove(MemberID(3))
    told = v2_tree.decode(v2_tree.encode(cluster))
    assert list(told.members) == cluster.members
    assert told.removed == {3} and told.version is None
