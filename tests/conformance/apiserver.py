"""A checkout of k8s.io/apiserver: its storage tests, with our member where they embed etcd.

Go lays one file of ours (`kubernetes/test_server.go`) over theirs while it builds, so nothing is
copied and nothing is written into the checkout. Go refuses to do so in its module cache: copy it out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.programs import SOURCE

SUITES: Final = {
    "etcd3": "pkg/storage/etcd3",
    "cacher": "pkg/storage/cacher",
    "factory": "pkg/storage/storagebackend/factory",
    "registry": "pkg/registry/generic/registry",
}
OVERLAID: Final = "pkg/storage/etcd3/testserver/test_server.go"
OURS: Final = Path(__file__).with_name("kubernetes") / "test_server.go"


class Apiserver:
    """What the runner asks of a checkout."""

    def __init__(self, source: Path, place: Path, release: str = "") -> None:
        self.source = source.resolve()
        self.release = release or source.name
        self.folder = place / f"apiserver-{self.release}"

    @staticmethod
    def is_one(source: Path) -> bool:
        """Whether a folder is such a checkout."""
        return (source / OVERLAID).exists()

    def prepare(self, suite: str, before: Path | None, failpoints: bool) -> tuple[Path, list[str]]:
        """Builds a suite; its program and its flags."""
        del before, failpoints
        self.folder.mkdir(parents=True, exist_ok=True)
        member = self.folder / "etcd"
        member.write_text(
            f'#!/bin/sh\nPYTHONPATH="{SOURCE}" exec "{sys.executable}" -m keyraft.cli.etcd "$@"\n'
        )
        member.chmod(0o755)
        os.environ["KEYRAFT_ETCD"] = str(member)
        overlay = self.folder / "overlay.json"
        overlay.write_text(json.dumps({"Replace": {str(self.source / OVERLAID): str(OURS)}}))
        program = self.folder / f"{suite}.test"
        command = ["go", "test", "-c", "-overlay", str(overlay), "-o", str(program)]
        if (
            not program.exists()
            and subprocess.run([*command, f"./{SUITES[suite]}"], cwd=self.source).returncode
        ):
            raise SystemExit(f"go cannot build {suite} of {self.source}")
        return program, []

    def tests(self, suite: str) -> Path:
        """The folder in which a suite's tests run."""
        return self.source / SUITES[suite]
