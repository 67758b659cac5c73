"""`keyraft config check`, and the files under `contrib/`."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from keyraft.cli.configcheck import config
from keyraft.config.flagtable import FLAGS
from tests.support.programs import ROOT

CONTRIB = ROOT / "contrib"


def check(path: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(config, ["check", str(path), *words])
    return result.exit_code, result.output.replace(str(path), "FILE")


def test_a_good_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"name: a\ndata-dir: {tmp_path}/d\nlog-outputs: [{tmp_path}/log]\n")
    assert check(path) == (0, "FILE: a member can start with it\n")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["c.yaml"]  # nothing was opened


def test_warnings_are_told_and_fail_a_strict_check(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: a\nname: b\nsnapshot-cuont: 5\nbackend-bbolt-freelist-type: map\n")
    code, said = check(path)
    assert code == 0
    assert said.splitlines() == [
        'FILE: warning: "snapshot-cuont" has no effect: it is no key of a member',
        'FILE: warning: "name" is set more than once: the last one counts',
        'FILE: warning: "backend-bbolt-freelist-type" is set: without effect here: the database is '
        "LMDB, which keeps its own free list",
        "FILE: a member can start with it",
    ]
    code, said = check(path, "--strict")
    assert code == 1 and "can start" not in said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: 5\n", "cannot unmarshal number into Go struct field configYAML.Config.name"),
        ("election-timeout: 100\n", "should be at least as 5 times as"),
        ("log-level: loud\n", 'unrecognized level: "loud"'),
        ("listen-client-urls: nonsense\n", "nonsense"),
    ],
)
def test_a_bad_file_is_refused_with_the_members_own_words(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    code, said = check(path)
    assert code == 1 and reason in said and "can start" not in said


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert check(tmp_path / "none.yaml") == (1, "FILE: open FILE: no such file or directory\n")


def test_the_sample_configuration_is_good() -> None:
    assert check(CONTRIB / "keyraft.yaml", "--strict")[0] == 0
    # The sections that are commented out hold keys that exist.
    text = (CONTRIB / "keyraft.yaml").read_text()
    for name in re.findall(r"^#   ([a-z-]+): ", text, re.M):
        assert name in FLAGS, name


def test_the_service_starts_what_exists() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(CONTRIB / "systemd" / "keyraft.service")
    service = unit["Service"]
    assert service["Type"] == "notify"
    commands = [service["ExecStartPre"].split()[1], service["ExecStart"].split()[1]]
    scripts = (ROOT / "pyproject.toml").read_text()
    for command in commands:
        assert f"\n{command} = " in scripts, command
    learned = [
        "Nice",
        "CPUWeight",
        "IOWeight",
        "IOSchedulingClass",
        "OOMScoreAdjust",
        "LimitNOFILE",
        "Restart",
    ]
    assert not {*learned, "StateDirectory", "NoNewPrivileges"} - set(service)


def test_the_container_file_holds_together() -> None:
    text = (CONTRIB / "container" / "Containerfile").read_text().replace("\\\n", "")
    lines = [line.split(" ", 1) for line in text.splitlines() if line and line[0] != "#"]
    words = {word for word, _ in lines}
    assert words <= {
        *[
            "FROM",
            "COPY",
            "RUN",
            "ENV",
            "USER",
            "VOLUME",
            "EXPOSE",
            "STOPSIGNAL",
            "HEALTHCHECK",
            "CMD",
        ]
    }
    stages = {rest.split(" AS ")[1] for word, rest in lines if word == "FROM" and " AS " in rest}
    copied = [re.findall(r"--from=(\S+)", rest) for word, rest in lines if word == "COPY"]
    assert {name for names in copied for name in names} == stages
    (command,) = [json.loads(rest) for word, rest in lines if word == "CMD"]
    assert command[0] == "etcd"
    assert all(flag.partition("=")[0].removeprefix("--") in FLAGS for flag in command[1:])
    (variables,) = [rest for word, rest in lines if word == "ENV"]
    assert {flag.variable for flag in FLAGS.values()} & set(re.findall(r"\w+(?==)", variables))


def test_systemd_finds_no_fault_in_the_service(tmp_path: Path) -> None:
    try:
        found = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(CONTRIB / "systemd" / "keyraft.service")],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("systemd is not installed")
    told = [line for line in found.stderr.splitlines() if "keyraft.service" in line]
    assert not [line for line in told if "Unknown" in line or "Failed to parse" in line], told
