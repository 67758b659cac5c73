"""CRC-32C, from the compiled part of the `crc32c` package only.

The package's own `__init__` looks up its version in the installation. That imports modules for
archives and e-mail, which would be a twentieth of a member's start time.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Protocol, cast


class _Crc32c(Protocol):
    def __call__(self, data: bytes | bytearray | memoryview, value: int = 0, /) -> int:
        """The checksum of `data`, continued from the checksum `value` of the bytes before it."""


def _load() -> _Crc32c:
    package = sys.modules.get("crc32c")
    if package is None:
        found = find_spec("crc32c")
        if found is not None and found.submodule_search_locations is not None:
            spec = PathFinder.find_spec("_crc32c", list(found.submodule_search_locations))
            if spec is not None and spec.loader is not None:
                module = module_from_spec(spec)
                spec.loader.exec_module(module)
                return cast(_Crc32c, module.crc32c)
        package = import_module("crc32c")
    return cast(_Crc32c, package.crc32c)


crc32c = _load()
