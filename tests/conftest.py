"""What every test process needs before it starts others."""

from __future__ import annotations

import gc
import logging
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.support import costs, examples

examples.register()

# A run in the background of a shell inherits an ignored SIGINT and would pass it on to the tools
# that tests interrupt; a handler of our own is set back to the default in every process started.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mark-slow", action="store_true", help="mark what the fast set has no room for"
    )


def pytest_configure(config: pytest.Config) -> None:
    judged = costs.LEFT_OUT in config.option.markexpr
    if judged and not config.pluginmanager.has_plugin(costs.__name__):
        config.pluginmanager.register(costs.Costs(config), costs.__name__)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in examples.later_seeds(items):
        item.add_marker(pytest.mark.slow)


class _Told(logging.Handler):
    """Collects what asyncio has nobody to raise to: callbacks that raised, tasks that nobody awaited."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


_told = _Told()
logging.getLogger("asyncio").addHandler(_told)


@pytest.fixture(autouse=True)
def _what_asyncio_only_logs_is_an_error() -> Iterator[None]:
    yield
    texts, _told.texts = _told.texts, []
    assert not texts, "\n".join(texts)


def pytest_collection_finish() -> None:
    """Everything is imported: it is no garbage, and need not be looked through at each module."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _garbage_is_collected_near_its_module() -> Iterator[None]:
    """What a module leaves open is found at its end, so that the blame names a near test.

    What then still lives (caches, parsed sources) lasts, and is looked through no more.
    """
    yield
    gc.collect()
    gc.freeze()
    texts, _told.texts = _told.texts, []
    assert not texts, "\n".join(texts)


@pytest.fixture(autouse=True)
def _members_hold_what_they_must() -> Iterator[None]:
    yield
    harness = sys.modules.get("tests.server.harness")
    if harness is not None:
        harness.check_running()
