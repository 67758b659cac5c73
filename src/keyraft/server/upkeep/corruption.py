"""Checks that all members hold the same keys: at a start, periodically, and after compactions.

Three checks after etcd's `server/etcdserver/corrupt.go`:

- initial: every member compares its hash with that of its peers when it has started (`rebuild`); with
  the gate InitialCorruptCheck before that, and it does not start if one differs and it is not clear
  who is wrong;
- periodic (`--corrupt-check-time`): the leader hashes at its present revision, asks the peers,
  reads linearizably, and hashes again; so a peer may be behind the second hash but never ahead of
  it;
- after compactions (gate CompactHashCheck): compares the stored hashes of finished compactions,
  which costs almost nothing; the majority counts as right.

A member that differs gets a CORRUPT alarm through the log; from then on every member refuses to
write keys, until the accused has rebuilt itself (`rebuild`). Hashing is done in slices; peers that do not answer are ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from keyraft.base import errors
from keyraft.base.errors import EtcdError
from keyraft.base.waiters import Result
from keyraft.mvcc import KVHash
from keyraft.server.apply.internal_request import KIND_ALARM
from keyraft.server.ports import PeerHash
from keyraft.server.upkeep import alarms
from keyraft.server.upkeep.hashing import hash_keys
from keyraft.server.upkeep.rebuild import same_minor

if TYPE_CHECKING:
    from keyraft.server.member import Member

_REFUSALS: Final = (
    (errors.FutureRevisionError, "cannot fetch hash from slow remote peer"),
    (errors.CompactedError, "cannot fetch hash from remote peer; local member is behind"),
    (errors.ClusterIDMismatchError, "cluster ID mismatch"),
)


class CorruptionChecker:
    """Owned by the member's loop; does nothing without peers."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._checking = False
        self._checked_revision = 0  # the newest revision whose compaction hashes all agreed

    def start(self) -> None:
        """Starts the checks of the settings."""
        member = self._member
        settings = member.settings
        if settings.corrupt_check_s > 0:
            member.logger.info(
                "enabled corruption checking",
                local_member_id=f"{settings.member_id:x}",
                interval=f"{settings.corrupt_check_s:g}s",
            )
            self._again(settings.corrupt_check_s, self._periodic)
        if settings.compact_hash_check_s > 0:
            self._again(settings.compact_hash_check_s, self._compactions)
        if settings.self_repair and member.store.revision > 1:
            member.rebuild.suspect()  # the initial check, beside serving

    def _again(self, interval_s: float, check: Callable[[], None]) -> None:
        def due() -> None:
            if self._member.stopped:
                return
            self._again(interval_s, check)
            if self._member.leadership.leading and not self._checking and self._comparable():
                check()

        self._member.loop.call_later(interval_s, due)

    def _comparable(self) -> bool:
        """DEVIATION: hashes of another minor release are not compared; some count other rows, and
        these checks are on by default."""
        versions = self._member.network.versions().values()
        return all(version is None or same_minor(version) for version in versions)

    # --- what all checks are made of ----------------------------------------------------------

    def _hash(self, done: Callable[[KVHash], None]) -> None:
        """This member's hash at its present revision."""
        hash_keys(self._member, 0, done, lambda _: self._hash(done))

    def _ask(self, revision: int, done: Callable[[Sequence[PeerHash]], None]) -> None:
        asking = self._member.peer_hashes
        if asking is None:
            done(())
        else:
            asking.ask(revision, done)

    def _alarm(self, member_id: int) -> None:
        """Proposes a CORRUPT alarm for a member; 0: the member is unknown."""
        request = alarms.activation(alarms.CORRUPT, member_id)
        with suppress(EtcdError):
            self._member.propose(KIND_ALARM, request, _ignore)

    # --- before serving -----------------------------------------------------------------------

    def initial(self, done: Callable[[str], None]) -> None:
        """Compares with the peers; `done` gets why the member must not start, or ""."""
        member = self._member
        settings = member.settings
        own = f"{settings.member_id:x}"
        member.logger.info(
            "starting initial corruption check",
            local_member_id=own,
            timeout=f"{member.settings.request_timeout_s:g}s",
        )

        def compared(mine: KVHash, peers: Sequence[PeerHash]) -> None:
            others = [peer.found for peer in peers if self._differs(mine, peer)]
            if others:
                same = len({other.hash for other in others if other is not None}) == 1
                if settings.self_repair and same and len(others) > (len(peers) + 1) // 2:
                    # A majority agrees, so it is known who is wrong.
                    member.leadership.fence(True)
                    member.rebuild.suspect()
                    done("")
                else:
                    done(f"{own} found data inconsistency with peers")
                return
            member.logger.info(
                "initial corruption checking passed; no corruption", local_member_id=own
            )
            done("")

        self._hash(lambda mine: self._ask(mine.revision, lambda peers: compared(mine, peers)))

    def _differs(self, mine: KVHash, peer: PeerHash) -> bool:
        """Whether the peer has other keys at the same revision; logs the result."""
        logger = self._member.logger
        fields: dict[str, Any] = {
            "local_member_id": f"{self._member.settings.member_id:x}",
            "local_member_revision": mine.revision,
            "local_member_compact_revision": mine.compact_revision,
            "local_member_hash": mine.hash,
            "remote_peer_id": f"{peer.member_id:x}",
            "remote_peer_endpoints": list(peer.endpoints),
        }
        if peer.found is None:
            for kind, text in _REFUSALS:
                if isinstance(peer.error, kind):
                    logger.warn(text, **fields)
            return False
        if peer.found.hash == mine.hash:
            return False
        fields["remote_peer_revision"] = peer.revision
        fields["remote_peer_compact_revision"] = peer.found.compact_revision
        fields["remote_peer_hash"] = peer.found.hash
        if peer.found.compact_revision != mine.compact_revision:
            logger.warn("found different compact revision values from remote peer", **fields)
            return False
        logger.warn("found different hash values from remote peer", **fields)
        return True

    # --- now and then -------------------------------------------------------------------------

    def _periodic(self) -> None:
        self._checking = True

        def hashed(mine: KVHash) -> None:
            self._ask(mine.revision, lambda peers: asked(mine, peers))

        def asked(mine: KVHash, peers: Sequence[PeerHash]) -> None:
            self._member.read_index(lambda error: read(mine, peers, error))

        def read(mine: KVHash, peers: Sequence[PeerHash], error: EtcdError | None) -> None:
            if error is not None:
                self._checking = False
                if not self._member.stopped:
                    self._member.logger.warn("failed to check hash KV", error=error.text)
                return
            self._hash(lambda later: self._compare(mine, later, peers))

        self._hash(hashed)

    def _compare(self, mine: KVHash, later: KVHash, peers: Sequence[PeerHash]) -> None:
        self._checking = False
        member = self._member
        logger = member.logger
        guilty: list[int] = []
        same_place = (later.revision, later.compact_revision) == (
            mine.revision,
            mine.compact_revision,
        )
        if same_place and later.hash != mine.hash:
            logger.warn("found hash mismatch", revision=mine.revision, hash_1=mine.hash, hash_2=later.hash)  # fmt: skip
            guilty.append(member.settings.member_id)
        checked = 0
        for peer in peers:
            if peer.found is None:
                continue
            checked += 1
            name = f"{peer.member_id:x}"
            if peer.revision > later.revision:
                logger.warn(
                    "revision from follower must be less than or equal to leader's",
                    leader_revision=later.revision,
                    follower_revision=peer.revision,
                    follower_peer_id=name,
                )
                guilty.append(peer.member_id)
            if peer.found.compact_revision > later.compact_revision:
                logger.warn(
                    "compact revision from follower must be less than or equal to leader's",
                    leader_compact_revision=later.compact_revision,
                    follower_compact_revision=peer.found.compact_revision,
                    follower_peer_id=name,
                )
                guilty.append(peer.member_id)
            if (
                peer.found.compact_revision == mine.compact_revision
                and peer.found.hash != mine.hash
            ):
                logger.warn(
                    "same compact revision then hashes must match",
                    leader_compact_revision=mine.compact_revision,
                    leader_hash=mine.hash,
                    follower_compact_revision=peer.found.compact_revision,
                    follower_hash=peer.found.hash,
                    follower_peer_id=name,
                )
                guilty.append(peer.member_id)
        if self._outvoted(mine, peers):
            # DEVIATION: the original accuses the first that differs from the leader.
            guilty = [member.settings.member_id]
        if guilty:
            self._alarm(guilty[0])  # only the first, as in the original
        logger.info("finished peer corruption check", number_of_peers_checked=checked)

    def _outvoted(self, mine: KVHash, peers: Sequence[PeerHash]) -> bool:
        """Whether a majority of all members agrees on another hash than this leader's."""
        hashes = Counter(
            peer.found.hash
            for peer in peers
            if peer.found is not None and peer.found.compact_revision == mine.compact_revision
        )
        del hashes[mine.hash]
        return any(count > (len(peers) + 1) // 2 for count in hashes.values())

    # --- after compactions --------------------------------------------------------------------

    def _compactions(self) -> None:
        self._checking = True
        member = self._member
        member.logger.info(
            "starting compact hash check",
            local_member_id=f"{member.settings.member_id:x}",
            timeout=f"{member.settings.request_timeout_s:g}s",
        )
        unchecked = [
            one for one in member.store.hashes.hashes if one.revision > self._checked_revision
        ]
        total = len(unchecked)

        def next_one() -> None:
            if not unchecked:
                finish(total)
                return
            newest = unchecked.pop()
            self._ask(newest.revision, lambda peers: asked(newest, peers))

        def asked(mine: KVHash, peers: Sequence[PeerHash]) -> None:
            if peers and self._agreed(mine, peers):
                finish(total - len(unchecked))
            else:
                next_one()

        def finish(count: int) -> None:
            self._checking = False
            member.logger.info("finished compaction hash check", number_of_hashes_checked=count)

        next_one()

    def _agreed(self, mine: KVHash, peers: Sequence[PeerHash]) -> bool:
        """Whether the check is complete: all have answered, or alarms were raised."""
        member = self._member
        logger = member.logger
        own = member.settings.member_id
        groups: dict[int, list[int]] = {mine.hash: [own]}
        checked = 0
        for peer in peers:
            if peer.found is None:
                reason = "no response"
            elif peer.found.compact_revision != mine.compact_revision:
                reason = (
                    f"the peer's CompactRevision {peer.found.compact_revision} doesn't match "
                    f"leader's CompactRevision {mine.compact_revision}"
                )
            else:
                checked += 1
                groups.setdefault(peer.found.hash, []).append(peer.member_id)
                continue
            logger.warn(
                "Skipped peer's hash",
                number_of_peers=len(peers),
                leader_id=f"{own:x}",
                peer_id=f"{peer.member_id:x}",
                reason=reason,
            )
        if len(groups) == 1:
            return self._consistent(mine, checked, len(peers))
        quorum = (len(peers) + 1) // 2 + 1
        right = next((value for value, ids in groups.items() if len(ids) >= quorum), None)
        if right is None:
            logger.error(
                "Detected compaction hash mismatch but cannot identify the corrupted members, so "
                "intentionally set the memberID as 0",
                leader_id=f"{own:x}",
                leader_revision=mine.revision,
                leader_compact_revision=mine.compact_revision,
                leader_hash=mine.hash,
            )
            self._alarm(0)
        else:
            del groups[right]
        for value, ids in groups.items():
            if right is not None:
                for member_id in ids:
                    self._alarm(member_id)
            logger.error(
                "Detected compaction hash mismatch",
                leader_id=f"{own:x}",
                leader_revision=mine.revision,
                leader_compact_revision=mine.compact_revision,
                leader_hash=mine.hash,
                peer_hash=value,
                peer_ids=", ".join(f"{member_id:x}" for member_id in ids),
                quorum_exist=right is not None,
            )
        return True

    def _consistent(self, mine: KVHash, checked: int, peers: int) -> bool:
        fields = {
            "number_of_peers_checked": checked,
            "revision": mine.revision,
            "compactRevision": mine.compact_revision,
        }
        if checked == peers:
            self._member.logger.info("successfully checked hash on whole cluster", **fields)
            self._checked_revision = max(self._checked_revision, mine.revision)
            return True
        self._member.logger.warn(
            "skipped revision in compaction hash check; was not able to check all peers",
            number_of_peers=peers,
            **fields,
        )
        return False


def _ignore(_: Result) -> None:
    """Ignores the answer to the alarm request."""
