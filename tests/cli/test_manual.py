"""The man pages: every command and flag is in them, and `man` has nothing to say against them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from keyraft.cli.ctl.tree import ROOT
from keyraft.cli.keyraft import COMMANDS
from keyraft.cli.manual import pages
from keyraft.cli.programs import PROGRAMS, tree
from keyraft.config.flagtable import FLAGS

MADE = pages(COMMANDS)


def plain(page: str) -> str:
    return re.sub(r"\\f[BIR]", "", page).replace("\\-", "-")


def test_each_program_and_each_command_of_etcdctl_has_a_page() -> None:
    commands = {f"etcdctl-{child.name}.1" for child in ROOT.children if not child.hidden}
    assert MADE.keys() == {f"{name}.1" for name in PROGRAMS} | commands


def test_each_flag_of_the_member_is_told_with_its_default_or_why_it_does_nothing() -> None:
    page = plain(MADE["etcd.1"])
    for name in FLAGS:
        assert re.search(rf"^--{name}(=VALUE)?$", page, re.M), name
    assert "--heartbeat-interval=VALUE\nMilliseconds between leader heartbeats" in page
    assert "Default: 100\n" in page
    assert "Without effect here: there is no v2 store." in page


@pytest.mark.parametrize("program", ["etcdutl", "keyraft"])
def test_each_command_is_told_with_its_flags(program: str) -> None:
    page = plain(MADE[f"{program}.1"])

    def look(command: object) -> None:
        for child in command.children:  # type: ignore[attr-defined]
            assert child.path in page
            for flag in child.flags:
                assert flag.hidden or f"--{flag.name}" in page, (child.path, flag.name)
            look(child)

    look(tree(program, COMMANDS))


def test_no_line_of_text_is_taken_for_a_request() -> None:
    known = {"TH", "SH", "SS", "TP", "PP", "B", "BR", "nf", "fi"}
    for page in MADE.values():
        for line in page.splitlines():
            assert not line.startswith("'")
            assert not line.startswith(".") or line[1:].split(" ")[0] in known, line


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_no_warnings(tmp_path: Path) -> None:
    for name, page in MADE.items():
        (tmp_path / name).write_text(page)
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-k", "-ww", "-z", *sorted(MADE)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        timeout=60,
    )
    assert done.stderr == ""


def test_they_are_written_where_man_looks(tmp_path: Path) -> None:
    folder = tmp_path / "share" / "man" / "man1"
    done = CliRunner().invoke(COMMANDS, ["manual", str(folder)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in folder.iterdir()} == MADE.keys()
    assert (folder / "etcd.1").read_text() == MADE["etcd.1"]
