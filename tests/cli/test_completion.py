"""The completion scripts, loaded by the shells that are there and asked what they offer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from keyraft.cli.ctl.completion import script
from keyraft.cli.ctl.tree import ROOT
from keyraft.cli.keyraft import COMMANDS
from keyraft.cli.utl.tree import ROOT as UTL

ALL = {child.name for child in ROOT.children}
FORMS = {"fields", "json", "protobuf", "simple", "table"}

# What is typed, the last word being the one that is completed, and what is offered for it.
CASES: list[tuple[list[str], set[str]]] = [
    (["etcdctl", ""], ALL),
    (["etcdctl", "mem"], {"member"}),
    (["etcdctl", "member", ""], {"add", "list", "promote", "remove", "update"}),
    (["etcdctl", "--endpoints", "member", "member", "l"], {"list"}),
    (["etcdctl", "--debug", "auth", "en"], {"enable"}),
    (["etcdctl", "get", "key", "--pref"], {"--prefix"}),
    (["etcdctl", "get", "--prefix", "key", "--print"], {"--print-value-only"}),
    (["etcdctl", "make-mirror", "--prefix", "get", "--dest-p"], {"--dest-prefix", "--dest-password"}),
    (["etcdctl", "get", "k", "-w", ""], FORMS),
    (["etcdctl", "get", "k", "--write-out", "js"], {"json"}),
    (["etcdctl", "put", "k", "-nosuch"], set()),
    (["etcdctl", "snapshot", "save", "fil"], {"file.db"}),
]  # fmt: skip

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_etcdctl
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = "source $argv[1]; complete -C (string join ' ' -- (string escape -n -- $argv[2..-1]))"


def offered(shell: list[str], *words: str, cwd: Path) -> set[str]:
    done = subprocess.run(
        [*shell, *words], cwd=cwd, capture_output=True, text=True, check=True, timeout=60
    )
    assert not done.stderr
    return {line.split("\t")[0] for line in done.stdout.split("\n")} - {""}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for shell in ("bash", "zsh", "fish"):
        (tmp_path / shell).mkdir()
        (tmp_path / shell / "file.db").write_bytes(b"")
        (tmp_path / shell / "script").write_text(script(ROOT, shell))
    return tmp_path


def test_bash_completes(place: Path) -> None:
    for words, wanted in CASES:
        assert offered(["bash", "-c", BASH, "-", "./script"], *words, cwd=place / "bash") == wanted
    typed = ["etcdctl", "get", "k", "--write-out", "=", "js"]  # as readline cuts "--write-out=js"
    assert offered(["bash", "-c", BASH, "-", "./script"], *typed, cwd=place / "bash") == {"json"}


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(place: Path) -> None:
    for words, wanted in CASES:
        shell = ["fish", "--no-config", "-c", FISH, "script"]
        assert offered(shell, *words, cwd=place / "fish") == wanted, words


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_loads_it_and_calls_it(place: Path) -> None:
    ask = (
        "autoload -U compinit; compinit -u -D; source ./script; (( $+_comps[etcdctl] )) || "
        "exit 1; emulate ksh; " + BASH.replace('source "$1"; shift', "")
    )
    for words, wanted in CASES[1:5]:
        found = offered(["zsh", "-f", "-c", ask, "-"], *words, cwd=place / "zsh")
        # Here the shell itself leaves out what does not begin as the word does.
        assert {word for word in found if word.startswith(words[-1])} == wanted, words


def test_the_other_tool_has_its_own() -> None:
    for shell in ("bash", "zsh", "fish", "powershell"):
        text = script(UTL, shell)
        assert "snapshot restore" in text and "etcdctl" not in text


PROGRAM_CASES: list[tuple[list[str], set[str]]] = [
    (["etcd", ""], {"gateway", "grpc-proxy"}),
    (["etcd", "--initial-cluster-"], {"--initial-cluster-state", "--initial-cluster-token"}),
    (["etcd", "--name", "m1", "--data-d"], {"--data-dir"}),
    (["etcd", "--data-dir", "fil"], {"file.db"}),
    (["etcd", "--pre-vote", "gate"], {"gateway"}),
    (["etcd", "gateway", "start", "--retry"], {"--retry-delay"}),
    (["etcd", "grpc-proxy", "start", "--resolver-p"], {"--resolver-prefix"}),
    (["keyraft", "comp"], {"completion"}),
    (["keyraft", "config", ""], {"check"}),
    (["keyraft", "completion", "--pro"], {"--program"}),
    (["etcdutl", "snap"], {"snapshot"}),
]
BASH_ANY = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
complete -p "$1" > /dev/null || exit 1
_"$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_one_script_completes_all_programs_in_bash(tmp_path: Path) -> None:
    done = CliRunner().invoke(COMMANDS, ["completion", "bash"])
    assert done.exit_code == 0, done.output
    (tmp_path / "script").write_text(done.output)
    (tmp_path / "file.db").write_bytes(b"")
    for words, wanted in [*PROGRAM_CASES, *CASES]:
        shell = ["bash", "-c", BASH_ANY, "-", "./script"]
        assert offered(shell, *words, cwd=tmp_path) == wanted, words


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_one_script_completes_all_programs_in_fish(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(CliRunner().invoke(COMMANDS, ["completion", "fish"]).output)
    (tmp_path / "file.db").write_bytes(b"")
    for words, wanted in PROGRAM_CASES:
        shell = ["fish", "--no-config", "-c", FISH, "script"]
        assert offered(shell, *words, cwd=tmp_path) == wanted, words


def test_a_script_for_one_program_has_only_that() -> None:
    done = CliRunner().invoke(COMMANDS, ["completion", "zsh", "--program", "etcd"])
    assert done.output.startswith("#compdef etcd\n") and "_etcdutl" not in done.output
    refused = CliRunner().invoke(COMMANDS, ["completion", "tcsh"])
    assert refused.exit_code == 2 and "'tcsh' is not one of" in refused.output
