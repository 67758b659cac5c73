"""Names of packages that are imported when they are first used."""

from __future__ import annotations

import importlib

import pytest

PACKAGES = ("keyraft.client", "keyraft.grpc", "keyraft.net", "keyraft.storage.transfer")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_that_a_package_gives_is_there(name: str) -> None:
    package = importlib.import_module(name)
    for public in package.__all__:
        found = getattr(package, public)
        assert vars(package)[public] is found  # asked for once, it is an attribute like any other
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'Nothing'"):
        package.Nothing  # noqa: B018
