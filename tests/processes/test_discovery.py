"""Real members find each other: by DNS, in namespaces of their own, and by a token."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.programs import ROOT
from tests.support.server import OURS, Server, environment

pytestmark = pytest.mark.real


def namespaces() -> list[str]:
    """The words that give a process a machine's network and mounts of its own."""
    words = ["unshare", "--map-root-user", "--net", "--mount"]
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        pytest.skip("needs unshare and mount (util-linux)")
    tried = subprocess.run(
        [*words, "mount", "--bind", "/etc/resolv.conf", "/etc/resolv.conf"], capture_output=True
    )
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.decode('utf-8', 'replace').strip()}")
    return words


@pytest.mark.parametrize("scene", ["plain", "tls"])
def test_members_find_each_other_by_dns(scene: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*namespaces(), sys.executable, "-m", "tests.processes.discovery_scenes", scene, tmp_path],
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": f"{ROOT}:{environment()['PYTHONPATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]


@dataclass
class Met(Server):
    """A member that meets the others under a token."""

    registry: str = ""
    token: str = ""

    def arguments(self) -> list[str]:
        return [
            *(word for word in super().arguments() if not word.startswith("--initial-cluster=")),
            f"--discovery-endpoints={self.registry}",
            f"--discovery-token={self.token}",
        ]


@contextmanager
def registry(folder: Path, token: str, size: int) -> Iterator[Server]:
    member = Server(OURS, folder / "registry")
    member.start()
    try:
        ctl(member.endpoint, "put", f"/_etcd/registry/{token}/_config/size", str(size))
        yield member
    finally:
        member.kill()


def ctl(endpoint: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "keyraft.cli.etcdctl", f"--endpoints={endpoint}", *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def test_three_members_meet_under_a_token(tmp_path: Path) -> None:
    with registry(tmp_path, "secret", 3) as keys:
        members = [
            Met(OURS, tmp_path / name, name, registry=f"http://{keys.endpoint}", token="secret")
            for name in ("m1", "m2", "m3", "m4")
        ]
        *three, late = members
        try:
            three[0].spawn()
            wait_for(three[0], "waiting for peers from discovery service")
            # A signal ends the wait, as long as it may be; the member's place stays its own.
            assert three[0].stop() == -signal.SIGTERM
            three[0].lines.clear()
            for member in three:
                member.spawn()
            for member in three:
                assert member.wait_ready(), member.log[-4000:]
                assert "discovery joined cluster successfully" in member.log
            ctl(three[0].endpoint, "put", "colour", "blue")
            assert ctl(three[2].endpoint, "get", "--print-value-only", "colour") == "blue\n"
            assert ctl(three[1].endpoint, "member", "list").count(", started, ") == 3

            late.spawn()
            assert late.wait() == 1
            why = "failed to join discovery cluster (discovery: cluster is full)"
            assert "failed to bootstrap; discovery token was already used" in late.log
            assert why in late.log and '"level":"fatal"' not in late.log

            keys.kill()  # who has a log needs no registry
            three[0].stop()
            three[0].lines.clear()
            three[0].start()
            assert "discovery token is ignored since cluster already initialized" in three[0].log
        finally:
            for member in members:
                member.kill()


def wait_for(member: Server, words: str) -> None:
    """Until the member has said so, or has ended."""
    process = member.process
    assert process is not None
    while words not in member.log:
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(member.log)
