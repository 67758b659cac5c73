"""Each test that docs/SECURITY.md names is there, and each harness."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.fuzz.targets import all_targets

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))


def test_each_row_has_a_test_or_says_why_it_cannot_apply() -> None:
    begin, end = PAGE.index("## etcd's advisories"), PAGE.index("## Which bytes are foreign")
    rows = [line for line in PAGE[begin:end].splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| advisory", "| release"))]
    assert len(rows) > 50
    reasons = ("cannot apply", "so it is here", "the same", "above")
    for row in rows:
        assert "`tests/" in row or any(reason in row for reason in reasons), row


@pytest.mark.slow
def test_each_test_that_is_named_exists() -> None:
    assert len(NAMED) > 40
    for path, name in NAMED:
        tree = ast.parse((ROOT / path).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not name or name in functions, (path, name)


def test_each_harness_is_listed_and_each_listed_one_exists() -> None:
    table = PAGE[PAGE.index("## Which bytes are foreign") :]
    listed = set()
    for line in table.splitlines():
        cells = line.split("|")
        if line.startswith("| ") and "---" not in line and "harness" not in line:
            listed |= set(re.findall(r"`(\w+)`", cells[3]))
    assert listed == set(all_targets())
