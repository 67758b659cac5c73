"""What other members pass on or have brought into the log: no bytes of theirs end a member."""

from __future__ import annotations

import random

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message as Protobuf
from hypothesis import given
from hypothesis import strategies as st

from keyraft.base.ids import UINT64_MAX, RequestIDGenerator
from keyraft.cluster import encode_json
from keyraft.mvcc import plain_put
from keyraft.proto import membership_pb2, raft_internal_pb2, rpc_pb2
from keyraft.raft import ConfChange, Entry, EntryType, Message, MessageType, PeerMessageError, codec
from keyraft.server.apply import internal_request
from keyraft.server.consensus import forwarded_proposals
from tests.server.harness import OneMember

STRANGER = 0xBAD
NUMBERS = [0, 1, 2, 7, -1, 1 << 31, (1 << 63) - 1, -(1 << 63)]
TEXTS = ["", "a", "root", "3.7.0", "99.99.99", "abc", "é" * 300, "x" * 2_000]
BLOBS = [b"", b"a", b"b", b"\0", b"\xff" * 3, b"k" * 600, b"z" * 5_000]
REQUESTS = [
    field
    for field in raft_internal_pb2.InternalRaftRequest.DESCRIPTOR.fields
    if field.message_type is not None and field.name not in ("header", "v2")
]


def filled(message: Protobuf, chance: random.Random, depth: int = 0) -> None:
    """Any values that the fields' types allow."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.45:
            continue
        repeated = hasattr(getattr(message, field.name), "MergeFrom") and field.message_type is None
        repeated = repeated or hasattr(getattr(message, field.name), "add")
        for _ in range(chance.randrange(0, 3) if repeated else 1):
            if field.message_type is not None:
                if depth < 5:
                    part = getattr(message, field.name)
                    part = part.add() if repeated else part
                    part.SetInParent()
                    filled(part, chance, depth + 1)
                continue
            value = any_value(field, chance)
            try:
                if repeated:
                    getattr(message, field.name).append(value)
                else:
                    setattr(message, field.name, value)
            except (ValueError, TypeError):
                continue  # a negative number where there are none


def any_value(field: FieldDescriptor, chance: random.Random) -> object:
    if field.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.choice(BLOBS)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return chance.random() < 0.5
    return chance.choice(NUMBERS)


def any_request(chance: random.Random) -> bytes:
    """An InternalRaftRequest of any content, now and then a damaged one."""
    request = raft_internal_pb2.InternalRaftRequest()
    request.header.ID = chance.randrange(1, 1 << 40)
    part = getattr(request, chance.choice(REQUESTS).name)
    part.SetInParent()
    filled(part, chance)
    data = bytearray(request.SerializeToString())
    if chance.random() < 0.2:
        for _ in range(3):
            data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_in_the_log_is_carried_out_or_passed_over_at_every_start(seed: int) -> None:
    chance = random.Random(seed)
    one = OneMember()
    one.run()
    for round_ in range(6):
        for _ in range(25):
            data = any_request(chance)
            one.member.raft.propose(data, data)
        one.run()
        assert one.member.applied_index == one.member.committed_index
        one.crash()
        one.start()
        one.run()
        assert one.member.leadership.leading, round_
    one.member.membership.cluster.check()
    one.member.auth.disable()
    one.member.alarms.load(one.backend)
    key = b"after all"
    one.put(key, b"1")
    one.run()
    assert one.get(key) == b"1" or one.member.alarms.any


def proposal(*entries: Entry) -> Message:
    return Message(MessageType.PROP.value, from_=STRANGER, entries=list(entries))


def request(kind: int, body: bytes) -> bytes:
    header = raft_internal_pb2.InternalRaftRequest()
    header.header.ID = 77
    return internal_request.wrap(kind, body, header.SerializeToString())


def change(kind: int, ident: int, context: bytes) -> Entry:
    data = codec.encode_conf_change(ConfChange(kind, ident, context, 5))
    return Entry(data=data, type=EntryType.CONF_CHANGE.value)


def added(ident: int, urls: object, **more: object) -> bytes:
    return encode_json({"id": ident, "peerURLs": urls, **more})


VERSION_9 = membership_pb2.ClusterVersionSetRequest(ver="9.9.0").SerializeToString()
NO_VERSION = membership_pb2.ClusterVersionSetRequest(ver="new").SerializeToString()
NO_TARGET = membership_pb2.DowngradeInfoSetRequest(enabled=True, ver="old").SerializeToString()

REFUSED = [
    Entry(data=b"\xff\xff\xff"),
    Entry(data=b""),
    Entry(data=b"PUT"),
    Entry(data=request(internal_request.KIND_PUT, b"\xff")),
    Entry(data=request(internal_request.KIND_PUT, b"\x12\x01v")),  # no key
    Entry(data=request(internal_request.KIND_TXN, b"\x0a\xff")),
    Entry(data=request(internal_request.KIND_RANGE, b"")),
    Entry(data=request(internal_request.KIND_CLUSTER_VERSION_SET, VERSION_9)),
    Entry(data=request(internal_request.KIND_CLUSTER_VERSION_SET, NO_VERSION)),
    Entry(data=request(internal_request.KIND_DOWNGRADE_INFO_SET, NO_TARGET)),
    Entry(data=b"\xa2\x06\x02\x08\x07"),  # a header and no request
    Entry(
        data=request(internal_request.KIND_PUT, b"\x0a\x01k\x12\x00")
        + bytes(forwarded_proposals.ENTRY_BYTES_MAX)
    ),
    Entry(data=b"\xff", type=1),
    Entry(data=b"", type=1),
    change(0, 7, b"{"),
    change(0, 7, b"[" * 100_000),
    change(0, 7, added(8, ["http://a:1"])),
    change(0, 7, b'{"id":7,"peerURLs":["http://a:1"],"name":"\\ud800"}'),
    change(0, 0, added(0, ["http://a:1"])),
    Entry(data=b"", type=2),
    Entry(data=b"\x12\x04\x08\x00\x10\x07", type=2),
]


@pytest.mark.parametrize("entry", REFUSED, ids=range(len(REFUSED)))
def test_a_peers_proposal_that_nobody_could_carry_out_stays_out_of_the_log(entry: Entry) -> None:
    one = OneMember()
    one.run()
    last = one.member.raft.node.raft.log.last_index()
    good = Entry(data=request(internal_request.KIND_PUT, b"\x0a\x01k\x12\x01v"))
    with pytest.raises(PeerMessageError):
        one.member.raft.step(proposal(good, entry))
    one.run()
    assert one.member.raft.node.raft.log.last_index() == last
    one.member.raft.step(proposal(good))
    one.run()
    assert one.get(b"k") == b"v"


CANNOT_BE_MADE = [
    change(0, 7, b"{"),
    change(0, 7, added(8, ["http://a:1"])),
    change(0, 7, added(7, None)),
    change(0, 7, added(7, ["no url"])),
    change(3, 7, added(7, ["ftp://x:1"])),
    change(2, UINT64_MAX >> 1, added(7, ["http://a:1"])),
    Entry(data=codec.encode_conf_change(ConfChange(9, 7)), type=1),
    Entry(data=b"\xff", type=1),
    Entry(data=b"\xff", type=2),
    Entry(data=b"\x12\x04\x08\x01\x10\x07", type=2),
    Entry(data=b"\x08\x02\x12\x04\x08\x00\x10\x07", type=2),
]


@pytest.mark.parametrize("entry", CANNOT_BE_MADE, ids=range(len(CANNOT_BE_MADE)))
def test_a_committed_change_that_cannot_be_made_has_no_effect(entry: Entry) -> None:
    one = OneMember()
    one.run()
    before = one.member.membership.cluster.members
    one.member.raft.stop()
    index = one.log.entries[-1].index + 1
    term = one.log.state.term
    one.log.entries.append(Entry(term, index, entry.data, entry.type))
    one.log.state.commit = index
    one.crash()
    one.start()
    one.run()
    assert one.member.membership.cluster.members == before
    assert one.member.leadership.leading
    one.put(b"k", b"v")
    one.run()
    assert one.get(b"k") == b"v"


def test_the_last_voter_is_not_removed() -> None:
    """etcd panics there, at every start anew."""
    one = OneMember()
    one.run()
    own = one.member.settings.member_id
    answers: list[object] = []
    one.member.membership.propose(ConfChange(1, own), answers.append)
    one.run()
    assert len(answers) == 1
    assert "removed all voters" in str(answers[0].text)  # type: ignore[attr-defined]
    one.crash()
    one.start()
    one.run()
    assert one.member.leadership.leading
    assert [member.id for member in one.member.membership.cluster.members] == [own]


@given(data=st.data())
def test_the_short_look_at_a_forwarded_put_is_the_long_one(data: st.DataObject) -> None:
    sizes = st.sampled_from([0, 1, 2, 126, 127, 128, 129, 300, 16_382, 16_383, 16_384, 17_000])
    request = rpc_pb2.PutRequest(
        key=b"k" * data.draw(sizes),
        value=b"v" * data.draw(sizes),
        lease=data.draw(st.integers(0, 1)),
    ).SerializeToString()
    kind = data.draw(st.sampled_from([internal_request.KIND_PUT, internal_request.KIND_RANGE]))
    stamp = internal_request.Stamper(RequestIDGenerator(1, 1.0)).stamp()
    entry = bytearray(internal_request.wrap(kind, request, stamp))
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, min(len(entry), 400) - 1))
        entry[at] = data.draw(st.sampled_from([0, 1, 2, 10, 18, 127, 128, 129, 255]))
    cut = bytes(entry[: len(entry) - data.draw(st.sampled_from([0, 0, 0, 1, 5]))])
    parts = internal_request.split(cut)
    wanted = parts is not None and parts[0] == internal_request.KIND_PUT and plain_put(parts[1]) > 0
    assert forwarded_proposals._is_plain_put(cut) == wanted
