"""The harnesses by matter; a target's name is what `python -m tests.fuzz NAME` takes."""

from __future__ import annotations

import importlib

from ..target import Target

MODULES = ("wires", "calls", "jsons", "files", "papers", "peers", "texts")


def all_targets() -> dict[str, Target]:
    """All of them, by name."""
    found: dict[str, Target] = {}
    for name in MODULES:
        module = importlib.import_module(f"{__name__}.{name}")
        for target in module.ALL:
            assert target.name not in found, target.name
            found[target.name] = target
    return found
