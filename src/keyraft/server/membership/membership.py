"""Who belongs to the cluster, as Raft counts votes and as the database tells it.

A configuration change is proposed like any request, but Raft carries it out. When its entry is
applied, `RaftCluster` first checks whether the change is valid (an id never returns, no peer URL is
used twice). An invalid change is given to Raft with member id 0, which changes nothing: Raft
accepts the next change only when this one is applied. Raft's configuration and the `members` bucket
change with the same entry on every member.

The configuration is stored beside the consistent index, so a restart begins with it and never
applies an old change again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.invariants import hold
from keyraft.base.parsing import parse
from keyraft.cluster import (
    ChangeContext,
    Downgrade,
    MembershipDataError,
    RaftCluster,
    Version,
    VersionError,
    parse_version,
    storage_version_to_write,
)
from keyraft.grpc import status
from keyraft.mvcc.backend import META, META_STORAGE_VERSION, Backend
from keyraft.proto import membership_pb2
from keyraft.raft import (
    ConfChange,
    ConfChangeError,
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    ProposalDroppedError,
    SnapshotMeta,
    codec,
    readable_change,
)
from keyraft.server.apply import internal_request
from keyraft.server.membership import recovery, v2_tree

if TYPE_CHECKING:
    from keyraft.server.member import Member

_UNKNOWN: Final = 2

ChangeDone = Callable[[EtcdError | RawError | None], None]

TakeBack = Callable[[int], None]
"""Called when the caller of a change gives up, with the reason as a status code."""


class Membership:
    """The cluster's membership within one member. Owned by the member's loop."""

    def __init__(self, member: Member, cluster: RaftCluster, state: ConfState) -> None:
        self._member = member
        self.cluster = cluster
        self.state = state
        self._stored: ConfState | None = None
        self._waiting: dict[int, tuple[float, ChangeDone]] = {}
        self._held: dict[int, ConfChange] = {}  # those of them that wait for a leader
        self.capable = cluster.version is not None
        self._look()

    def _look(self) -> None:
        """Updates what other parts read often."""
        own = self._member.settings.member_id
        state = self.state
        self.sole_voter = state.voters == [own] and not state.voters_outgoing
        self.is_learner = own in state.learners
        self._stand()

    def _stand(self) -> None:
        self._member.leadership.standing(self.sole_voter, self.capable and not self.is_learner)

    def start_peers(self) -> None:
        """Gives the other members to the network."""
        for other in self.cluster.members:
            if other.id != self._member.settings.member_id:
                self._member.network.add_peer(other.id, other.peer_urls)

    # --- changes ------------------------------------------------------------------------------

    def propose(self, change: ConfChange, done: ChangeDone) -> TakeBack:
        """Sends a change through the log; `done(None)` when it is applied, or its refusal.

        Without a leader it waits for one, as any proposal, until its caller gives up. Raises
        StoppedError; RawError if the leader accepts no change now.
        """
        member = self._member
        if member.stopped:
            raise errors.StoppedError
        change.id = member.next_id()
        if member.raft.has_leader:
            try:
                member.raft.propose_conf_change(change)
            except ProposalDroppedError as error:
                raise RawError(_UNKNOWN, str(error)) from None
        else:
            self._held[change.id] = change
        began_s = member.loop.time()
        self._waiting[change.id] = (began_s + member.settings.request_timeout_s, done)
        return partial(self._take_back, change.id, began_s)

    def _take_back(self, ident: int, began_s: float, code: int) -> None:
        """The same as `Member.give_up`, for a change."""
        unproposed = self._held.pop(ident, None)
        waiting = self._waiting.pop(ident, None)
        if waiting is not None and unproposed is None and code == status.DEADLINE_EXCEEDED:
            waiting[1](self._member.why_timeout(began_s))

    def leader_changed(self, _before: int) -> None:
        """Proposes the changes that waited for a leader."""
        held, self._held = self._held, {}
        for change in held.values():
            try:
                self._member.raft.propose_conf_change(change)
            except ProposalDroppedError as error:
                self._answer(change.id, RawError(_UNKNOWN, str(error)))

    def tick(self, now_s: float) -> None:
        """Times out; called with every Raft tick."""
        if not self._waiting:
            return
        late = [ident for ident, (deadline_s, _) in self._waiting.items() if deadline_s <= now_s]
        for ident in late:
            self._answer(ident, errors.RequestTimeoutError())

    def fail_all(self, error: EtcdError) -> None:
        """The member stops."""
        for ident in list(self._waiting):
            self._answer(ident, error)

    def _answer(self, ident: int, error: EtcdError | RawError | None) -> None:
        self._held.pop(ident, None)
        waiting = self._waiting.pop(ident, None)
        if waiting is not None:
            waiting[1](error)

    def apply(self, entry: Entry) -> None:
        """A configuration change has been committed.

        DEVIATION: etcd panics at a change that cannot be made, again at every start. Here it has no
        effect, on every member alike.
        """
        raft = self._member.raft
        if readable_change(entry) is None:
            self._pass_over(entry, "it cannot be read")
            return
        if entry.type == EntryType.CONF_CHANGE_V2:
            self._apply_v2(entry)
            return
        change = codec.decode_conf_change(entry.data)
        kind = ConfChangeType(change.type)
        error: EtcdError | RawError | None = None
        try:
            context = self.cluster.validate(kind, change.node_id, change.context)
            state = raft.apply_conf_change(change, entry.index)
        except EtcdError as refusal:
            error = refusal
        except (MembershipDataError, ConfChangeError) as problem:
            self._pass_over(entry, str(problem))
            error = RawError(_UNKNOWN, str(problem))
        if error is not None:
            # A change with id 0 changes nothing, and lets Raft accept the next change.
            with suppress(ConfChangeError):
                self._take(raft.apply_conf_change(ConfChange(change.type, 0), entry.index))
        else:
            self._take(state)
            self.cluster.apply(kind, change.node_id, context)
            self._tell_network(kind, change.node_id, context)
        self._answer(change.id, error)

    def _apply_v2(self, entry: Entry) -> None:
        """The second form of a change, which no member of etcd proposes (it panics there).

        One that names members has no effect: it says nothing of their URLs, and Raft would count
        whom the cluster does not know. An empty one leaves a joint configuration.
        """
        raft = self._member.raft
        change = codec.decode_conf_change_v2(entry.data)
        if change.changes:
            self._pass_over(entry, "changes of the second form name members without their URLs")
            change = ConfChangeV2(changes=[ConfChangeSingle(ConfChangeType.ADD_NODE, 0)])
        try:
            self._take(raft.apply_conf_change(change, entry.index))
        except ConfChangeError as problem:
            if not change.changes:
                self._pass_over(entry, str(problem))

    def _pass_over(self, entry: Entry, why: str) -> None:
        self._member.logger.error(
            "passed over a change of the configuration that cannot be made",
            entry_index=entry.index,
            entry_term=entry.term,
            error=why,
        )

    def _take(self, state: ConfState) -> None:
        self.state = state
        self._look()

    def _tell_network(self, kind: ConfChangeType, member_id: int, context: ChangeContext) -> None:
        own = self._member.settings.member_id
        network = self._member.network
        if kind == ConfChangeType.REMOVE_NODE:
            if member_id == own:
                self._member.removals.own()
            else:
                network.remove_peer(member_id)
                self._member.removals.other(member_id)
        elif member_id == own:
            return
        elif kind == ConfChangeType.UPDATE_NODE:
            network.update_peer(member_id, context.member.peer_urls)
        elif not context.is_promote:
            network.add_peer(member_id, context.member.peer_urls)

    def restored(self, meta: SnapshotMeta, tree: bytes) -> None:
        """A snapshot of the leader has replaced the database."""
        before = {other.id for other in self.cluster.members}
        self.cluster.load()
        self._stored = None
        state = recovery.recover(self.cluster, meta, tree, (), meta.index, self._member.logger)
        self.capable = self.cluster.version is not None
        self._take(state)
        network, own = self._member.network, self._member.settings.member_id
        after = {other.id: other for other in self.cluster.members}
        for gone in sorted(before - after.keys()):
            if gone != own:
                network.remove_peer(gone)
        for other in after.values():
            if other.id != own:
                network.add_peer(other.id, other.peer_urls)

    # --- versions and attributes --------------------------------------------------------------

    def apply_request(self, kind: int, request: bytes) -> None:
        """A request about the cluster itself has come through the log.

        Raises MembershipDataError, with nothing changed, for one that cannot be carried out.
        """
        if kind == internal_request.KIND_CLUSTER_VERSION_SET:
            self.set_version(parse(membership_pb2.ClusterVersionSetRequest, request).ver)
        elif kind == internal_request.KIND_CLUSTER_MEMBER_ATTR_SET:
            told = parse(membership_pb2.ClusterMemberAttrSetRequest, request)
            attributes = told.member_attributes
            self.set_attributes(told.member_ID, attributes.name, list(attributes.client_urls))
        else:
            wanted = parse(membership_pb2.DowngradeInfoSetRequest, request)
            target = wanted.ver if wanted.enabled else ""
            if wanted.enabled:
                _parse_version(target)
            self.cluster.set_downgrade(Downgrade(target, wanted.enabled))

    def set_version(self, text: str) -> None:
        """Sets the agreed cluster version. Raises MembershipDataError if it is no version."""
        version = _parse_version(text)
        before = self.cluster.version
        self.cluster.set_version(version)
        self.capable = True
        self._stand()
        self._store_storage_version()
        if before is not None and version.is_below(before):
            self._member.logger.info(
                "Cluster version downgrade detected, forcing snapshot",
                prev_cluster_version=str(before),
                new_cluster_version=str(version),
            )
            self._member.snapshotter.force()

    def set_attributes(self, member_id: int, name: str, client_urls: Sequence[str]) -> None:
        """Stores a member's name and client URLs."""
        self.cluster.update_attributes(member_id, name, client_urls)  # type: ignore[arg-type]  # an id from the wire

    def _store_storage_version(self) -> None:
        backend = self._member.backend
        stored = backend.get(META, META_STORAGE_VERSION)
        version = storage_version_to_write(
            self.cluster.version,
            parse_version(stored.decode("ascii", "replace")) if stored else None,
        )
        if version is not None:
            backend.put(META, META_STORAGE_VERSION, str(version).encode())

    @property
    def storage_version(self) -> str:
        """The storage version in the database; empty if there is none."""
        stored = self._member.backend.get(META, META_STORAGE_VERSION)
        return stored.decode("ascii", "replace") if stored else ""

    def check(self, counted: ConfState) -> None:
        """What the database says of the cluster, and Raft counts votes by (`counted`), agree.
        Raises InvariantError."""
        state = self.state
        # A snapshot of the original's may name the members in any order.
        hold(state.is_equivalent(counted), "the configuration is Raft's", state, counted)
        self.cluster.check()
        for ident in (*state.voters, *state.learners):
            known = self.cluster.member(ident)
            hold(known is not None, "who is counted is a member", ident)
            if known is not None and not state.voters_outgoing:
                learns = ident in state.learners
                hold(known.is_learner == learns, "a learner has no vote", ident, learns)
        own = self._member.settings.member_id
        sole = state.voters == [own] and not state.voters_outgoing
        hold(self.sole_voter == sole, "whether this member votes alone", self.sole_voter, sole)
        hold(self.is_learner == (own in state.learners), "whether it learns", self.is_learner)
        lost = self._held.keys() - self._waiting.keys()
        hold(not lost, "a change that waits for a leader has its caller", lost)

    # --- on disk ------------------------------------------------------------------------------

    def encode_v2(self) -> bytes:
        """The membership in the form in which members up to 3.6 read it from a snapshot file."""
        return v2_tree.encode(self.cluster)

    def seal(self, backend: Backend) -> None:
        """Stores the configuration in the same batch as the entries that led to it."""
        if self.state is not self._stored:
            self._stored = self.state
            recovery.vouch(backend, self.state)

    # --- connection ---------------------------------------------------------------------------

    def connected_since(self, start_s: float) -> bool:
        """Whether this member has been connected since `start_s` to the members that it needs.

        A leader needs a quorum of voters, anybody else the leader (etcd `isConnectedToQuorumSince`).
        """
        member = self._member
        own = member.settings.member_id
        since = member.network.active_since

        def steady(other: int) -> bool:
            active_s = since(other)
            return active_s is not None and active_s <= start_s

        if member.leadership.leader != own:
            return steady(member.leadership.leader)
        voters = self.state.voters
        count = sum(voter == own or steady(voter) for voter in voters)
        return count >= len(voters) // 2 + 1


def _parse_version(text: str) -> Version:
    try:
        return parse_version(text)
    except VersionError as error:
        raise MembershipDataError(str(error)) from None
