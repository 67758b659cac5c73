"""The table of certificates that ends of TLS show each other, and the files of one authority."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization

from tests.tls.issuing import CLIENT, CODE, SERVER, Issued, Order, new_authority, self_signed

ORDERS: Final[Mapping[str, Order]] = {
    "valid": Order(),
    "rsa": Order(key="rsa"),
    "ed25519": Order(key="ed25519"),
    "ec521": Order(key="ec521"),
    "rsa of 1024 bits": Order(key="rsa1024"),
    "expired": Order(begins_in_days=-9, ends_in_days=-2),
    "not yet valid": Order(begins_in_days=2),
    "revoked": Order(),
    "other host": Order(names=("other.example", "10.9.9.9")),
    "other address": Order(names=("10.9.9.9",)),
    "localhost only": Order(names=("localhost",)),
    "unknown host": Order(names=("nowhere.invalid",)),
    "wildcard": Order(names=("*.example",)),
    "servers' usage": Order(usage=(SERVER,)),
    "clients' usage": Order(usage=(CLIENT,)),
    "usage for code": Order(usage=(CODE,)),
    "no usage": Order(usage=None),
    "keys' usage without signatures": Order(signs_only=True),
    "common name only": Order(("localhost",), ()),
    "no common name": Order(()),
    "two common names": Order(("first", "second")),
    "another common name": Order(("another",)),
    "unknown critical extension": Order(unknown_critical=True),
}
"""Signed by the authority that the servers trust."""

NOTHING: Final = "none"


class Papers:
    """Every kind, in files of one folder; the same for all servers of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = authority = new_authority()
        middle = authority.issue(Order(("middle",), (), usage=None, authority=True))
        weak = authority.issue(Order(("no authority",), (), usage=None))
        narrow = authority.issue(
            Order(("narrow",), (), usage=None, authority=True, only_under="corp.example")
        )
        self.issued: dict[str, Issued] = {
            name: authority.issue(order) for name, order in ORDERS.items()
        }
        self.issued |= {
            "other authority": new_authority("another authority").issue(Order()),
            "impostor": new_authority().issue(Order()),
            "self-signed": self_signed(Order()),
            "self-signed and trusted": self_signed(Order()),
            "chain": middle.issue(Order()),
            "chain without its middle": middle.issue(Order(), send_chain=False),
            "signed by no authority": weak.issue(Order()),
            "outside its authority's names": narrow.issue(Order()),
        }
        self.ca = self._write("ca.crt", authority.pem())
        """What servers trust: the authority, and one certificate by itself."""
        trusted = self.issued["self-signed and trusted"].certificate
        self.ca.write_bytes(authority.pem() + trusted.public_bytes(serialization.Encoding.PEM))
        self.middle_ca = self._write("middle.crt", Issued(middle.certificate, None).pem())
        """The intermediate authority alone."""
        self.both_ca = self._write("both.crt", authority.pem() + self.middle_ca.read_bytes())
        self.crl = self._write("crl", authority.revoke([self.issued["revoked"].serial]))
        self.files = {
            name: issued.write(folder, name.replace(" ", "-").replace("'", ""))
            for name, issued in self.issued.items()
        }

    def _write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path
