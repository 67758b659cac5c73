"""The completion scripts, loaded by the shells that are there and asked what they offer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from keyraft.cli.ctl.completion import script
from keyraft.cli.ctl.tree import ROOT
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
