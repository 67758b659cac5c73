"""CRC-32C, from the `crc32c` package without its front: only its compiled part is loaded.

The package's own module asks the installation for its version, and with that come the readers of
archives and of e-mail: a twentieth of a member's start.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Protocol, cast


class _Crc32c(Protocol):
    def __call__(self, data: bytes | bytearray | memoryview, value: int = 0, /) -> int:
        """The checksum of `data` behind what `value` is the checksum of."""


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
