"""A member whose keys differ from the majority's replaces its database by itself.

It looks when it is accused (a CORRUPT alarm for it, raised by whoever leads), and once after each
start: it hashes its keys and asks everybody for the hash at the same revision. Then

- a majority of all members agrees with it: it is sound, and has an alarm for it disarmed;
- a majority agrees on another hash: it is wrong. It is fenced: its clients are refused, with etcd's
  error for a corrupt cluster, so nobody reads what is wrong. A leader hands over. Then it asks one of
  the majority, the leader if it can, for its database, which comes like one for a follower that has
  fallen behind, but Raft does not hear of it: log and vote of this member are as good as ever;
- there is no majority, or too few have answered: nobody knows who is wrong. Nothing is done but to
  look again; the alarm stays.

The database is built beside the one in use. When the log of this member reaches behind it, and no
snapshot of its own is newer, the member ends in order and starts again with it: a start applies what
the log has behind a database anyway. What was wrong is kept (`storage.transfer.layout`).

Only hashes of members of the same minor release are compared: older ones hash otherwise.

DEVIATION: with the original an operator removes such a member and adds it anew.
`--corrupt-self-repair=false` leaves it to the operator here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from keyraft.base.errors import EtcdError
from keyraft.base.version import VERSION
from keyraft.mvcc import KVHash
from keyraft.raft import Message
from keyraft.server.apply.internal_request import KIND_ALARM
from keyraft.server.ports import PeerHash
from keyraft.server.upkeep import alarms
from keyraft.server.upkeep.hashing import hash_keys

if TYPE_CHECKING:
    from keyraft.server.member import Member

CONTEXT: Final = b"keyraft: rebuild"  # of the message that such a database comes with
LOOK_S: Final = 2.0  # between two looks while it is not known who is wrong
LOOK_S_MAX: Final = 60.0  # it doubles: a look costs everybody a hash
LOOKS_AT_START_MAX: Final = 10  # after a start, as long as too few answer
RECEIVE_S: Final = 600.0  # for a database to come, and for the log to reach behind it


class Rebuild:
    """One member's. Owned by its loop."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._busy = False
        self._latest = True
        self._due_s = 0.0
        self._look_s = LOOK_S
        self._looks_left = 0  # without an accusation
        self._asked_s: float | None = None  # when a database was asked for
        self._index = 0  # of the database that is ready
        self.on_ready: Callable[[int], None] | None = None
        """Has the member end and start again with the database of this index; set by the owner."""

    def suspect(self) -> None:
        """It may have other keys than the others: it looks soon."""
        self._looks_left = LOOKS_AT_START_MAX

    @property
    def trusted(self) -> bool:
        """Whether nobody has said that the keys of this member are wrong."""
        return not self._member.leadership.fenced and not self._accused()

    def tick(self, now_s: float) -> None:
        """Called with every Raft tick."""
        if self._asked_s is not None:
            self._wait(now_s)
        elif (self._looks_left or self._member.alarms.corrupt) and not self._busy:
            if now_s >= self._due_s and not self._member.stopped:
                self._due_s = now_s + self._look_s
                if self._looks_left or self._accused():
                    self._look()

    def _accused(self) -> bool:
        own = self._member.settings.member_id
        return self._member.alarms.is_raised(alarms.CORRUPT, own)

    # --- who is wrong -------------------------------------------------------------------------

    def _look(self) -> None:
        member = self._member
        asking = member.peer_hashes
        self._looks_left = max(0, self._looks_left - 1)
        if asking is None or not self._member.settings.self_repair:
            self._looks_left = 0
            return
        if not member.leadership.leader or not self._can_be_judged():
            return
        self._busy = True
        self._look_s = min(2 * self._look_s, LOOK_S_MAX)
        self._latest = not self._latest

        def hashed(mine: KVHash) -> None:
            # A revision that was just compacted has a hash of its own on those who compacted it, so
            # every other time each is asked for its latest; they are the same where nobody writes.
            revision = 0 if self._latest else mine.revision
            asking.ask(revision, lambda peers: self._judge(mine, peers))

        hash_keys(member, 0, hashed, lambda _: self._rest())

    def _can_be_judged(self) -> bool:
        """Whether members that hash alike are a majority; else nobody need hash anything."""
        versions = self._member.network.versions()
        alike = 1 + sum(map(same_minor, versions.values()))
        return alike > len(self._member.membership.cluster.members) // 2

    def _rest(self) -> None:
        self._busy = False

    def _judge(self, mine: KVHash, peers: Sequence[PeerHash]) -> None:
        member = self._member
        self._busy = False
        if member.stopped:
            return
        own = member.settings.member_id
        groups: dict[int, list[int]] = {mine.hash: [own]}
        versions = member.network.versions()
        for peer in peers:
            found = peer.found
            if (
                found is not None
                and (found.revision, found.compact_revision)
                == (mine.revision, mine.compact_revision)
                and same_minor(versions.get(peer.member_id))
            ):
                groups.setdefault(found.hash, []).append(peer.member_id)
        quorum = (len(peers) + 1) // 2 + 1
        value = next((value for value, ids in groups.items() if len(ids) >= quorum), None)
        if value is None:
            return
        if value == mine.hash:
            self._sound()
        else:
            self._wrong(mine, value, groups[value])

    def _sound(self) -> None:
        member = self._member
        self._looks_left = 0
        self._look_s = LOOK_S
        member.leadership.fence(False)
        if self._accused():
            member.logger.info(
                "the keys of this member agree with the majority; its alarm is disarmed",
                local_member_id=f"{member.settings.member_id:x}",
            )
            request = alarms.deactivation(alarms.CORRUPT, member.settings.member_id)
            with suppress(EtcdError):
                member.propose(KIND_ALARM, request, lambda _: None)

    def _wrong(self, mine: KVHash, right: int, majority: Sequence[int]) -> None:
        member = self._member
        self._looks_left = max(self._looks_left, 1)  # it goes on until it is right
        self._look_s = LOOK_S
        if not member.leadership.fenced:
            member.logger.error(
                "the keys of this member differ from the majority's; its clients are refused",
                local_member_id=f"{member.settings.member_id:x}",
                revision=mine.revision,
                compact_revision=mine.compact_revision,
                hash=mine.hash,
                hash_of_the_majority=right,
            )
            member.leadership.fence(True)
        if member.leadership.leading:
            target = member.leadership_transfer.most_caught_up()
            if target:
                member.raft.transfer(target)
            return
        leader = member.leadership.leader
        source = leader if leader in majority else min(majority)
        assert member.peer_hashes is not None, "it has answered"
        self._asked_s = member.loop.time()
        member.logger.warn("asking for the database of another member", source=f"{source:x}")
        member.peer_hashes.ask_database(source, self._asked)

    # --- the database -------------------------------------------------------------------------

    def _asked(self, refusal: str) -> None:
        if refusal:
            self._give_up(refusal)

    def received(self, message: Message) -> None:
        """A database that was asked for is built and read."""
        if self._asked_s is not None and message.snapshot is not None:
            self._index = message.snapshot.meta.index

    def _wait(self, now_s: float) -> None:
        member = self._member
        assert self._asked_s is not None, "a database was asked for"
        if now_s - self._asked_s > RECEIVE_S:
            self._give_up("it took too long")
        if not self._index or member.stopped:
            return
        if member.snapshotter.index > self._index:
            self._give_up("the log begins behind it")
        elif (
            member.raft.stable_index >= self._index
            and not member.snapshotter.busy
            and not member.raft.installing
            and self.on_ready is not None
        ):
            index, self._index, self._asked_s = self._index, 0, float("inf")
            member.logger.warn(
                "this member starts again with the database of another member",
                local_member_id=f"{member.settings.member_id:x}",
                consistent_index=index,
            )
            self.on_ready(index)

    def _give_up(self, why: str) -> None:
        self._asked_s, self._index = None, 0
        member = self._member
        member.logger.warn("no database of another member was taken", error=why)
        self._due_s = member.loop.time() + LOOK_S


def same_minor(version: str | None) -> bool:
    """Whether a member's version is of our own minor release."""
    return version is not None and version.split(".")[:2] == VERSION.split(".")[:2]
