"""What came of a suite: counts, every failure, every excuse with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from .excuses import Excuse, reason
from .running import Result


def excused(
    name: str, result: Result, excuses: list[Excuse], release: str, suite: str
) -> str | None:
    """The reason for which a failed test is excused, if all of its failed parts are."""
    parts = result.failed() or [name]
    reasons = [reason(excuses, release, suite, part) for part in parts]
    if any(each is None for each in reasons):
        return None
    return "; ".join(dict.fromkeys(each for each in reasons if each is not None))


def render(
    results: Mapping[str, Result], excuses: list[Excuse], release: str, suite: str
) -> tuple[list[str], int]:
    """The table's lines, and how many failures are not excused."""
    failed, pardoned, needless = [], [], []
    for name, result in results.items():
        why = excused(name, result, excuses, release, suite)
        if result.verdict == "FAIL":
            if why is None:
                failed += [f"failed   {name}", *(f"           {p}" for p in result.failed())]
            else:
                pardoned.append(f"excused  {name}: {why}")
        elif result.verdict == "PASS" and reason(excuses, release, suite, name) is not None:
            needless.append(f"passed   {name}, although it has an excuse")
    count = [result.verdict for result in results.values()]
    again = sum(result.tries > 1 for result in results.values() if result.verdict == "PASS")
    unexcused = count.count("FAIL") - len(pardoned)
    head = (
        f"{release} {suite}: {count.count('PASS')} passed ({again} at the second try), "
        f"{unexcused} failed, {len(pardoned)} excused, {count.count('SKIP')} skipped by the suite, "
        f"of {len(results)}"
    )
    return [head, *failed, *pardoned, *needless], unexcused
