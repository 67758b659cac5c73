"""Ids are those that etcd derives from the same flags."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyraft.base.urls import parse_urls_map
from keyraft.cluster import cluster_id, format_id, founders, member_id
from tests.support.server import ORACLE, Server, etcdctl, needs_oracle


def test_the_ids_that_every_default_member_has() -> None:
    id = member_id(["http://localhost:2380"], "etcd-cluster")
    assert format_id(id) == "8e9e05c52164694d"
    assert format_id(cluster_id([id])) == "cdf818194e3a8c32"


def test_the_order_of_urls_and_members_is_nothing() -> None:
    urls = ["http://b:1", "http://a:1"]
    assert member_id(urls, "t") == member_id(reversed(urls), "t")
    assert cluster_id([1, 2, 3]) == cluster_id([3, 1, 2])
    assert member_id(urls, "t") != member_id(urls, "u")
    assert member_id(urls, "t", 1) != member_id(urls, "t", 2)


@pytest.mark.real
@needs_oracle()
def test_a_live_original_derives_the_same(tmp_path: Path) -> None:
    for number, token in enumerate(("etcd-cluster", "tøken")):
        server = Server(
            ORACLE,
            tmp_path / f"data{number}",
            name="mèmber",
            flags=[f"--initial-cluster-token={token}"],
        ).start()
        try:
            found = etcdctl(server.endpoint, "get", "x", "-w", "json")
        finally:
            server.stop()
        header = json.loads(found.stdout)["header"]
        initial = parse_urls_map(f"mèmber=http://127.0.0.1:{server.peer_port}")
        (member,) = founders(token, initial)
        assert header["member_id"] == member.id
        assert header["cluster_id"] == cluster_id([member.id])
