"""What each test costs in processor time, and which cost more than the fast set allows.

A part of pytest: `tests/conftest.py` registers it where a run leaves out what is slow. Counted is
the time of the process and of the processes that it waited for while a test's function ran, never
the clock: a busy machine changes it little. It is divided by what a fixed piece of work costs
there, so the budget means the same on a slow machine. All cases of one function count together.

Nothing fails by it: the run ends with a list of what is dearer than `BUDGET_S`, and `--mark-slow`
(`make mark-slow`) writes the mark above each of them, which leaves them to `make test`.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Final, NamedTuple, cast

import pytest

BUDGET_S: Final = 0.25
"""Seconds of the processor for all cases of one function, on a machine where `_work` costs `WORK_S`."""
WORK_S: Final = 0.01
KEPT: Final = ("tests/test_tidy.py", "tests/test_names.py")
"""They read the whole source and are dearer, but any change may break them: the fast set has them."""
LEFT_OUT: Final = "not slow"
"""Stands in the expression of marks of a fast run."""
_ROWS_MAX: Final = 20


class Cost(NamedTuple):
    seconds: float
    path: str
    line: int  # where the function begins with its decorators, from 1; 0 if it is made elsewhere


def _work() -> float:
    """Seconds that a fixed piece of plain Python costs."""
    begun = time.process_time()
    table: dict[int, int] = {}
    for number in range(100_000):
        table[number & 1023] = number
    return time.process_time() - begun


def _spent() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _line(item: pytest.Item) -> int:
    function = getattr(item, "function", None)
    property_ = getattr(function, "hypothesis", None)
    code = getattr(property_.inner_test if property_ else function, "__code__", None)
    return code.co_firstlineno if code and code.co_filename == str(item.path) else 0


class Costs:
    """Gathers what the tests cost; under xdist the workers send it along with their reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.scale = WORK_S / min(_work() for _ in range(5))
        self.costs: dict[str, Cost] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        begun = _spent()
        yield
        seconds = (_spent() - begun) * self.scale
        item.user_properties.append(("cost", (seconds, str(item.path), _line(item))))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == "cost":
                seconds, path, line = cast(tuple[float, str, int], value)
                function = report.nodeid.partition("[")[0]
                before = self.costs[function].seconds if function in self.costs else 0.0
                self.costs[function] = Cost(before + seconds, path, line)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        over = sorted(
            (
                row
                for row in self.costs.items()
                if row[1].seconds > BUDGET_S and not row[0].startswith(KEPT)
            ),
            key=lambda row: -row[1].seconds,
        )
        if not over:
            return
        total = sum(cost.seconds for cost in self.costs.values())
        say = terminalreporter.write_line
        say(f"{total:.0f} s of the processor; above {BUDGET_S} s (`make mark-slow` marks them):")
        for function, cost in over[:_ROWS_MAX]:
            say(f"  {cost.seconds:.2f} s {function}")
        if len(over) > _ROWS_MAX:
            say(f"  and {len(over) - _ROWS_MAX} more")
        if self.config.getoption("mark_slow"):
            mark(cost for _, cost in over)


def mark(costs: Iterable[Cost]) -> None:
    """Writes the mark above each function; those made elsewhere (state machines) are left to people."""
    places: dict[str, set[int]] = defaultdict(set)
    for cost in costs:
        if cost.line:
            places[cost.path].add(cost.line)
    for path, lines in places.items():
        Path(path).write_text(marked(Path(path).read_text(), lines))


def marked(text: str, lines: set[int]) -> str:
    """A module's text with the mark before each of these lines, and the import that it needs."""
    rows = text.splitlines(keepends=True)
    for line in sorted(lines, reverse=True):
        if not rows[line - 1].lstrip().startswith(("@", "def ", "async def ")):
            continue  # the file has changed since
        indent = rows[line - 1].partition("@")[0].partition("def ")[0].removesuffix("async ")
        rows.insert(line - 1, f"{indent}@pytest.mark.slow\n")
    if "import pytest\n" not in rows:
        rows.insert(rows.index("from __future__ import annotations\n") + 1, "\nimport pytest\n")
    return "".join(rows)
