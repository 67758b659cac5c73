"""Members of 3.4 panic at a request of the v3 API about members or the cluster's version."""

from __future__ import annotations

import pytest

from keyraft.cluster import MIN_CLUSTER_VERSION, new_member
from keyraft.proto import membership_pb2
from keyraft.server import NoNetwork
from keyraft.server.apply import internal_request, v2_requests
from tests.server.harness import OneMember


def about_the_cluster(one: OneMember) -> list[bool]:
    """Of each entry about members or versions, in log order: whether it is of the v2 API."""
    told = []
    for entry in one.log.entries:
        if entry.type or not entry.data:
            continue
        if internal_request.is_v2(entry.data) is not None:
            told.append(True)
        elif internal_request.parse(entry.data).kind >= internal_request.KIND_CLUSTER_VERSION_SET:
            told.append(False)
    return told


def test_a_new_cluster_writes_requests_of_the_v3_api() -> None:
    one = OneMember()
    one.run(1.0)
    assert about_the_cluster(one) == [False, False]  # attributes, version


def test_among_members_of_3_4_the_attributes_are_a_request_of_the_v2_api() -> None:
    one = OneMember()
    one.member.membership.set_version("3.4.0")
    one.run(1.0)
    # Once it has seen that it is alone it raises the version, which only its like must understand.
    assert about_the_cluster(one) == [True, False]
    assert one.member.publisher.published
    local = one.member.membership.cluster.local
    assert local is not None
    assert (local.name, local.client_urls) == ("m1", ("http://127.0.0.1:2379",))


class Peers(NoNetwork):
    """A network of peers that told these versions."""

    def __init__(self, *told: str | None) -> None:
        self.told = dict(enumerate(told, 2))

    def versions(self) -> dict[int, str | None]:
        return self.told


@pytest.mark.parametrize("decided", ["", "3.0.0"])
@pytest.mark.parametrize(
    ("told", "is_old"),
    [((None,), False), (("3.7.1", "3.5.1"), False), (("no version",), False), (("3.4.23",), True)],
)
def test_as_long_as_no_version_is_decided_a_member_is_old_only_if_it_said_so(
    decided: str, told: tuple[str | None, ...], is_old: bool
) -> None:
    """A member of 3.7 panics at requests of the v2 API."""
    one = OneMember()
    one.member.network = Peers(*told)
    if decided:
        one.member.membership.set_version(decided)
    one.run(1.0)
    assert about_the_cluster(one) == [is_old, is_old]


def test_a_cluster_of_which_a_member_is_not_there_yet_writes_requests_of_the_v3_api() -> None:
    """The first version is then 3.0.0, whatever the members are."""
    one = OneMember()
    one.member.membership.cluster.add(new_member("late", ["http://127.0.0.2:2380"], "token"))
    one.unsound = True  # only the cluster knows that member, and Raft does not wait for it
    one.run(1.0)
    assert one.member.membership.cluster.version == MIN_CLUSTER_VERSION
    assert about_the_cluster(one) == [False, False]


def test_the_requests_say_what_todays_say() -> None:
    kind, request = v2_requests.translate(
        v2_requests.encode(
            internal_request.KIND_CLUSTER_VERSION_SET,
            membership_pb2.ClusterVersionSetRequest(ver="3.4.0").SerializeToString(),
        )
    ) or (0, b"")
    assert kind == internal_request.KIND_CLUSTER_VERSION_SET
    assert membership_pb2.ClusterVersionSetRequest.FromString(request).ver == "3.4.0"
    attributes = membership_pb2.Attributes(
        name='a "name"', client_urls=["http://h:1", "http://h:2"]
    )
    told = v2_requests.encode(
        internal_request.KIND_CLUSTER_MEMBER_ATTR_SET,
        membership_pb2.ClusterMemberAttrSetRequest(
            member_ID=0xAB, member_attributes=attributes
        ).SerializeToString(),
    )
    kind, request = v2_requests.translate(told) or (0, b"")
    assert kind == internal_request.KIND_CLUSTER_MEMBER_ATTR_SET
    set_request = membership_pb2.ClusterMemberAttrSetRequest.FromString(request)
    assert set_request.member_ID == 0xAB
    assert set_request.member_attributes.name == 'a "name"'
    assert list(set_request.member_attributes.client_urls) == ["http://h:1", "http://h:2"]
