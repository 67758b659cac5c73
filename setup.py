"""What pyproject.toml cannot say: the pure cores may be compiled ahead of time.

`KEYRAFT_COMPILE=1 pip install --no-build-isolation .` builds Raft and the store's core into C
extensions with mypyc; it needs mypy, setuptools and a C compiler. Without the variable the same
modules run as they are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from setuptools import setup

SOURCE = Path("src") / "keyraft"
FOLDERS = ("raft", "mvcc")
BESIDE = (SOURCE / "base" / "varints.py", SOURCE / "base" / "protofields.py")
AS_THEY_ARE = (
    # Derived from a builtin exception, which mypyc does not compile, or not with class attributes.
    SOURCE / "raft" / "errors.py",
    SOURCE / "raft" / "invariants.py",
    # Simulations derive from it, and nothing can that is not compiled itself.
    SOURCE / "raft" / "storage.py",
)


def extensions() -> list[Any]:
    """The compiled modules, if they are asked for."""
    if os.environ.get("KEYRAFT_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    modules = sorted(
        path
        for folder in FOLDERS
        for path in (SOURCE / folder).glob("*.py")
        if path.name != "__init__.py" and path not in AS_THEY_ARE
    )
    modules += BESIDE
    return mypycify(["--config-file=pyproject.toml", *map(str, modules)])


setup(ext_modules=extensions())
