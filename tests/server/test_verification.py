"""Every fact that is checked: a fault is planted into a member that is well, and it is told."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from keyraft.base.invariants import InvariantError
from keyraft.base.waiters import DoneWaiter
from keyraft.mvcc import WatchStream
from keyraft.mvcc.backend import ALARM, KEY, LEASE, META, META_CONSISTENT_INDEX
from keyraft.proto import auth_pb2, rpc_pb2
from keyraft.raft import ConfState, SoftState, StateType
from keyraft.server import Member
from keyraft.server.apply import internal_request
from keyraft.server.verification import Verification, check_member
from keyraft.storage.backend import MemoryEngine, WriteBuffer
from sim.loop import SimLoop
from tests.server.harness import OneMember
from tests.support.server import Server, etcdctl, needs_oracle

LEASE_ID = 77
KEYS = 450  # more than two steps


class Sink:
    """A stream's end; `writable` bytes still find room."""

    def __init__(self, writable: int) -> None:
        self.writable = writable

    def send(self, message: bytes) -> None:
        self.writable -= len(message)


def propose(one: OneMember, kind: int, request: Message) -> None:
    answers = one.propose(kind, request.SerializeToString())
    one.run(0.1)
    assert isinstance(answers.results[0], bytes), answers.results


@pytest.fixture
def one() -> OneMember:
    """A member with keys of all kinds, a lease, an alarm, watches; from now on it is not well."""
    found = OneMember()
    found.run(2.0)
    kinds = internal_request
    propose(found, kinds.KIND_LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=LEASE_ID, TTL=1_000))
    for number in range(KEYS):
        found.put(b"k%03d" % number, b"v")
    found.put(b"k001", b"again")
    propose(found, kinds.KIND_PUT, rpc_pb2.PutRequest(key=b"leased", value=b"v", lease=LEASE_ID))
    propose(found, kinds.KIND_DELETE_RANGE, rpc_pb2.DeleteRangeRequest(key=b"k002"))
    nospace = rpc_pb2.AlarmRequest(action=1, memberID=5, alarm=rpc_pb2.NOSPACE)
    propose(found, kinds.KIND_ALARM, nospace)
    for room in (1_000_000, 0):
        stream = WatchStream(found.member.watches, Sink(room))
        stream.create(b"k", b"l")
    found.run(0.1)
    found.backend.flush()
    check_member(found.member)
    found.unsound = True
    return found


def of(member: Member, path: str) -> Any:
    """What a dotted path names; faults are planted below the surface."""
    found: Any = member
    for name in path.split("."):
        found = getattr(found, name)
    return found


def lost_row(member: Member) -> None:
    (row, _), *_ = list(member.backend.range(KEY))[-3:]
    member.backend.delete(KEY, row)


def unknown_row(member: Member) -> None:
    rows = list(member.backend.range(KEY))
    row, stored = rows[3]
    del of(member, "store.index.entries")[b"k003"]
    of(member, "store.index.live").remove(b"k003")
    assert b"k003" in stored and row


def altered_row(member: Member) -> None:
    row, stored = list(member.backend.range(KEY))[10]
    member.backend.put(KEY, row, stored.replace(b"k010", b"x010"))


def forgotten_lease_key(member: Member) -> None:
    of(member, "lessor._leases")[LEASE_ID].keys.pop(b"leased")


def key_of_nobody(member: Member) -> None:
    of(member, "lessor._leases")[LEASE_ID].keys[b"k005"] = None


def lost_lease(member: Member) -> None:
    ((key, _),) = list(member.backend.range(LEASE))
    member.backend.delete(LEASE, key)


def unknown_lease(member: Member) -> None:
    del of(member, "lessor._leases")[LEASE_ID]


def dead_key_alive(member: Member) -> None:
    of(member, "store.index.dead").remove(b"k002")
    of(member, "store.index.live").add(b"k002")


def lost_watcher(member: Member) -> None:
    (cohort,) = of(member, "watches._live").cohorts()
    next(iter(cohort.watchers)).state = 99


def uncounted_bytes(member: Member) -> None:
    member.watches.pending_bytes += 1


def index_ahead(member: Member) -> None:
    index = (member.applied_index + 5).to_bytes(8, "big")
    member.backend.put(META, META_CONSISTENT_INDEX, index)


def index_lost(member: Member) -> None:
    member.backend.delete(META, META_CONSISTENT_INDEX)


def skipped_entry(member: Member) -> None:
    member.queue.applied_index -= 1


def other_voters(member: Member) -> None:
    member.membership.state = ConfState([1, 2, 3])


def unknown_voter(member: Member) -> None:
    of(member, "membership.cluster._members").clear()


def wrong_standing(member: Member) -> None:
    member.membership.sole_voter = False


def stale_grants(member: Member) -> None:
    auth: Any = member.auth
    user = auth_pb2.User(name=b"ann", roles=["r"])
    auth.records.put_user(user)
    auth.records.put_role(auth_pb2.Role(name=b"r"))
    assert auth._grants_of(b"ann") is not None
    granted = auth_pb2.Permission(permType=0, key=b"a")
    auth.records.put_role(auth_pb2.Role(name=b"r", keyPermission=[granted]))


def unstored_revision(member: Member) -> None:
    member.auth.revision += 1


def lost_deadline(member: Member) -> None:
    member.waiting.add(b"stamp", DoneWaiter(lambda _: None, 0.0))


def uncounted_alarm(member: Member) -> None:
    member.alarms.nospace = False


def unstored_alarm(member: Member) -> None:
    for key, _ in list(member.backend.range(ALARM)):
        member.backend.delete(ALARM, key)


def deadlines_of_nobody(member: Member) -> None:
    member.lessor.demote()
    while member.lessor.demotion_step():
        pass


def untold_leader(member: Member) -> None:
    member.leadership.follow(SoftState(0, StateType.FOLLOWER), member.leadership.term)
    member.lessor.demote()


def unwoken_raft(member: Member) -> None:
    member.raft.node.propose([b"x"])


def uncounted_proposals(member: Member) -> None:
    of(member, "raft")._queue_bytes += 1


def broken_raft(member: Member) -> None:
    of(member, "raft.node.raft").log.applied += 1_000


def reader_passed_over(member: Member) -> None:
    member.reads.wait_applied(member.applied_index, lambda _: None)


def unasked_round(member: Member) -> None:
    of(member, "reads")._round.append(lambda _: None)


FAULTS = [each for name, each in list(globals().items()) if inspect.isfunction(each)]
FAULTS = FAULTS[FAULTS.index(lost_row) :]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_told(one: OneMember, fault: Callable[[Member], None]) -> None:
    fault(one.member)
    with pytest.raises(InvariantError):
        check_member(one.member)


def test_a_configuration_is_the_same_in_any_order(one: OneMember) -> None:
    """The original's `etcdutl snapshot restore` names the voters in the order of its flags."""
    membership = one.member.membership
    (own,) = membership.state.voters
    membership.state = ConfState([own, 1])
    with pytest.raises(InvariantError, match="who is counted is a member: 1"):
        membership.check(ConfState([1, own]))
    with pytest.raises(InvariantError, match="the configuration is Raft's"):
        membership.check(ConfState([2, own]))


def test_a_live_member_looks_at_everything_again_and_again(one: OneMember) -> None:
    told: list[str] = []
    verification = Verification(one.member, told.append)
    verification.start()
    one.run(5.0)
    assert verification.passes > 2 and not told
    verification.end()
    assert not told


@pytest.mark.parametrize("fault", [altered_row, key_of_nobody, lost_watcher, skipped_entry])
def test_a_live_member_tells_of_the_first_fault_once(
    one: OneMember, fault: Callable[[Member], None]
) -> None:
    told: list[str] = []
    Verification(one.member, told.append).start()
    one.run(1.0)
    fault(one.member)
    one.run(5.0)
    assert len(told) == 1, told


@pytest.mark.slow
def test_what_grows_is_looked_at_while_it_changes(one: OneMember) -> None:
    told: list[str] = []
    verification = Verification(one.member, told.append)
    verification.start()
    for number in range(600):
        one.put(b"k%03d" % (number * 7 % 450), b"%d" % number)
        if number % 3 == 0:
            gone = rpc_pb2.DeleteRangeRequest(key=b"k%03d" % (number % 450))
            one.propose(internal_request.KIND_DELETE_RANGE, gone.SerializeToString())
        one.run(0.01)
    assert verification.passes > 2 and not told


class TestWriteBuffer:
    """The database of a live member."""

    def buffer(self) -> Any:
        loop = SimLoop()
        found = WriteBuffer(MemoryEngine(None, loop, 0.001), loop, lambda text: None)
        for number in range(500):
            found.put(KEY, b"%04d" % (number * 7 % 500), b"v")
        list(found.range(KEY))
        found.check()
        return found

    def test_changes_that_nobody_would_seal_are_told(self) -> None:
        buffer = self.buffer()
        buffer._timer.cancel()
        buffer._timer = None
        with pytest.raises(InvariantError):
            buffer.check()

    def test_changes_that_are_not_counted_are_told(self) -> None:
        buffer = self.buffer()
        buffer._ops = 0
        with pytest.raises(InvariantError):
            buffer.check()

    def test_changes_out_of_order_are_told(self) -> None:
        buffer = self.buffer()
        buffer._orders[KEY].keys.reverse()
        with pytest.raises(InvariantError):
            buffer.check()


PLANTED = """
from keyraft.lease import lessor
lessor.Lessor._store = lambda self, lease: None
from keyraft.cli.etcd import main
import sys
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.real
@needs_oracle()
def test_a_member_that_contradicts_itself_stops_with_a_clear_line(tmp_path: Path) -> None:
    server = Server((sys.executable, "-c", PLANTED), tmp_path / "data")
    server.start()
    try:
        etcdctl(server.endpoint, "lease", "grant", "100")
        assert server.wait() == 1
        assert "an invariant does not hold" in server.log and "a lease is stored" in server.log
    finally:
        server.kill()
