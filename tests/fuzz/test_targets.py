"""A short turn of every harness: its seeds, what once broke something, and some hundred mutations."""

from __future__ import annotations

import pytest

from tests.support.examples import share_of

from .limits import within_growth, within_memory
from .target import KEPT, Target, inputs
from .targets import all_targets

TARGETS = all_targets()
MUTATIONS = 150
GROWN = [(target, family) for target in TARGETS.values() for family in target.grown]
UNITS = 100


def _each(target: Target) -> int:
    """A dear one gets fewer inputs."""
    return share_of(MUTATIONS) if target.seconds < 1.0 else 8


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_takes_its_input_or_says_its_error(name: str) -> None:
    target = TARGETS[name]
    for data in inputs(target, 1, _each(target)):
        target.once(data)


@pytest.mark.parametrize("name", TARGETS)
def test_what_once_broke_something_breaks_nothing(name: str) -> None:
    target = TARGETS[name]
    for _, data in target.kept():
        within_memory(target, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_what_an_input_holds_is_bounded_by_its_length(name: str) -> None:
    target = TARGETS[name]
    for data in target.seeds():
        target.once(data)  # what is imported late is not the input's
        within_memory(target, data)
        break


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "family"), GROWN, ids=[f"{target.name}: {family}" for target, family in GROWN]
)
def test_the_work_grows_with_the_input_and_not_faster(target: Target, family: str) -> None:
    within_growth(target, target.grown[family], UNITS)


def test_what_is_kept_belongs_to_a_target() -> None:
    assert {folder.name for folder in KEPT.iterdir()} <= set(TARGETS)
