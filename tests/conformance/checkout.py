"""A checkout of etcd's source: copied, our programs put where its suites look, a suite built.

Nothing is written into the checkout. The copy lies in a temporary place, is kept there for the next
run, and is made anew when another release is asked for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.programs import ROOT, SOURCE


class Suite(NamedTuple):
    """A package of etcd's tests."""

    folder: str
    """Below `tests/`."""
    tags: str
    """Go's build tags."""


SUITES: Final = {
    "common": Suite("common", "e2e"),
    "e2e": Suite("e2e", "e2e"),
    "e2e-proxy": Suite("e2e", "cluster_proxy"),
    "robustness": Suite("robustness", "e2e"),
}
PROGRAMS: Final = ("etcd", "etcdctl", "etcdutl")
BEFORE: Final = "etcd-last-release"
"""Where the suites look for the release before theirs."""


class Checkout:
    """The copy of one release."""

    def __init__(self, source: Path, place: Path, release: str = "") -> None:
        self.source = source
        self.release = release or _release(source)
        self.folder = place / f"etcd-{self.release}"

    def copy(self) -> None:
        """Of the work tree, or of what Git has under the release's name."""
        if (self.folder / "tests").exists():
            return
        whole = self.folder.with_name(self.folder.name + ".part")
        shutil.rmtree(whole, ignore_errors=True)
        if (self.source / "tests" / "go.mod").exists():
            shutil.copytree(
                self.source, whole, symlinks=True, ignore=shutil.ignore_patterns(".git", "bin")
            )
        else:
            whole.mkdir(parents=True)
            git = ["git", "-C", str(self.source), "archive", self.release]
            with subprocess.Popen(git, stdout=subprocess.PIPE) as archive:
                subprocess.run(["tar", "x"], cwd=whole, stdin=archive.stdout, check=True)
            if archive.returncode:
                raise SystemExit(f"{self.source} has no release {self.release}")
        whole.rename(self.folder)

    def place_programs(self, before: Path | None, failpoints: bool) -> Path:
        """`bin` of the copy: our three programs, and the original of the release before.

        `failpoints`: etcd is the one that answers on GOFAIL_HTTP.
        """
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        for name in PROGRAMS:
            path = programs / name
            module, source = f"keyraft.cli.{name}", SOURCE
            if failpoints and name == "etcd":
                module, source = "tests.conformance.etcd_with_failpoints", f"{SOURCE}:{ROOT}"
            path.write_text(
                f'#!/bin/sh\nPYTHONPATH="{source}" exec "{sys.executable}" -m {module} "$@"\n'
            )
            path.chmod(0o755)
        last = programs / BEFORE
        last.unlink(missing_ok=True)
        if before is not None:
            last.symlink_to(before.resolve())
        return programs

    def prepare(self, suite: str, before: Path | None, failpoints: bool) -> tuple[Path, list[str]]:
        """Copies, places the programs, builds a suite; its program and its flags."""
        self.copy()
        programs = self.place_programs(before, failpoints)
        return self.build(suite), [f"-bin-dir={programs}"]

    def tests(self, suite: str) -> Path:
        """The folder in which a suite's tests run."""
        return self.folder / "tests" / SUITES[suite].folder

    def build(self, suite: str) -> Path:
        """The suite's program, with the modules that Go has or fetches."""
        program = self.folder / f"{suite}.test"
        if not program.exists():
            command = ["go", "test", "-c", "-tags", SUITES[suite].tags, "-o", str(program)]
            done = subprocess.run([*command, "."], cwd=self.tests(suite), env=_go_environment())
            if done.returncode:
                raise SystemExit(f"go cannot build {suite} of {self.release}")
        return program


def _release(source: Path) -> str:
    """What the work tree says of itself."""
    told = source / "api" / "version" / "version.go"
    found = re.search(r'\bVersion\s+= "([^"]+)"', told.read_text()) if told.exists() else None
    if found is None:
        raise SystemExit(f"{source} is no checkout of etcd; name RELEASE for a bare repository")
    return f"v{found[1]}"


def _go_environment() -> dict[str, str]:
    return {**os.environ, "GOTOOLCHAIN": "local"}
