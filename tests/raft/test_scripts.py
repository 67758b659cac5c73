"""Conversations written by others, and their expected output to the letter.

The folder is named by RAFT_TESTDATA; every .txt below it is run.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sim.raft.datadriven import parse, run
from sim.raft.families import run_script
from sim.raft.interaction import Environment

_REPOSITORY = Path(__file__).resolve().parents[2]


def _folder() -> Path:
    named = os.environ.get("RAFT_TESTDATA")
    if named:
        return Path(named)
    beside = _REPOSITORY.parent
    for folder in (beside / "shared", beside.parent / "shared"):
        if (folder / "data" / "raft").is_dir():
            return folder / "data" / "raft"
    return beside / "shared" / "data" / "raft"


FOLDER = _folder()
SCRIPTS = sorted(FOLDER.rglob("*.txt")) if FOLDER.is_dir() else []
OWN_SCRIPTS = sorted((Path(__file__).parent / "testdata").rglob("*.txt"))


@pytest.mark.skipif(not SCRIPTS, reason=f"no scripts in {FOLDER}; RAFT_TESTDATA names the folder")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_script_of_etcd_prints_the_same(path: Path) -> None:
    assert run_script(path) == []


@pytest.mark.parametrize("path", OWN_SCRIPTS, ids=lambda path: path.name)
def test_a_script_of_ours_prints_what_it_did(path: Path) -> None:
    assert run_script(path) == []


def test_a_wrong_letter_is_found(tmp_path: Path) -> None:
    script = tmp_path / "wrong.txt"
    script.write_text(
        "log-level none\n----\nok\n\nadd-nodes 1 voters=(1) index=2\n----\nok\n\n"
        "log-level info\n----\nok\n\n"
        "campaign 1\n----\nINFO 1 is starting a new election at term 1\n"
    )
    assert "wrong.txt:13: campaign" in run(script, Environment().handle)[0]


def test_both_forms_of_output_are_parsed() -> None:
    cases = list(
        parse(
            "# comment\na 1 k=(2, 3) x=y\ninput\n----\nout\n\nb\n----\n----\none\n\ntwo\n----\n----\n"
        )
    )
    assert [(case.command, case.input, case.expected) for case in cases] == [
        ("a", "input", "out\n"),
        ("b", "", "one\n\ntwo\n"),
    ]
    assert [(argument.key, argument.values) for argument in cases[0].arguments] == [
        ("1", []),
        ("k", ["2", "3"]),
        ("x", ["y"]),
    ]


def test_there_are_scripts_of_our_own() -> None:
    assert OWN_SCRIPTS
