"""Our etcdctl beside the original: the same flags and variables about TLS, the same servers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.cli.forking import Forker
from tests.net.certificates import make_authority
from tests.support.ports import free_ports
from tests.support.programs import ETCDCTL
from tests.support.server import OURS, Server, environment, needs_oracle, serving
from tests.tls.ctlflags import CASES, PATIENT, UNVERIFIED, Case, arguments, normal, write_files
from tests.tls.knocking import Guarded

pytestmark = [pytest.mark.real, needs_oracle()]

NEWER: Final = bool(os.environ.get("KEYRAFT_ORACLE"))
"""The original is one of ours' age: then its log lines are compared, too."""

TOLD_BY_US_ALONE: Final = "invalid value "  # of a variable; DEVIATION in `cli/ctl/globals.py`

CHANGED_IN_3_7: Final = {"asn1: structure error": "x509: malformed tbs certificate"}
"""Beginnings of errors, and what they are since."""


class Said(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: list[str]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Endpoints of the servers, and files."""
    folder = tmp_path_factory.mktemp("ctl")
    for name in ("mine", "theirs"):
        (folder / name).mkdir()
    mine, theirs = make_authority(folder / "mine"), make_authority(folder / "theirs")
    pair = (f"--cert-file={mine.server_cert}", f"--key-file={mine.server_key}")
    demanding = (*pair, f"--trusted-ca-file={mine.ca}", "--client-cert-auth")
    ports = free_ports(7)
    servers = (
        Server(OURS, folder / "p", "p", (), ports[0], ports[1]),
        Guarded(OURS, folder / "s", "s", (), ports[2], ports[3], secure=pair),
        Guarded(OURS, folder / "l", "l", (), ports[4], ports[5], secure=demanding),
    )
    at = {"plain": ports[0], "secure": ports[2], "locked": ports[4], "dead": ports[6]}
    files = {
        "ca": mine.ca,
        "cert": mine.client_cert,
        "key": mine.client_key,
        "other": theirs.ca,
        "wrong": theirs.client_key,
    }
    with serving(*servers):
        yield (
            {name: f"127.0.0.1:{port}" for name, port in at.items()}
            | {name: str(path) for name, path in files.items()}
            | write_files(folder)
        )


@pytest.fixture(scope="module")
def ours() -> Iterator[Forker]:
    forker = Forker(environment())
    yield forker
    forker.close()


def told(text: str, places: dict[str, str]) -> list[str]:
    """The lines of standard error that are compared."""
    lines = []
    for line in normal(text, places).splitlines():
        if line.startswith("{"):
            message = str(json.loads(line)["msg"])
            if message.startswith(TOLD_BY_US_ALONE):
                continue
            lines.append(line if NEWER else message)
            continue
        for before, since in CHANGED_IN_3_7.items():
            if line.startswith(f"Error: {before}") and not NEWER:
                line = f"Error: {since}"
        lines.append(line)
    return lines


def original(case: Case, places: dict[str, str]) -> Said:
    words, variables = arguments(case, places)
    ended = subprocess.run(
        [ETCDCTL, *words],
        env=dict(environment()) | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Said(ended.returncode, normal(ended.stdout, places), told(ended.stderr, places))


def mine(case: Case, places: dict[str, str], forker: Forker) -> Said:
    words, variables = arguments(case, places)
    ended = forker.run(words, environment=variables)
    out, err = ended.out.decode(), ended.err.decode()
    return Said(ended.code, normal(out, places), told(err, places))


def test_a_command_says_what_the_original_says_of_its_tls_flags(
    places: dict[str, str], ours: Forker
) -> None:
    compare(CASES, places, ours)
    assert all(mine(case, places, ours) == Said(0, "", []) for case in UNVERIFIED)
    if NEWER:
        compare(UNVERIFIED, places, ours)


@pytest.mark.soak
def test_and_so_it_does_where_it_gets_no_connection(places: dict[str, str], ours: Forker) -> None:
    compare(PATIENT, places, ours)


def compare(cases: tuple[Case, ...], places: dict[str, str], ours: Forker) -> None:
    other = {
        str(case): (said, wanted)
        for case in cases
        if (said := mine(case, places, ours)) != (wanted := original(case, places))
    }
    assert not other, "\n".join(
        f"{case}\n  {said}\n  {want}" for case, (said, want) in other.items()
    )


def test_files_that_may_not_be_read(tmp_path: Path, ours: Forker) -> None:
    """Where root may read everything, there is nothing to compare."""
    files = make_authority(tmp_path)
    files.client_key.chmod(0)
    if os.access(files.client_key, os.R_OK):
        pytest.skip("this user may read every file")
    case = Case("--cert={cert} --key={key} get k")
    places = {"cert": str(files.client_cert), "key": str(files.client_key)}
    assert mine(case, places, ours) == original(case, places)
