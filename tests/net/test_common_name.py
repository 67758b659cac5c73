"""Whose name a client's certificate gives a call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from keyraft.net.address import common_name

Subject = tuple[tuple[tuple[str, str], ...], ...]


class Transport(asyncio.BaseTransport):
    """One whose other end has shown a certificate, in the form of `ssl.SSLSocket.getpeercert`."""

    def __init__(self, certificate: dict[str, Any] | None) -> None:
        super().__init__({"peercert": certificate})


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        (((("countryName", "XX"),), (("commonName", "alice"),)), "alice"),
        # All members must see the same user: Go takes the last of several.
        (((("commonName", "alice"),), (("commonName", "root"),)), "root"),
        (((("commonName", "root"), ("commonName", "alice")),), "alice"),
        ((), ""),
        (((("organizationName", "root"),),), ""),
        (((("commonName", ""),),), ""),
    ],
)
def test_the_last_name_of_a_certificate_counts(subject: Subject, name: str) -> None:
    assert common_name(Transport({"subject": subject, "notAfter": "x"})) == name


def test_without_a_verified_certificate_there_is_no_name() -> None:
    assert common_name(Transport(None)) is None
    assert common_name(Transport({})) is None  # shown, and not verified
    assert common_name(None) is None
