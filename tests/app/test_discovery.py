"""Members of a new cluster by SRV records and by a token in the keys of another cluster."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from keyraft.app import discovery, registry
from keyraft.app.discovery import by_records, by_registry
from keyraft.app.registry import Registry, RegistryError
from keyraft.app.start_checks import DiscoveryError, StartError
from keyraft.client.errors import UnavailableError
from keyraft.config.arguments import load
from keyraft.net import SRVRecord
from tests.support.names import FixedNames

ADDRESSES = {"m1.x": "10.0.0.1", "m2.x": "10.0.0.2", "m3.x": "10.0.0.3"}
PLAIN = [SRVRecord(f"m{number}.x.", 2380) for number in (1, 2, 3)]


class Lines:
    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def info(self, message: str, **fields: object) -> None:
        self.said.append((message, fields))

    debug = warn = error = info

    @property
    def messages(self) -> list[str]:
        return [message for message, _ in self.said]


def config(*flags: str):
    lines = Lines()
    made = load(["--name=me", "--initial-advertise-peer-urls=http://m1.x:2380", *flags], {})
    return made._replace(log=lines), lines


def test_the_records_become_the_initial_cluster() -> None:
    given, lines = config("--discovery-srv=x")
    found = by_records(given, FixedNames({"_etcd-server._tcp.x": PLAIN}, ADDRESSES))
    assert found.initial_cluster == "me=http://m1.x:2380,0=http://m2.x:2380,1=http://m3.x:2380"
    assert found.initial_cluster_token == "etcd-cluster"
    secure, plain, failed, *nodes = lines.said
    assert secure[0] == "get cluster for etcd-server-ssl SRV"
    assert secure[1]["found_cluster"] == [] and "no such host" in secure[1]["error"]
    assert plain[0] == "get cluster for etcd-server SRV"
    assert plain[1] == {
        "service_scheme": "http",
        "service_name": "etcd-server",
        "server_name": "me",
        "discovery_srv": "x",
        "advertise_peer_urls": ["http://m1.x:2380"],
        "found_cluster": found.initial_cluster.split(","),
    }
    assert failed[0] == "failed to resolve during SRV discovery"
    assert {message for message, _ in nodes} == {"got bootstrap from DNS for etcd-server"}


def test_a_service_name_is_the_end_of_the_service() -> None:
    given, _ = config("--discovery-srv=x", "--discovery-srv-name=blue")
    names = FixedNames({"_etcd-server-blue._tcp.x": PLAIN[:1]}, ADDRESSES)
    assert by_records(given, names).initial_cluster == "me=http://m1.x:2380"


def test_both_kinds_of_records_are_one_cluster() -> None:
    given, _ = config("--discovery-srv=x", "--initial-advertise-peer-urls=https://m1.x:2380")
    names = FixedNames(
        {"_etcd-server-ssl._tcp.x": PLAIN[:1], "_etcd-server._tcp.x": PLAIN[1:2]}, ADDRESSES
    )
    assert by_records(given, names).initial_cluster == "me=https://m1.x:2380,0=http://m2.x:2380"


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (
            {},
            "error setting up initial cluster: "
            "error querying DNS SRV records for _etcd-server-ssl "
            "lookup _etcd-server-ssl._tcp.x on 127.0.0.1:53: no such host\n"
            "error querying DNS SRV records for _etcd-server "
            "lookup _etcd-server._tcp.x on 127.0.0.1:53: no such host",
        ),
        (
            {"_etcd-server._tcp.x": PLAIN[1:]},
            'error setting up initial cluster: cannot find local etcd member "me" in SRV records',
        ),
    ],
)
def test_wrong_records_end_the_start(records: dict[str, list[SRVRecord]], why: str) -> None:
    given, _ = config("--discovery-srv=x")
    with pytest.raises(StartError) as refused:
        by_records(given, FixedNames(records, ADDRESSES))
    assert str(refused.value) == why


# --- by token ---------------------------------------------------------------------------------


class Keys:
    """A registry: its keys with their create revisions, and who watches them."""

    def __init__(self, size: bytes | None = b"2") -> None:
        self.revision = 1
        self.pairs: dict[str, Any] = {}
        self.broken = 0  # so many calls fail
        self.watching: asyncio.Queue[Any] | None = None
        self.on_watch: Any = None
        if size is not None:
            self.write("/_etcd/registry/t/_config/size", size)

    def write(self, key: str, value: bytes) -> None:
        self.revision += 1
        old = self.pairs.get(key)
        created = old.create_revision if old else self.revision
        pair = SimpleNamespace(key=key.encode(), value=value, create_revision=created)
        self.pairs[key] = pair
        if self.watching is not None:
            self.watching.put_nowait(SimpleNamespace(kv=pair))

    def register(self, name: str, value: str) -> None:
        self.write(f"/_etcd/registry/t/members/{name}", value.encode())

    def _fail(self) -> None:
        if self.broken:
            self.broken -= 1
            raise UnavailableError("away")

    async def get(self, key: str, *, prefix=False, limit=0, timeout_s=0.0, sort_by="", order=""):
        self._fail()
        assert timeout_s == 5.0 and (not prefix or (limit, sort_by, order)) == (
            (1024, "create", "ascend") if prefix else True
        )
        kvs = [
            pair
            for name, pair in self.pairs.items()
            if name == key or (prefix and name.startswith(key))
        ]
        kvs.sort(key=lambda pair: pair.create_revision)
        return SimpleNamespace(kvs=kvs, header=SimpleNamespace(revision=self.revision))

    async def put(self, key: str, value: str, *, timeout_s: float) -> None:
        self._fail()
        self.write(key, value.encode())

    @asynccontextmanager
    async def watch(self, key: str, *, prefix: bool, start_revision: int):
        assert (key, prefix) == ("/_etcd/registry/t/members", True)
        self._fail()
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.watching = queue
        for pair in self.pairs.values():
            if pair.create_revision >= start_revision and b"/members/" in pair.key:
                queue.put_nowait(SimpleNamespace(kv=pair))

        async def events():
            while True:
                yield await queue.get()

        if self.on_watch is not None:
            self.on_watch()
        yield events()
        self.watching = None


def coming(keys: Keys, **registrations: str):
    """What happens while a member waits."""

    def come() -> None:
        for name, value in registrations.items():
            keys.register(name, value)

    return come


def join(keys: Keys, own: str = "me=http://m1.x:2380", number: int = 0xA1):
    """The cluster that a member finds, what it has said, how long it waited between tries."""
    lines, waits = Lines(), []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def scenario() -> str:
        return await asyncio.wait_for(
            Registry(keys, "t", number, 5.0, lines, sleep=sleep, discovery_token="t").join(own), 10
        )

    return asyncio.run(scenario()), lines, waits


def refused(keys: Keys, number: int = 0xA1) -> str:
    with pytest.raises(RegistryError) as why:
        join(keys, number=number)
    return str(why.value)


def test_a_member_registers_itself_and_waits_for_the_others() -> None:
    keys = Keys(b"3")
    keys.register("b2", "two=http://m2.x:2380")
    keys.on_watch = coming(keys, c3="three=http://m3.x:2380", d4="four=http://m4.x:2380")
    cluster, lines, _ = join(keys)
    assert cluster == "two=http://m2.x:2380,me=http://m1.x:2380,three=http://m3.x:2380"
    assert keys.pairs["/_etcd/registry/t/members/a1"].value == b"me=http://m1.x:2380"
    assert [message for message in lines.messages if "found peer" not in message] == [
        "register member itself successfully",
        "waiting for peers from discovery service",
        "found all needed peers from discovery service",
        "discovery joined cluster successfully",
    ]
    assert all(fields["discovery_token"] == "t" for _, fields in lines.said)


def test_a_member_that_registered_before_goes_on() -> None:
    keys = Keys(b"2")
    keys.register("a1", "me=http://m1.x:2380")
    keys.register("b2", "two=http://m2.x:2380")
    assert join(keys)[0] == "me=http://m1.x:2380,two=http://m2.x:2380"


@pytest.mark.parametrize("size", [b"x", b"0", b"-1", b"", b" 3", b"1025", b"9" * 19, b"\xff"])
def test_a_bad_size(size: bytes) -> None:
    keys = Keys(size)
    assert refused(keys) == "discovery: size key is bad"
    assert len(keys.pairs) == 1


def test_no_size_and_no_place() -> None:
    assert refused(Keys(None)) == "discovery: size key not found"
    keys = Keys(b"1")
    keys.register("b2", "two=http://m2.x:2380")
    assert refused(keys) == "discovery: cluster is full"
    assert "/_etcd/registry/t/members/a1" not in keys.pairs
    keys.register("a1", "me=http://m1.x:2380")
    assert refused(keys) == "discovery: cluster is full"  # came too late
    assert join(keys, number=0xB2, own="two=http://m2.x:2380")[0] == "two=http://m2.x:2380"


def test_what_is_no_registration_is_passed_over() -> None:
    keys = Keys(b"2")
    keys.register("b2", "garbage")
    keys.on_watch = coming(
        keys, b2="more garbage", a1="me=http://m1.x:9", c3="three=http://m3.x:2380"
    )
    cluster, lines, _ = join(keys)
    assert cluster == "me=http://m1.x:2380,three=http://m3.x:2380"
    assert "invalid peer info returned from discovery service" in lines.messages
    assert "found duplicate peer from discovery service" in lines.messages


def test_a_registration_that_is_no_url_ends_the_discovery() -> None:
    keys = Keys(b"2")
    keys.register("b2", "two=::x")
    with pytest.raises(RegistryError) as why:
        join(keys)
    assert str(why.value) == "discovery: invalid peer URL"


def test_a_registry_that_is_away_is_asked_again_more_and_more_rarely() -> None:
    keys = Keys(b"1")
    keys.broken = 10
    cluster, lines, waits = join(keys)
    assert cluster == "me=http://m1.x:2380"
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]
    backoffs = [fields["backoff"] for _, fields in lines.said if "backoff" in fields]
    assert backoffs[0] == "2s" and backoffs[-1] == "4m16s"
    error = next(fields["error"] for message, fields in lines.said if "failed to get" in message)
    assert error == "away"


def test_a_watch_that_breaks_is_begun_anew() -> None:
    keys = Keys(b"2")

    def broken() -> None:
        keys.on_watch = None
        keys.register("b2", "two=http://m2.x:2380")
        raise UnavailableError("away")

    keys.on_watch = broken
    cluster, _, waits = join(keys)
    assert cluster == "me=http://m1.x:2380,two=http://m2.x:2380"
    assert waits == [2]


def met(monkeypatch: pytest.MonkeyPatch, cluster: str, *flags: str):
    async def meet(config: object, number: int, own: str) -> str:
        return cluster

    monkeypatch.setattr(discovery, "_meet", meet)
    given, _ = config("--discovery-token=t", "--discovery-endpoints=http://r:2379", *flags)
    return asyncio.run(by_registry(given))


def test_the_token_is_the_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    found = met(monkeypatch, "me=http://m1.x:2380,two=http://m2.x:2380")
    assert found.initial_cluster == "me=http://m1.x:2380,two=http://m2.x:2380"
    assert found.initial_cluster_token == "t"


@pytest.mark.parametrize(
    ("cluster", "flags", "why"),
    [
        (
            "two=http://m1.x:2380,me=http://m1.x:2380",
            [],
            "discovery cluster me=http://m1.x:2380,two=http://m1.x:2380 has duplicate url",
        ),
        (
            "me=http://m2.x:2380,me=http://m1.x:2380",
            [],
            "discovery cluster me=http://m1.x:2380,me=http://m2.x:2380 has another member by the "
            'name of "me"',
        ),
        (
            "",
            ["--initial-cluster-state=existing"],
            "discovery URL should not be set when joining existing initial cluster",
        ),
    ],
)
def test_a_cluster_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, cluster: str, flags: list[str], why: str
) -> None:
    with pytest.raises(StartError) as refused:
        met(monkeypatch, cluster, *flags)
    assert str(refused.value) == why


def opened(monkeypatch: pytest.MonkeyPatch, *flags: str) -> tuple[dict[str, Any], bool]:
    made: dict[str, Any] = {}
    monkeypatch.setattr(
        registry, "Client", lambda *endpoints, **how: made.update(how, at=endpoints)
    )
    given, _ = config("--discovery-token=t", "--discovery-endpoints=http://r:2379,s:1", *flags)
    return made, registry.open_client(given)[1]


def test_the_flags_of_the_registrys_client(monkeypatch: pytest.MonkeyPatch) -> None:
    made, has_user = opened(monkeypatch)
    assert not has_user and made["tls"] is None
    assert sorted(made["at"]) == ["http://r:2379", "s:1"]
    assert (made["dial_timeout_s"], made["keepalive_s"], made["keepalive_timeout_s"]) == (2, 10, 6)
    made, has_user = opened(monkeypatch, "--discovery-user=u", "--discovery-password=p:w")
    assert has_user and (made["user"], made["password"]) == ("u", "p:w")
    made, has_user = opened(monkeypatch, "--discovery-user=u:p")
    assert has_user and (made["user"], made["password"]) == ("u", "p")
    assert not opened(monkeypatch, "--discovery-user=u")[1]
    made, _ = opened(
        monkeypatch,
        "--discovery-insecure-skip-tls-verify",
        "--discovery-keepalive-time=0",
        "--discovery-dial-timeout=3s",
    )
    assert not made["tls"].verify and made["keepalive_s"] == 0 and made["dial_timeout_s"] == 3
    made, _ = opened(monkeypatch, "--discovery-insecure-transport=false")
    assert made["tls"] is not None and made["tls"].verify


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (
            ["--discovery-cert=/c"],
            "KeyFile and CertFile must both be present[key: , cert: /c]",
        ),
        (["--discovery-cacert=/nonexistent"], "open /nonexistent: no such file or directory"),
        (["--discovery-endpoints=ftp://x"], "endpoint 'ftp://x': unknown scheme 'ftp'"),
    ],
)
def test_a_client_that_cannot_be_made(flags: list[str], why: str) -> None:
    given, _ = config("--discovery-token=t", "--discovery-endpoints=http://r:2379", *flags)
    with pytest.raises(DiscoveryError) as refused:
        asyncio.run(by_registry(given))
    assert str(refused.value) == f"failed to join discovery cluster ({why})"
