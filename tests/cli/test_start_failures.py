"""A member that cannot start ends with one clear line and the original's exit code."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.server import ORACLE, OURS, Server, environment, etcdctl, needs_oracle

TIMEOUT_S = 60


def ended(command: Sequence[str], place: Path, *flags: str, **variables: str) -> tuple[int, str]:
    """The exit code, and the error of the last line that has one (or the first line)."""
    done = subprocess.run(
        [*command, *flags],
        capture_output=True,
        text=True,
        cwd=place,
        env=environment() | variables,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.splitlines()
    for line in reversed(lines):
        if line.startswith("{"):
            fields = json.loads(line)
            if "error" in fields or fields["level"] == "fatal":
                return done.returncode, str(fields.get("error", fields["msg"]))
    return done.returncode, lines[0] if lines else ""


def place_flags(data_dir: str, *, client: int = 0, peer: int = 0) -> list[str]:
    fresh = free_ports(2)
    clients = f"http://127.0.0.1:{client or fresh[0]}"
    peers = f"http://127.0.0.1:{peer or fresh[1]}"
    return [
        f"--data-dir={data_dir}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
    ]


SAME = [
    ["--nosuch"],
    ["--name"],
    ["--heartbeat-interval=x"],
    ["--max-wals=-1"],
    ["--pre-vote=maybe"],
    ["--cipher-suites=TLS_X"],
    ["--listen-client-urls=foo"],
    ["--listen-client-urls=http://127.0.0.1:1/x"],
    ["--listen-client-urls=http://foo:1", "--advertise-client-urls=http://foo:1"],
    ["--listen-client-urls=http://127.0.0.1:1"],
    ["--heartbeat-interval=100", "--election-timeout=100"],
    ["--election-timeout=60000"],
    ["--name=x", "--initial-cluster=y=http://localhost:2380"],
    ["--initial-cluster=default=http://localhost:2380,b=http://localhost:2380"],
    ["--initial-cluster=default=foo"],
    ["--initial-advertise-peer-urls=http://localhost:2380,http://localhost:2390",
     "--initial-cluster=default=http://localhost:2380"],
    ["--auto-compaction-mode=x"],
    ["--auto-compaction-retention=x"],
    ["--config-file=/nonexistent"],
    ["--data-dir=/proc/x"],
    ["--cert-file=/nonexistent", "--key-file=/nonexistent",
     "--listen-client-urls=https://127.0.0.1:0", "--advertise-client-urls=https://127.0.0.1:0"],
    ["--listen-client-urls=https://127.0.0.1:0", "--advertise-client-urls=https://127.0.0.1:0"],
    ["--auth-token=x"],
    ["--auth-token=jwt,sign-method=RS256,pub-key=/nonexistent"],
    ["--auth-token=jwt,sign-method=RS256"],
]  # fmt: skip


@pytest.mark.real
@needs_oracle()
@pytest.mark.parametrize("flags", SAME, ids=" ".join)
def test_refused_as_by_the_original(flags: list[str], tmp_path: Path) -> None:
    given = [*flags]
    if not any(flag.startswith("--listen-peer") for flag in flags):
        # Not on the default ports, where another member may be listening.
        given.append(f"--listen-peer-urls=http://127.0.0.1:{free_ports(1)[0]}")
    if not any(flag.startswith("--listen-client") for flag in flags):
        client = f"http://127.0.0.1:{free_ports(1)[0]}"
        given += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert ended(OURS, tmp_path / "b", *given) == ended(ORACLE, tmp_path / "a", *given)


FILES = [
    "max-wals: x",
    "max-wals: -1",
    "max-wals: 1.5",
    "name: 7",
    "name: true",
    "name: [a]",
    "pre-vote: 3",
    "pre-vote: x",
    "grpc-keepalive-timeout: 10m",
    "heartbeat-interval: 1000",
    "auto-compaction-retention: 1",
    "cipher-suites: a",
    "initial-cluster-state: old",
    "listen-peer-urls: foo",
    "listen-client-urls: http://foo:1",
    "log-outputs: [default, stdout]",
    "peer-transport-security: x",
    "client-transport-security: {cert-file: 3}",
    "- a",
    "text",
]


@pytest.mark.real
@needs_oracle()
@pytest.mark.parametrize("text", FILES)
def test_a_configuration_file_refused_as_by_the_original(text: str, tmp_path: Path) -> None:
    path = tmp_path / "etcd.yaml"
    path.write_text(text)
    flags = f"--config-file={path}"
    (our_code, ours), (code, words) = (ended(one, tmp_path, flags) for one in (OURS, ORACLE))
    # 3.7 tells a field with the structs that it is embedded in.
    embedded = r"(?<=configYAML\.)(Config|configJSON)\.|(?<=securityConfig\.)configJSON\."
    assert (our_code, re.sub(embedded, "", ours)) == (code, re.sub(embedded, "", words))


@pytest.mark.real
@needs_oracle()
def test_a_conflicting_variable(tmp_path: Path) -> None:
    outcomes = [ended(command, tmp_path, "--name=x", ETCD_NAME="y") for command in (ORACLE, OURS)]
    assert outcomes[0] == outcomes[1]
    assert outcomes[1][0] == 1


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """One member, alive, of an original cluster of three: the first has died, the third has not
    been started. With it the value of --initial-cluster."""
    ports = free_ports(5)
    names = ("m1", "m2", "m3")
    urls = [f"http://127.0.0.1:{port}" for port in ports[:3]]
    initial = ",".join(f"{name}={url}" for name, url in zip(names, urls, strict=True))
    two = f"--initial-cluster={initial.rpartition(',')[0]}"
    flags = (two, "--strict-reconfig-check=false")
    first = Server(ORACLE, tmp_path / "m1", "m1", flags, ports[3], ports[0])
    second = Server(ORACLE, tmp_path / "m2", "m2", flags, ports[4], ports[1])
    try:
        for server in (first, second):
            server.spawn()
        for server in (first, second):
            assert server.wait_ready(), server.log
        added = etcdctl(second.endpoint, "member", "add", "m3", f"--peer-urls={urls[2]}")
        assert added.returncode == 0, added.stderr
        first.kill()
        yield second, initial
    finally:
        first.kill()
        second.kill()


@pytest.mark.real
@needs_oracle()
def test_a_cluster_that_does_not_take_it(pair: tuple[Server, str], tmp_path: Path) -> None:
    _, initial = pair
    urls = dict(member.split("=") for member in initial.split(","))
    fresh = [f"http://127.0.0.1:{port}" for port in free_ports(3)]

    def said(name: str, url: str, cluster: str, state: str) -> str:
        flags = [
            f"--name={name}",
            "--data-dir=data",
            f"--listen-peer-urls={url}",
            f"--initial-advertise-peer-urls={url}",
            f"--listen-client-urls={fresh[0]}",
            f"--advertise-client-urls={fresh[0]}",
            f"--initial-cluster={cluster}",
            f"--initial-cluster-state={state}",
        ]
        texts = []
        for number, command in enumerate((ORACLE, OURS)):
            place = tmp_path / f"{name}-{state}-{len(list(tmp_path.iterdir()))}-{number}"
            place.mkdir()
            code, text = ended(command, place, *flags)
            assert code == 1
            # Go lists members in random order; what the resolver says was shortened in 3.6.
            head, members, tail = text.partition("RemovedMemberIDs")
            shorter = re.sub(r"\(resolved from [^)]*\)", "", tail).replace("resolved urls: ", "")
            texts.append((sorted(re.split(r" (?=&)|\[(?=&)|\] $", head)), members, shorter))
        assert texts[0] == texts[1]
        return text

    moved = initial.replace(urls["m3"], fresh[1])
    assert "already been bootstrapped" in said("m1", urls["m1"], initial, "new")
    assert "no match found" in said("m3", fresh[1], moved, "existing")
    more = f"{initial},m4={fresh[2]}"
    assert "count is unequal" in said("m3", urls["m3"], more, "existing")
    alone = f"m3={urls['m3']},m1={fresh[2]}"
    assert "could not retrieve" in said("m3", urls["m3"], alone, "existing")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Server]:
    server = Server(OURS, tmp_path / "data").start()
    yield server
    server.stop()


@pytest.mark.real
@needs_oracle()
def test_a_port_in_use(running: Server, tmp_path: Path) -> None:
    flags = place_flags(str(tmp_path / "x"), client=running.client_port)
    said = {ended(command, tmp_path, *flags) for command in (ORACLE, OURS)}
    port = running.client_port
    assert said == {(1, f"listen tcp 127.0.0.1:{port}: bind: address already in use")}
    flags = place_flags(str(tmp_path / "x"), peer=running.peer_port)
    said = {ended(command, tmp_path, *flags) for command in (ORACLE, OURS)}
    assert said == {(1, f"listen tcp 127.0.0.1:{running.peer_port}: bind: address already in use")}


@pytest.mark.real
def test_a_data_directory_in_use(running: Server, tmp_path: Path) -> None:
    code, error = ended(OURS, tmp_path, *place_flags(str(running.data_dir)))
    assert code == 1
    assert re.search(r"lock|in use", error), error


@pytest.mark.real
def test_sigterm_is_seen_by_whoever_waits(tmp_path: Path) -> None:
    """The original dies by the signal once it has stopped in order; so do we."""
    for name, command in (("ours", OURS), ("original", ORACLE)):
        server = Server(command, tmp_path / name).start()
        assert server.stop() == -15
