"""Members and endpoints by SRV records: whose they are, their order, and etcd's words for wrong ones."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from random import Random

import dns.resolver
import pytest

from keyraft.base.urls import parse_urls
from keyraft.net import (
    PEERS,
    SRVError,
    SRVRecord,
    SystemNames,
    client_endpoints,
    in_thread,
    peer_cluster,
    service_name,
)
from keyraft.net.srv import RECORDS_MAX, in_order
from tests.support.names import FixedNames, asked_here, srv_zone

ADDRESSES = {"m1.x": "10.0.0.1", "m2.x": "10.0.0.2", "alias.x": "10.0.0.1"}
MINE = parse_urls(["http://m1.x:2380"])


def cluster(*records: SRVRecord, secure: bool = False, advertised=MINE) -> list[str]:
    service = service_name(PEERS, "", secure)
    names = FixedNames({f"_{service}._tcp.x": records} if records else {}, ADDRESSES)
    return peer_cluster(names, secure, service, "me", "x", advertised)


def test_services_by_scheme_and_name() -> None:
    assert service_name("etcd-server", "", True) == "etcd-server-ssl"
    assert service_name("etcd-server", "blue", True) == "etcd-server-ssl-blue"
    assert service_name("etcd-client", "blue", False) == "etcd-client-blue"


def test_the_record_that_leads_to_our_address_is_ours_and_the_others_are_numbered() -> None:
    found = cluster(SRVRecord("m2.x.", 2380), SRVRecord("alias.x.", 2380), SRVRecord("m2.x.", 9))
    assert found == ["0=http://m2.x:2380", "me=http://alias.x:2380", "1=http://m2.x:9"]


def test_another_port_of_our_address_is_another_member() -> None:
    assert cluster(SRVRecord("m1.x.", 2381)) == ["0=http://m1.x:2381"]


def test_two_records_of_our_address_are_both_ours() -> None:
    found = cluster(SRVRecord("m1.x.", 2380), SRVRecord("alias.x.", 2380))
    assert found == ["me=http://m1.x:2380", "me=http://alias.x:2380"]


def test_a_record_of_the_other_scheme_is_left_out_when_it_is_ours() -> None:
    with pytest.raises(SRVError) as refused:
        cluster(SRVRecord("m1.x.", 2380), secure=True)
    assert str(refused.value) == (
        "error querying DNS SRV records for _etcd-server-ssl bootstrap at https://m1.x:2380 from "
        "DNS for etcd-server-ssl has scheme mismatch with expected peer http://m1.x:2380"
    )
    found = cluster(SRVRecord("m1.x.", 2380), SRVRecord("m2.x.", 2380), secure=True)
    assert found == ["0=https://m2.x:2380"]


def test_a_target_without_an_address_counts_only_when_nothing_else_is_found() -> None:
    lost = SRVRecord("lost.x.", 2380)
    assert cluster(lost, SRVRecord("m1.x.", 2380)) == ["me=http://m1.x:2380"]
    with pytest.raises(SRVError) as refused:
        cluster(lost)
    assert str(refused.value) == (
        "error querying DNS SRV records for _etcd-server "
        "lookup lost.x. on 127.0.0.1:53: no such host"
    )


def test_no_records_and_no_address_of_our_own() -> None:
    with pytest.raises(SRVError) as refused:
        cluster()
    assert str(refused.value) == (
        "error querying DNS SRV records for _etcd-server "
        "lookup _etcd-server._tcp.x on 127.0.0.1:53: no such host"
    )
    with pytest.raises(SRVError) as refused:
        cluster(SRVRecord("m1.x.", 2380), advertised=parse_urls(["http://lost.x:2380"]))
    assert str(refused.value) == "lookup lost.x on 127.0.0.1:53: no such host"


def test_endpoints_of_both_kinds_keep_their_records() -> None:
    a, b = SRVRecord("m1.x.", 2379, 0, 7), SRVRecord("m2.x.", 2379, 1, 0)
    names = FixedNames({"_etcd-client-ssl-n._tcp.x": [a], "_etcd-client-n._tcp.x": [b]})
    found = client_endpoints(names, "x", "n")
    assert found.endpoints == ("https://m1.x.:2379", "http://m2.x.:2379")
    assert found.records == (a, b)
    assert client_endpoints(FixedNames({"_etcd-client._tcp.x": [b]}), "x").records == (b,)
    with pytest.raises(SRVError) as refused:
        client_endpoints(FixedNames({}), "x")
    assert str(refused.value) == (
        "dns lookup errors: lookup _etcd-client-ssl._tcp.x on 127.0.0.1:53: no such host and "
        "lookup _etcd-client._tcp.x on 127.0.0.1:53: no such host"
    )


def test_priorities_come_in_order_and_weights_share_the_first_place() -> None:
    heavy, light, none = (SRVRecord(name, 1, 5, weight) for name, weight in zip("hln", (90, 10, 0)))
    best = SRVRecord("b", 1, 1, 0)
    random = Random(7)
    firsts: Counter[str] = Counter()
    for _ in range(500):
        ordered = in_order([none, light, heavy, best], random)
        assert ordered[0] is best and ordered[3] is none
        assert set(ordered) == {best, heavy, light, none}
        firsts[ordered[1].target] += 1
    assert firsts["h"] > 5 * firsts["l"] > 0
    same = [SRVRecord(name, 1) for name in "abc"]
    assert in_order(same, random) == same


def refusal(name: str) -> str:
    with pytest.raises(SRVError) as refused:
        SystemNames().records(name)
    return str(refused.value)


def test_a_name_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"0 0 {port} a-rather-long-name-of-a-member.many.test." for port in range(1, 201)]
    zone = srv_zone(
        {
            "_s._tcp.some.test.": ["2 0 2380 b.some.test.", "1 0 2379 a.some.test."],
            "_s._tcp.many.test.": many,
            "_s._tcp.flood.test.": [f"0 0 {port} x." for port in range(1, RECORDS_MAX + 2)],
        }
    )
    with asked_here(zone + "_s._tcp.nodata.test. 60 IN A 127.0.0.1\n", monkeypatch) as server:
        names, at = SystemNames(), f"on 127.0.0.1:{server.port}"
        assert names.records("_s._tcp.some.test") == [
            SRVRecord("a.some.test.", 2379, 1),
            SRVRecord("b.some.test.", 2380, 2),
        ]
        assert names.records("_s._tcp.some.test.")[0].port == 2379
        assert len(names.records("_s._tcp.many.test")) == 200  # more than UDP carries
        for name in ("_s._tcp.none.test", "_s._tcp.nodata.test"):
            assert refusal(name) == f"lookup {name} {at}: no such host"
        for name in ("_s._tcp.servfail.test", "_s._tcp.refused.test"):
            assert refusal(name) == f"lookup {name} {at}: server misbehaving"
        for name in ("_s._tcp.a..b", "_s._tcp." + "a" * 64, "_s._tcp." + "a." * 200):
            assert refusal(name) == f"lookup {name}: no such host"
        said = refusal("_s._tcp.flood.test")
        assert said == f"lookup _s._tcp.flood.test {at}: 257 records, more than 256"


def test_a_server_that_does_not_answer_ends_in_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    monkeypatch.setattr(dns.resolver, "default_resolver", resolver)

    def late(*_: object, **how: object) -> None:
        assert how["lifetime"] == 10.0
        raise dns.resolver.LifetimeTimeout(timeout=10.0, errors=[])

    monkeypatch.setattr(resolver, "resolve", late)
    assert refusal("_s._tcp.x") == "lookup _s._tcp.x on 127.0.0.1:53: i/o timeout"


def test_a_machine_without_a_configuration_asks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def unset() -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver, "get_default_resolver", unset)
    monkeypatch.setattr(
        dns.resolver.Resolver,
        "resolve",
        lambda self, *_, **__: (_ for _ in ()).throw(dns.resolver.NXDOMAIN()),
    )
    assert refusal("_s._tcp.x") == "lookup _s._tcp.x on 127.0.0.1:53: no such host"


def test_addresses_of_numbers_and_of_what_is_no_name() -> None:
    names = SystemNames()
    assert names.address("127.0.0.1", 80) == "127.0.0.1:80"
    assert names.address("::1", 80) == "[::1]:80"
    assert names.address("localhost", 80) in ("127.0.0.1:80", "[::1]:80")
    # As DNS gives it; from /etc/hosts, where it is without the dot.
    assert names.address("localhost.", 80) == names.address("localhost", 80)
    for host in ("a" * 64, "a..b", ".", "a\\.b.", "a]b."):
        with pytest.raises(SRVError, match="no such host"):
            names.address(host, 80)


def test_work_in_a_thread_returns_raises_and_may_be_left_behind() -> None:
    done = threading.Event()

    async def scenario() -> None:
        assert await in_thread(lambda: 7) == 7
        with pytest.raises(SRVError, match="why"):
            await in_thread(lambda: (_ for _ in ()).throw(SRVError("why")))
        left = asyncio.ensure_future(in_thread(done.wait))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left

    asyncio.run(scenario())  # and does not wait for the thread
    done.set()
