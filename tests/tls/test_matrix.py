"""Every kind of client certificate against every kind of port: the original's verdicts and words.

`recorded.json` has what 3.7.1 answers, to the visitor and to its log; with `KEYRAFT_ORACLE` naming
a 3.7 it is compared with that live. The original that is at hand otherwise, 3.5.1, speaks TLS 1.2
only and says "bad certificate" to everything: who comes in is compared with it.
`python -m tests.tls.test_matrix ETCD` records.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import uvloop

from keyraft.app.member_tls import client_tls, peer_tls
from keyraft.grpc import HttpRequest, Limits, Router
from keyraft.net import CertificateNames, Server
from tests.config.test_flags import loaded
from tests.support.server import ORACLE, needs_oracle, serving
from tests.tls.kinds import NOTHING, Papers
from tests.tls.knocking import LET_IN, PATIENT_S, Guarded, Visit, add_lines, guarded, knock, visitor

RECORDED: Final = Path(__file__).with_name("recorded.json")
SECURE: Final = (
    "--listen-client-urls=https://127.0.0.1:1",
    "--advertise-client-urls=https://127.0.0.1:1",
)
VERSIONS: Final = ("1.3", "1.2")
Verdicts = dict[str, tuple[str, str]]
"""Kind of certificate and version → what the visitor hears, what the log says."""

STRICTER: Final[Mapping[str, str]] = {
    "keys' usage without signatures": "OpenSSL follows RFC 8446 §4.4.2.2, Go does not look",
}
"""Whom ours refuses and the original lets in."""

OTHER_WORDS: Final[Mapping[str, str]] = {
    "not yet valid": "the alert, for OpenSSL, is not the one of certificates that have expired",
    "outside its authority's names": "the alert, and the log does not say which name it was",
}
"""Whom both refuse, ours with another alert or reason."""

OTHER_ORDER: Final = frozenset(("middle",))
"""Ports whose visitors have two faults at a time: OpenSSL and Go find another one first."""


SKIP: Final = "--peer-skip-client-san-verification"


def port_flags(papers: Papers, peers: bool, skip: str = SKIP) -> dict[str, tuple[str, ...]]:
    """Name of a port → its flags; `skip` was an experiment before 3.6."""
    kind = "peer-" if peers else ""
    cert, key = papers.files["valid"]
    pair = (f"--{kind}cert-file={cert}", f"--{kind}key-file={key}")
    demanding = (*pair, f"--{kind}trusted-ca-file={papers.ca}", f"--{kind}client-cert-auth")
    if peers:
        return {
            "addresses": demanding,
            "no addresses": (*demanding, skip),
            "common name": (*demanding, "--peer-cert-allowed-cn=someone"),
            "host name": (*demanding, "--peer-cert-allowed-hostname=localhost"),
            "list": (*demanding, f"--peer-crl-file={papers.crl}"),
        }
    return {
        "certificate": pair,
        "authority": (*pair, f"--trusted-ca-file={papers.ca}"),
        "middle": (*pair, f"--trusted-ca-file={papers.middle_ca}", "--client-cert-auth"),
        "allowed": (*demanding, "--client-cert-allowed-hostname=localhost"),
        "list": (*demanding, f"--client-crl-file={papers.crl}"),
    }


def ask_all(port: int, papers: Papers, peers: bool, versions: tuple[str, ...]) -> dict[str, Visit]:
    """Every kind knocks."""
    path = "/members" if peers else "/version"
    return {
        f"{kind} {version}": knock(port, visitor(papers.files.get(kind), version), path)
        for version in versions
        for kind in (NOTHING, *papers.files)
    }


def ask_original(
    command: tuple[str, ...], papers: Papers, folder: Path, peers: bool, versions: tuple[str, ...]
) -> dict[str, Verdicts]:
    """By port; all ports are members of their own, started at once."""
    members: dict[str, Guarded] = {}
    told = subprocess.run([*command, "--version"], capture_output=True, check=True).stdout
    skip = SKIP.replace("peer", "experimental-peer", 1) if b"etcd Version: 3.5" in told else SKIP
    for name, flags in port_flags(papers, peers, skip).items():
        home = folder / name.replace(" ", "-")
        home.mkdir()
        members[name] = guarded(command, home, *flags, peers=peers)
    found: dict[str, Verdicts] = {}
    with serving(*members.values()):
        for name, member in members.items():
            visits = ask_all(member.port, papers, peers, versions)
            add_lines(member, list(visits.values()))
            found[name] = {who: (visit.answer, visit.said) for who, visit in visits.items()}
    return found


@contextmanager
def our_port(flags: tuple[str, ...], peers: bool) -> Iterator[tuple[int, dict[str, str]]]:
    """A port with the TLS that these flags make, in a thread with its loop; and why it refused,
    by the visitor's address."""
    reasons: dict[str, str] = {}
    begun, over = threading.Event(), threading.Event()
    ports: list[int] = []

    def refused(client: str, name: str, why: str, shown: CertificateNames | None) -> None:
        reasons[client] = why

    async def serve() -> None:
        config = loaded(*SECURE, *flags)
        tls = peer_tls(config)[0] if peers else client_tls(config)
        loop = asyncio.get_running_loop()
        server = Server(loop, Router(), Limits(), answer, failed=refused)
        await server.listen("https://127.0.0.1:0", tls)
        ports.append(int(server.addresses[0].rpartition(":")[2]))
        begun.set()
        while not over.is_set():
            await asyncio.sleep(0.01)
        await server.stop()

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert begun.wait(PATIENT_S)
        yield ports[0], reasons
    finally:
        over.set()
        thread.join()


def answer(request: HttpRequest) -> None:
    request.respond(200, [(b"content-type", b"text/plain")], b"here")


def ask_ours(papers: Papers, peers: bool) -> dict[str, Verdicts]:
    found: dict[str, Verdicts] = {}
    for name, flags in port_flags(papers, peers).items():
        with our_port(flags, peers) as (port, reasons):
            visits = ask_all(port, papers, peers, VERSIONS)
        found[name] = {
            who: (visit.answer, reasons.get(visit.address, "")) for who, visit in visits.items()
        }
    return found


def steady(text: str) -> str:
    """Without what differs from run to run: times, serials, what the resolver says, and Go's guess
    which certificate its search failed at."""
    text = re.sub(r": current time .*", "", text)
    text = re.sub(r" \((possibly because of|lookup) .*\)$", "", text)
    return re.sub(r"serial [0-9a-f]+", "serial N", text)


def as_json(found: dict[str, Verdicts]) -> dict[str, dict[str, list[str]]]:
    return {
        name: {who: [heard, steady(said)] for who, (heard, said) in verdicts.items()}
        for name, verdicts in found.items()
    }


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


PORTS = pytest.mark.parametrize("peers", [False, True], ids=["clients", "peers"])


@pytest.mark.slow
@PORTS
def test_ours_says_what_the_original_says(papers: Papers, peers: bool) -> None:
    recorded = json.loads(RECORDED.read_text())["peers" if peers else "clients"]
    ours = as_json(ask_ours(papers, peers))
    assert ours.keys() == recorded.keys()
    for port, verdicts in recorded.items():
        assert ours[port].keys() == verdicts.keys()
        for who, expected in verdicts.items():
            kind = who.rpartition(" ")[0]
            found = ours[port][who]
            if kind in STRICTER and port != "certificate":
                assert LET_IN not in found
            elif expected[0] != LET_IN and (kind in OTHER_WORDS or port in OTHER_ORDER):
                assert LET_IN not in found and found[1] != ""
            else:
                assert found == expected, (port, who)


@pytest.mark.real
@needs_oracle()
@PORTS
def test_the_original_decides_the_same(papers: Papers, peers: bool, tmp_path: Path) -> None:
    recorded = json.loads(RECORDED.read_text())["peers" if peers else "clients"]
    live = as_json(ask_original(ORACLE, papers, tmp_path, peers, VERSIONS))
    new = live["authority" if not peers else "addresses"]["valid 1.3"][0] == LET_IN
    for port, verdicts in live.items():
        for who, found in verdicts.items():
            if new:
                assert found == recorded[port][who], (port, who)
            elif who.endswith(" 1.2"):
                assert (found[0] == LET_IN) is (recorded[port][who][0] == LET_IN), (port, who)


if __name__ == "__main__":
    home = Path(tempfile.mkdtemp())
    made = Papers(home)
    record = {
        name: as_json(ask_original((sys.argv[1],), made, Path(tempfile.mkdtemp()), peers, VERSIONS))
        for name, peers in (("clients", False), ("peers", True))
    }
    RECORDED.write_text(json.dumps(record, indent=1) + "\n")
