"""The examples of docs/CLIENT.md do what they say."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyraft.client import Client
from tests.support.server import ORACLE, ROOT, Server, needs_oracle

pytestmark = [pytest.mark.real, needs_oracle()]

TEXT = (ROOT / "docs" / "CLIENT.md").read_text()
BLOCKS = re.findall(r"```python( sync)?\n(.*?)```", TEXT, re.S)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(ORACLE, Path(tmp_path_factory.mktemp("document")) / "data")
    made.start()
    yield made
    made.kill()


def test_every_example_runs(server: Server) -> None:
    async def work() -> None:
        async with Client(server.endpoint) as client:
            names: dict[str, object] = {"client": client}
            for sync, source in BLOCKS:
                if sync:
                    continue
                code = compile(
                    source, "docs/CLIENT.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                )
                result = eval(code, names)
                if inspect.isawaitable(result):
                    await result

    asyncio.run(asyncio.wait_for(work(), 60))
    for sync, source in BLOCKS:
        if sync:
            exec(compile(source, "docs/CLIENT.md", "exec"), {"endpoint": server.endpoint})
    assert len(BLOCKS) > 8
