"""What belongs into the fast set: docs/HACKING.md, "The fast set"."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import settings

from tests.support import costs
from tests.support.examples import examples

ROOT = Path(__file__).resolve().parents[1]

MODULE = """\
from __future__ import annotations

from tests import tidy

LIMIT = 1


def test_one() -> None:
    assert LIMIT


class TestMore:
    @tidy.planted("@")
    async def test_two(self) -> None:
        assert LIMIT
"""


def test_the_mark_is_written_above_a_function_and_its_decorators() -> None:
    rows = MODULE.splitlines()
    lines = {rows.index("def test_one() -> None:") + 1, rows.index('    @tidy.planted("@")') + 1}
    text = costs.marked(MODULE, lines)
    assert text.startswith("from __future__ import annotations\n\nimport pytest\n\nfrom tests")
    assert "\n@pytest.mark.slow\ndef test_one()" in text
    assert '\n    @pytest.mark.slow\n    @tidy.planted("@")\n' in text
    assert text.count("import pytest") == costs.marked(text, set()).count("import pytest") == 1


def test_a_fast_run_tells_what_is_too_dear_with_all_its_cases() -> None:
    gathered = costs.Costs(cast(pytest.Config, SimpleNamespace(getoption=lambda name: False)))
    lines: list[str] = []
    told = cast(pytest.TerminalReporter, SimpleNamespace(write_line=lines.append))

    def ran(case: str, seconds: float) -> None:
        cost = ("cost", (seconds, case.partition("::")[0], 7))
        report = SimpleNamespace(when="call", nodeid=case, user_properties=[cost])
        gathered.pytest_runtest_logreport(cast(pytest.TestReport, report))

    ran("tests/a.py::test_cheap", costs.BUDGET_S)
    gathered.pytest_terminal_summary(told)
    assert lines == []
    for case in range(2):
        ran(f"tests/a.py::test_dear[{case}]", costs.BUDGET_S)
    ran(f"{costs.KEPT[0]}::test_kept", 9.0)
    gathered.pytest_terminal_summary(told)
    assert lines[1:] == [f"  {2 * costs.BUDGET_S:.2f} s tests/a.py::test_dear"]
    assert gathered.costs["tests/a.py::test_dear"].line == 7


def test_a_fast_run_tries_a_fifth_of_the_examples() -> None:
    full = settings.get_profile("keyraft").max_examples
    assert settings.get_profile("fast").max_examples * 5 == full
    share = settings.default.max_examples / full if settings.default else 1
    assert examples(200).max_examples == 200 * share
    assert examples(5).max_examples == 5


def test_every_number_of_examples_follows_the_profile() -> None:
    named = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if "settings(max_" in path.read_text().replace("\n", "") and path.name != "examples.py"
    ]
    assert named == [str(Path(__file__).relative_to(ROOT))]
