"""Names of a package that are imported when they are first used.

A package says under `TYPE_CHECKING` what there is, for checkers, and here where it is:

    __getattr__ = names_in(__name__, {".accepting": ("Acceptor", "Places"), ".tls": ("Terms",)})

So an importer of the package loads only the modules that it uses (PEP 562).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def names_in(package: str, homes: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The package's `__getattr__`: `homes` are its modules, with a dot in front, and their names."""
    home_of = {name: home for home, names in homes.items() for name in names}

    def __getattr__(name: str) -> Any:
        home = home_of.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(home, package), name)
        setattr(sys.modules[package], name, found)  # from now on an attribute like any other
        return found

    return __getattr__
