"""The cluster as one member knows it: members, removed ids, version, downgrade.

The database is authoritative; this is its image in memory. Changes come only from the log, in its
order, so all members hold the same. Invariants:

- An id that was removed never comes back.
- No two members share an id or a peer URL.
- The cluster's version moves only as `versions.may_change` allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

from keyraft.base.errors import (
    MemberExistsError,
    MemberNotFoundError,
    MemberNotLearnerError,
    NotEnoughStartedMembersError,
    PeerURLExistsError,
)
from keyraft.base.ids import ClusterID, MemberID
from keyraft.base.invariants import hold
from keyraft.base.log import Logger, NullLogger
from keyraft.cluster.bootstrap import check_learners
from keyraft.cluster.ident import format_id
from keyraft.cluster.member import (
    ChangeContext,
    MemberRecord,
    MembershipDataError,
    check_peer_urls,
    decode_context,
    decode_member,
    decode_member_key,
    encode_json,
    member_key,
)
from keyraft.cluster.versions import Downgrade, Version, VersionError, parse_version, short
from keyraft.mvcc.backend import CLUSTER, MEMBERS, MEMBERS_REMOVED, Backend
from keyraft.raft.types import ConfChangeType

MAX_LEARNERS = 1  # --max-learners
CLUSTER_VERSION_KEY = b"clusterVersion"
DOWNGRADE_KEY = b"downgrade"
_REMOVED_VALUE = b"removed"


class RaftCluster:
    """Membership and versions; owned and changed by the member's loop alone."""

    __slots__ = (
        "_backend",
        "_log",
        "_members",
        "_removed",
        "downgrade",
        "id",
        "local_id",
        "max_learners",
        "version",
    )

    def __init__(
        self,
        id: ClusterID,
        local_id: MemberID,
        backend: Backend,
        log: Logger | None = None,
        max_learners: int = MAX_LEARNERS,
    ) -> None:
        self.id = id
        self.local_id = local_id
        self.max_learners = max_learners
        self.version: Version | None = None
        self.downgrade = Downgrade()
        self._backend = backend
        self._log: Logger = log or NullLogger()
        self._members: dict[int, MemberRecord] = {}
        self._removed: set[int] = set()

    # --- reading -------------------------------------------------------------------------------

    @property
    def members(self) -> list[MemberRecord]:
        """All members, sorted by id."""
        return sorted(self._members.values(), key=lambda member: member.id)

    @property
    def voters(self) -> list[MemberRecord]:
        """The members that vote, sorted by id."""
        return [member for member in self.members if not member.is_learner]

    @property
    def removed(self) -> frozenset[int]:
        """The ids of removed members, which can never be members again."""
        return frozenset(self._removed)

    @property
    def local(self) -> MemberRecord | None:
        """This member, None once it was removed."""
        return self._members.get(self.local_id)

    def member(self, id: int) -> MemberRecord | None:
        """The member with this id."""
        return self._members.get(id)

    def by_name(self, name: str) -> MemberRecord | None:
        """The member with this name; several with one name make it ambiguous, then None."""
        found = [member for member in self._members.values() if member.name == name]
        return found[0] if len(found) == 1 else None

    def is_removed(self, id: int) -> bool:
        """Whether the id once was a member."""
        return id in self._removed

    def conf_ids(self) -> tuple[list[int], list[int]]:
        """Voters' and learners' ids, sorted, as Raft's configuration has them."""
        voters = [member.id for member in self.voters]
        return list(voters), [member.id for member in self.members if member.is_learner]

    # --- the database --------------------------------------------------------------------------

    def load(self) -> None:
        """Reads the image from the database; raises MembershipDataError or VersionError."""
        members: dict[int, MemberRecord] = {}
        for key, value in self._backend.range(MEMBERS, b"", None):
            id = decode_member_key(bytes(key))
            members[id] = decode_member(bytes(value), id)
        self._members = members
        self._removed = {
            decode_member_key(bytes(key))
            for key, _ in self._backend.range(MEMBERS_REMOVED, b"", None)
        }
        version = self._backend.get(CLUSTER, CLUSTER_VERSION_KEY)
        self.version = parse_version(bytes(version).decode("ascii", "replace")) if version else None
        self.downgrade = _decode_downgrade(self._backend.get(CLUSTER, DOWNGRADE_KEY))

    def found(self, members: Iterable[MemberRecord]) -> None:
        """Holds the members of a new cluster before their entries are applied."""
        self._members = {member.id: member for member in members}

    def forget(self, removed: Iterable[int]) -> None:
        """Records ids of removed members, which can never be members again."""
        self._removed |= set(removed)

    def adopt(self, known: RaftCluster) -> int:
        """Takes over members and version from another source; returns how many rows changed.

        Ids that were removed stay so; a version is taken only where there was none.
        """
        changes = 0
        for member in self.members:
            if known.member(member.id) is None:
                self._backend.delete(MEMBERS, member_key(member.id))
                del self._members[member.id]
                changes += 1
        for member in known.members:
            if self._members.get(member.id) != member:
                self._save(member)
                changes += 1
            if member.id in self._removed:
                self._backend.delete(MEMBERS_REMOVED, member_key(member.id))
                self._removed.discard(member.id)
                changes += 1
        for gone in sorted(known.removed - self._removed):
            self._backend.put(MEMBERS_REMOVED, member_key(gone), _REMOVED_VALUE)
            self._removed.add(gone)
            changes += 1
        if self.version is None and known.version is not None:
            self.version = known.version
            self._backend.put(CLUSTER, CLUSTER_VERSION_KEY, str(known.version).encode())
            changes += 1
        return changes

    # --- may a change be made? -----------------------------------------------------------------

    def validate(self, kind: ConfChangeType, id: int, context: bytes) -> ChangeContext:
        """The change's context, when the change makes sense now.

        Runs when the entry is applied. Raises MemberNotFoundError, MemberExistsError,
        PeerURLExistsError, MemberNotLearnerError, TooManyLearnersError; MembershipDataError for a
        context that cannot be read or is another member's.
        """
        if id in self._removed:
            raise MemberNotFoundError
        present = self._members.get(id)
        change = decode_context(context)
        if kind is ConfChangeType.REMOVE_NODE or kind is ConfChangeType.UPDATE_NODE:
            if present is None:
                raise MemberNotFoundError
            if kind is ConfChangeType.UPDATE_NODE:
                self._check_peer_urls(change.member.peer_urls, except_id=id)
            return change
        if change.is_promote:
            if present is None:
                raise MemberNotFoundError
            if not present.is_learner:
                raise MemberNotLearnerError
            return change
        if present is not None:
            raise MemberExistsError
        if change.member.id != id:
            raise MembershipDataError(f"member {format_id(id)} is added as another one")
        self._check_peer_urls(change.member.peer_urls, except_id=0)
        if change.member.is_learner and kind is ConfChangeType.ADD_LEARNER_NODE:
            check_learners(self._members.values(), self.max_learners, adding=1)
        return change

    def _check_peer_urls(self, urls: Iterable[str], except_id: int) -> None:
        check_peer_urls(urls)
        used = {
            url
            for member in self._members.values()
            if member.id != except_id
            for url in member.peer_urls
        }
        if not used.isdisjoint(urls):
            raise PeerURLExistsError

    def check_ready_to_add_voter(self) -> None:
        """Raises NotEnoughStartedMembersError if a voter more would lose the quorum.

        Strict reconfiguration: a new voter counts as not started. A cluster of one started member
        may always add a second, or it could never grow.
        """
        voters = self.voters
        started = sum(member.is_started for member in voters)
        size = len(voters) + 1
        if not (started == 1 and size == 2):
            self._check_quorum("add", started, size)

    def check_ready_to_remove(self, id: int) -> None:
        """Raises NotEnoughStartedMembersError if the rest would have no quorum.

        A learner may always be removed.
        """
        member = self._members.get(id)
        if member is not None and member.is_learner:
            return
        rest = [voter for voter in self.voters if voter.id != id]
        self._check_quorum("remove", sum(voter.is_started for voter in rest), len(rest))

    def check_ready_to_promote(self) -> None:
        """Raises NotEnoughStartedMembersError if the learner's vote would lose the quorum."""
        voters = self.voters
        started = sum(member.is_started for member in voters) + 1
        self._check_quorum("promote", started, len(voters) + 1)

    def _check_quorum(self, change: str, started: int, size: int) -> None:
        quorum = size // 2 + 1
        if started < quorum:
            self._log.warn(
                f"rejecting member {change}; started member will be less than quorum",
                number_of_started_member=started,
                quorum=quorum,
                cluster_id=format_id(self.id),
                local_member_id=format_id(self.local_id),
            )
            raise NotEnoughStartedMembersError

    # --- changes, as the log says --------------------------------------------------------------

    def apply(self, kind: ConfChangeType, id: int, change: ChangeContext) -> None:
        """Carries out a change that `validate` let pass."""
        if kind is ConfChangeType.REMOVE_NODE:
            self.remove(MemberID(id))
        elif kind is ConfChangeType.UPDATE_NODE:
            self.update_peer_urls(MemberID(id), change.member.peer_urls)
        elif change.is_promote:
            self.promote(MemberID(id))
        else:
            self.add(change.member)

    def add(self, member: MemberRecord) -> None:
        """A member joins."""
        self._save(member)
        self._say("added member", "added_peer", member)

    def remove(self, id: MemberID) -> None:
        """A member leaves for good."""
        self._backend.delete(MEMBERS, member_key(id))
        self._backend.put(MEMBERS_REMOVED, member_key(id), _REMOVED_VALUE)
        self._removed.add(id)
        member = self._members.pop(id, None)
        if member is not None:
            self._say("removed member", "removed_remote_peer", member)

    def promote(self, id: MemberID) -> None:
        """A learner gets its vote."""
        member = self._members.get(id)
        if member is None:
            return
        self._save(replace(member, is_learner=False))
        self._log.info(
            "promote member",
            cluster_id=format_id(self.id),
            local_member_id=format_id(self.local_id),
            promoted_member_id=format_id(id),
        )

    def update_peer_urls(self, id: MemberID, peer_urls: Iterable[str]) -> None:
        """Changes a member's peer URLs."""
        member = self._members.get(id)
        if member is None:
            return
        member = replace(member, peer_urls=tuple(peer_urls))
        self._save(member)
        self._say("updated member", "updated_remote_peer", member)

    def update_attributes(self, id: MemberID, name: str, client_urls: Iterable[str]) -> None:
        """Stores the name and the client URLs that a member has published.

        Ignores a member that was removed meanwhile; an unknown id raises MembershipDataError.
        """
        member = self._members.get(id)
        if member is not None:
            self._save(replace(member, name=name, client_urls=tuple(client_urls)))
        elif id in self._removed:
            self._log.warn(
                "skipped attributes update of removed member",
                cluster_id=format_id(self.id),
                local_member_id=format_id(self.local_id),
                updated_peer_id=format_id(id),
            )
        else:
            raise MembershipDataError(f"attributes of member {format_id(id)}, which is unknown")

    def set_version(self, version: Version) -> None:
        """The cluster has agreed on a version."""
        ids = {"cluster_id": format_id(self.id), "local_member_id": format_id(self.local_id)}
        if self.version is None:
            self._log.info("set initial cluster version", **ids, cluster_version=short(version))
        else:
            self._log.info(
                "updated cluster version",
                **ids,
                **{"from": short(self.version), "to": short(version)},
            )
        self.version = version
        self._backend.put(CLUSTER, CLUSTER_VERSION_KEY, str(version).encode())

    def set_downgrade(self, downgrade: Downgrade) -> None:
        """A downgrade was enabled or ended."""
        self.downgrade = downgrade
        value = {"target-version": downgrade.target, "enabled": downgrade.enabled}
        self._backend.put(CLUSTER, DOWNGRADE_KEY, encode_json(value))

    def check(self) -> None:
        """Who was removed is none of them, no peer URL is there twice, and whom the database has is
        known as it has them; raises InvariantError."""
        both = self._removed.intersection(self._members)
        hold(not both, "who was removed is no member", both)
        urls = [url for member in self._members.values() for url in member.peer_urls]
        hold(len(urls) == len(set(urls)), "peer URLs are one member's", urls)
        for key, value in self._backend.range(MEMBERS, b"", None):
            id = decode_member_key(bytes(key))
            stored, known = decode_member(bytes(value), id), self._members.get(id)
            hold(stored == known, "a stored member is known", stored, known)
        for key, _ in self._backend.range(MEMBERS_REMOVED, b"", None):
            hold(decode_member_key(bytes(key)) in self._removed, "who was removed is known", key)

    def _save(self, member: MemberRecord) -> None:
        self._members[member.id] = member
        self._backend.put(MEMBERS, member_key(member.id), member.to_json())

    def _say(self, message: str, prefix: str, member: MemberRecord) -> None:
        fields = {
            "cluster_id": format_id(self.id),
            "local_member_id": format_id(self.local_id),
            f"{prefix}_id": format_id(member.id),
            f"{prefix}_peer_urls" if prefix == "added_peer" else f"{prefix}_urls": list(
                member.peer_urls
            ),
            f"{prefix}_is_learner": member.is_learner,
        }
        self._log.info(message, **fields)


def _decode_downgrade(value: bytes | None) -> Downgrade:
    if not value:
        return Downgrade()
    try:
        fields = json.loads(bytes(value))
        target, enabled = fields.get("target-version", ""), fields.get("enabled", False)
        if enabled:
            parse_version(target)
    except (ValueError, AttributeError, TypeError, VersionError, RecursionError):
        raise MembershipDataError("downgrade information cannot be read") from None
    return Downgrade(str(target), enabled is True)
