"""How many random examples a property is tried with: all of them in `make test`, a fifth in `make`.

So with a test's parameter `seed`: the fast set has the first fifth of its cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

_FULL: Final = 100  # a property's own number, where it names none
_FAST: Final = 20
_EXAMPLES_MIN: Final = 10
_SEEDS_MIN: Final = 3


def register() -> None:
    """The profiles that `--hypothesis-profile` chooses from; `keyraft` is the one without it."""
    # No example is judged by how fast the machine was at that moment.
    common: Any = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("keyraft", max_examples=_FULL, **common)
    settings.register_profile("fast", max_examples=_FAST, **common)
    settings.load_profile("keyraft")


def share_of(full: int) -> int:
    """What a run makes of a number of examples."""
    share = settings.default.max_examples if settings.default is not None else _FULL
    return max(min(full, _EXAMPLES_MIN), full * share // _FULL)


def examples(full: int, **others: Any) -> settings:
    """The settings of a property that is tried `full` times in a whole run."""
    return settings(max_examples=share_of(full), **others)


def later_seeds(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Of each function with seeds, the cases with all but the first fifth of them."""
    numbers: dict[str, list[tuple[int, pytest.Item]]] = {}
    for item in items:
        case = getattr(item, "callspec", None)
        if case is not None and "seed" in case.indices:
            function = item.nodeid.partition("[")[0]
            numbers.setdefault(function, []).append((case.indices["seed"], item))
    later = []
    for cases in numbers.values():
        seeds = 1 + max(number for number, _ in cases)
        kept = max(min(seeds, _SEEDS_MIN), seeds * _FAST // _FULL)
        later += [item for number, item in cases if number >= kept]
    return later
