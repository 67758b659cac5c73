"""What a member refuses before it founds or joins a cluster, in etcd's words."""

from __future__ import annotations

import pytest

from keyraft.base.errors import TooManyLearnersError
from keyraft.base.ids import MemberID
from keyraft.base.urls import parse_urls, parse_urls_map
from keyraft.cluster import (
    BootstrapError,
    MemberRecord,
    adopt_ids,
    check_join,
    check_learners,
    check_new_cluster,
    founders,
)

LOCAL = parse_urls(["http://localhost:2380"])


def refused(name: str, advertised: str, initial: str) -> str:
    with pytest.raises(BootstrapError) as caught:
        check_new_cluster(name, parse_urls(advertised.split(",")), parse_urls_map(initial))
    return str(caught.value)


def test_messages_are_those_of_the_original() -> None:
    assert refused("x", "http://localhost:2380", "y=http://localhost:2380") == (
        'couldn\'t find local name "x" in the initial cluster configuration'
    )
    assert refused("default", "http://localhost:2380", "default=http://127.0.0.1:2399") == (
        "--initial-cluster has default=http://127.0.0.1:2399 but missing from "
        "--initial-advertise-peer-urls=http://localhost:2380 "
        '(resolved urls: "http://localhost:2380" != "http://127.0.0.1:2399")'
    )
    both = "default=http://localhost:2380,b=http://localhost:2380"
    assert refused("default", "http://localhost:2380", both) == (
        "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url"
    )
    two = "http://localhost:2380,http://localhost:2390"
    assert refused("default", two, "default=http://localhost:2380") == (
        "--initial-advertise-peer-urls has http://localhost:2390 but missing from "
        "--initial-cluster=default=http://localhost:2380,default=http://localhost:2390"
    )


def test_names_are_resolved_before_two_urls_are_called_different() -> None:
    addresses = {"a:1": "10.0.0.1:1", "10.0.0.1:1": "10.0.0.1:1"}
    initial = parse_urls_map("m=http://10.0.0.1:1")
    check_new_cluster("m", parse_urls(["http://a:1"]), initial, addresses.__getitem__)

    def unknown(address: str) -> str:
        raise OSError("no such host")

    with pytest.raises(BootstrapError, match="no such host"):
        check_new_cluster("m", parse_urls(["http://a:1"]), initial, unknown)


def test_a_joining_member_must_be_in_the_initial_cluster() -> None:
    check_join("a", parse_urls_map("a=http://a:1,b=http://b:1"))
    with pytest.raises(BootstrapError, match="couldn't find local name"):
        check_join("c", parse_urls_map("a=http://a:1"))
    with pytest.raises(BootstrapError, match="discovery URL should not be set"):
        check_join("a", parse_urls_map("a=http://a:1"), discovers=True)


def test_founders_are_the_same_everywhere() -> None:
    initial = parse_urls_map("a=http://a:1,b=http://b:1,c=http://c:1")
    members = founders("t", initial)
    assert [m.id for m in members] == sorted(m.id for m in members)
    assert founders("t", dict(reversed(initial.items()))) == members
    with pytest.raises(BootstrapError, match="identical ID"):
        founders("t", {"a": parse_urls(["http://a:1"]), "b": parse_urls(["http://a:1"])})


def test_a_joining_member_takes_the_ids_of_the_running_cluster() -> None:
    running = [
        MemberRecord(MemberID(5), ("http://b:1",)),
        MemberRecord(MemberID(6), ("http://a:1",)),
    ]
    mine = founders("t", parse_urls_map("a=http://a:1,b=http://b:1"))
    adopted = {member.name: member.id for member in adopt_ids(mine, running, 9)}
    assert adopted == {"a": 6, "b": 5}
    with pytest.raises(BootstrapError, match="member count is unequal"):
        adopt_ids(mine[:1], running, 9)
    with pytest.raises(BootstrapError, match="PeerURLs: no match found for existing member"):
        adopt_ids(founders("t", parse_urls_map("a=http://a:1,c=http://c:1")), running, 9)


def test_learners_are_counted() -> None:
    learner = MemberRecord(MemberID(1), is_learner=True)
    check_learners([learner], 1)
    with pytest.raises(TooManyLearnersError):
        check_learners([learner], 1, adding=1)
