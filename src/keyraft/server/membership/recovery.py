"""Finds the members at the database's consistent index, when the database does not hold them.

The invariant, for every index i that the log reaches:

- the configuration at i is that of the newest snapshot mark at or before i, changed by every
  accepted configuration change between the two;
- the members at i (names, URLs, who is a learner, who was removed) are those in the tree of that
  snapshot's file, changed by the same entries and by what members told of themselves in between.

A database that we have written holds both, in the batch of its consistent index, and says so
(`backend.OWN_MEMBERSHIP`), so it is used. No other database is, because

- `snapshot restore` of the original leaves the configuration of the old cluster in `confState`;
- 3.5.0 and 3.5.1 write a member's row once and never again: its name, client URLs, promotion and
  move are only in the tree (etcd `membership.unsafeSaveMemberToBackend`);
- up to 3.4 there is no `confState`, and the consistent index counts only what touched a key, so
  that changes behind it may be in the rows already;
- 3.5.x that replays its log writes the configuration of an old entry beside a newer index.

If a file's tree names other members than its mark's configuration, the two are of different
moments; a file of 3.8 has no tree. Then the rows of the database are used instead, for the ids in
the mark.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from google.protobuf.message import DecodeError

from keyraft.base.errors import EtcdError
from keyraft.base.ids import MemberID
from keyraft.base.log import Logger
from keyraft.cluster import (
    MemberRecord,
    MembershipDataError,
    RaftCluster,
    VersionError,
    parse_version,
)
from keyraft.mvcc import MemoryBackend
from keyraft.mvcc.backend import META, META_CONF_STATE, OWN, OWN_MEMBERSHIP, Backend
from keyraft.proto import membership_pb2
from keyraft.raft import (
    ConfChangeSingle,
    ConfChangeType,
    ConfState,
    Entry,
    EntryType,
    SnapshotMeta,
    codec,
    readable_change,
)
from keyraft.server.apply import internal_request, v2_requests
from keyraft.server.membership import v2_tree
from keyraft.server.membership.conf_state import encode_conf_state


def is_vouched(backend: Backend) -> bool:
    """Whether members and configuration in the database are those at its consistent index."""
    return (
        backend.get(OWN, OWN_MEMBERSHIP) is not None
        and backend.get(META, META_CONF_STATE) is not None
    )


def vouch(backend: Backend, state: ConfState) -> None:
    """Stores the configuration, in the batch that holds the members and the consistent index."""
    backend.put(META, META_CONF_STATE, encode_conf_state(state))
    backend.put(OWN, OWN_MEMBERSHIP, b"1")


def recover(
    cluster: RaftCluster,
    start: SnapshotMeta,
    tree: bytes,
    entries: Iterable[Entry],
    index: int,
    log: Logger,
) -> ConfState:
    """Sets the members in `cluster` and its database to those at `index`; returns the
    configuration.

    `start` and `tree`: the snapshot that `entries` follow, index 0 and empty where the log begins.
    Raises MembershipDataError.
    """
    told = _read(tree, log)
    known = RaftCluster(cluster.id, cluster.local_id, MemoryBackend(), None, cluster.max_learners)
    if told is not None and _fits(told, start.conf_state):
        known.found(told.members)
        known.forget(told.removed)
    else:
        known.found(_at_mark(cluster, start.conf_state, told))
        known.forget(cluster.removed - {member.id for member in known.members})
    if told is not None and told.version is not None:
        known.set_version(told.version)
    state = start.conf_state
    for entry in entries:
        if entry.index > index:
            break
        if entry.type:
            state = _change(known, state, entry)
        elif entry.data and internal_request.split(entry.data) is None:
            _tell(known, entry.data)
    for member in known.members:
        before = cluster.member(member.id)
        if before is not None and not member.is_started and before.is_started:
            known.update_attributes(member.id, before.name, before.client_urls)
    changed = cluster.adopt(known)
    if changed:
        log.info(
            "completed the membership in the database from snapshot and log",
            snapshot_index=start.index,
            consistent_index=index,
            rows=changed,
        )
    return state


def _read(tree: bytes, log: Logger) -> v2_tree.Told | None:
    if not tree:
        return None
    try:
        return v2_tree.decode(tree)
    except MembershipDataError as error:
        log.warn("the membership in a snapshot is passed over", error=str(error))
        return None


def _fits(told: v2_tree.Told, state: ConfState) -> bool:
    """Whether tree and configuration are of the same moment."""
    voters = {member.id for member in told.members if not member.is_learner}
    learners = {member.id for member in told.members if member.is_learner}
    return voters == {*state.voters} and learners == {*state.learners, *state.learners_next}


def _at_mark(
    cluster: RaftCluster, state: ConfState, told: v2_tree.Told | None
) -> list[MemberRecord]:
    """The configuration's members, with their data from tree and database."""
    learners = {*state.learners, *state.learners_next}
    named: dict[int, MemberRecord] = {member.id: member for member in told.members} if told else {}
    members = []
    for ident in sorted({*state.voters, *state.voters_outgoing, *learners}):
        found = named.get(ident) or cluster.member(ident) or MemberRecord(MemberID(ident))
        members.append(replace(found, is_learner=ident in learners))
    return members


def _change(known: RaftCluster, state: ConfState, entry: Entry) -> ConfState:
    """The configuration after an entry; updates `known` as `Membership.apply` does."""
    if readable_change(entry) is None:
        return state
    if entry.type == EntryType.CONF_CHANGE_V2:
        is_named = codec.decode_conf_change_v2(entry.data).changes
        return state if is_named else changed(state, [])
    change = codec.decode_conf_change(entry.data)
    kind = ConfChangeType(change.type)
    try:
        context = known.validate(kind, change.node_id, change.context)
    except (EtcdError, MembershipDataError):
        return state
    behind = changed(state, [ConfChangeSingle(kind, change.node_id)])
    if not behind.voters:
        return state
    known.apply(kind, change.node_id, context)
    return behind


def changed(state: ConfState, changes: Iterable[ConfChangeSingle]) -> ConfState:
    """The configuration after an accepted change, one voter at a time."""
    voters, learners = set(state.voters), {*state.learners, *state.learners_next}
    for change in changes:
        if change.type == ConfChangeType.REMOVE_NODE:
            voters.discard(change.node_id)
            learners.discard(change.node_id)
        elif change.type == ConfChangeType.ADD_NODE:
            voters.add(change.node_id)
            learners.discard(change.node_id)
        elif change.type == ConfChangeType.ADD_LEARNER_NODE:
            voters.discard(change.node_id)
            learners.add(change.node_id)
    return ConfState(sorted(voters), sorted(learners))


def _tell(known: RaftCluster, data: bytes) -> None:
    """Takes members' attributes and the version from an entry that is no change."""
    try:
        v2 = internal_request.is_v2(data)
        if v2 is not None:
            request = v2_requests.translate(v2)
        else:
            parsed = internal_request.parse(data)
            request = parsed.kind, parsed.request
        if request is None:
            return
        kind, content = request
        if kind == internal_request.KIND_CLUSTER_MEMBER_ATTR_SET:
            told = membership_pb2.ClusterMemberAttrSetRequest.FromString(content)
            attributes = told.member_attributes
            known.update_attributes(
                MemberID(told.member_ID), attributes.name, attributes.client_urls
            )
        elif kind == internal_request.KIND_CLUSTER_VERSION_SET:
            version = membership_pb2.ClusterVersionSetRequest.FromString(content).ver
            known.set_version(parse_version(version))
    except (
        internal_request.MalformedEntryError,
        MembershipDataError,
        VersionError,
        DecodeError,
    ):
        return  # it was applied before, whatever its effect
