"""Members of 3.4 panic at a request of the v3 API about members or the cluster's version."""

from __future__ import annotations

from keyraft.proto import membership_pb2
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


def test_the_requests_say_what_todays_say() -> None:
    kind, request = v2_requests.translate(v2_requests.encode_version("3.4.0")) or (0, b"")
    assert kind == internal_request.KIND_CLUSTER_VERSION_SET
    assert membership_pb2.ClusterVersionSetRequest.FromString(request).ver == "3.4.0"
    told = v2_requests.encode_attributes(0xAB, 'a "name"', ["http://h:1", "http://h:2"])
    kind, request = v2_requests.translate(told) or (0, b"")
    assert kind == internal_request.KIND_CLUSTER_MEMBER_ATTR_SET
    set_request = membership_pb2.ClusterMemberAttrSetRequest.FromString(request)
    assert set_request.member_ID == 0xAB
    assert set_request.member_attributes.name == 'a "name"'
    assert list(set_request.member_attributes.client_urls) == ["http://h:1", "http://h:2"]
