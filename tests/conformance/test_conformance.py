"""The runner of etcd's suites, with a suite that is a shell script."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance import excuses, running, table
from tests.conformance.running import Result

TOLD = """=== RUN   TestA
=== RUN   TestA/one
    a_test.go:7: no
--- FAIL: TestA (0.10s)
    --- FAIL: TestA/one (0.05s)
        --- FAIL: TestA/one/deep (0.05s)
    --- PASS: TestA/two (0.05s)
FAIL
"""
EXCUSES = """
# A comment.
v3\\.5\\..* e2e TestA/one/.*  needs another world
.*          e2e TestGood      was bad once
"""


def test_a_verdict_is_read_with_its_parts():
    result = running.read("TestA", TOLD, 1, 0.1)
    assert result.verdict == "FAIL"
    assert result.parts["TestA/two"] == "PASS"
    assert result.failed() == ["TestA/one/deep"]


@pytest.mark.parametrize(
    ("told", "code", "verdict"),
    [
        ("--- SKIP: TestA (0.00s)", 0, "SKIP"),
        ("--- PASS: TestA (0.00s)", 0, "PASS"),
        ("--- PASS: TestA (0.00s)\nwhat ends a test also counts", 1, "FAIL"),
        ("panic: test timed out after 7m0s", 2, "FAIL"),
        ("", -9, "FAIL"),
    ],
)
def test_a_verdict_is_never_better_than_the_exit(told, code, verdict):
    assert running.read("TestA", told, code, 0.0).verdict == verdict


def test_an_excuse_holds_for_its_release_and_all_failed_parts():
    known = excuses.read(EXCUSES)
    result = running.read("TestA", TOLD, 1, 0.1)
    assert table.excused("TestA", result, known, "v3.5.33", "e2e") == "needs another world"
    assert table.excused("TestA", result, known, "v3.7.1", "e2e") is None
    assert table.excused("TestA", result, known, "v3.5.33", "common") is None
    result.parts["TestA/two"] = "FAIL"
    assert table.excused("TestA", result, known, "v3.5.33", "e2e") is None


def test_the_table_counts_and_tells_needless_excuses():
    known = excuses.read(EXCUSES)
    results = {
        "TestA": running.read("TestA", TOLD, 1, 0.1),
        "TestGood": Result("PASS", 0.1, tries=2),
        "TestBad": Result("FAIL", 0.1),
        "TestNone": Result("SKIP", 0.1),
    }
    lines, failed = table.render(results, known, "v3.5.33", "e2e")
    assert failed == 1
    assert lines == [
        "v3.5.33 e2e: 1 passed (1 at the second try), 1 failed, 1 excused, "
        "1 skipped by the suite, of 4",
        "failed   TestBad",
        "excused  TestA: needs another world",
        "passed   TestGood, although it has an excuse",
    ]


def test_an_excuse_needs_a_reason():
    with pytest.raises(ValueError, match="line 1 has no reason"):
        excuses.read(".* e2e TestA")


def test_the_file_of_excuses_can_be_read():
    assert all(each.reason for each in excuses.read(excuses.FILE.read_text()))


def test_a_test_runs_alone_and_leaves_nothing_behind(tmp_path: Path):
    program = tmp_path / "suite.test"
    program.write_text('#!/bin/sh\nsleep 600 &\necho "--- PASS: TestA (0.00s)"\n')
    program.chmod(0o755)
    result = running.run(program, tmp_path, "TestA", [], 5.0, tmp_path / "log")
    assert result.verdict == "PASS", (tmp_path / "log").read_text()
    assert result.seconds < 5.0
