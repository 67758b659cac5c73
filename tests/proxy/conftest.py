"""What the tests of proxies share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.server import OURS, Server


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A member for the proxies of one file."""
    server = Server(OURS, tmp_path_factory.mktemp("proxied") / "member")
    server.start()
    yield server
    server.kill()
