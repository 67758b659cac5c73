"""Whether a certificate of a member belongs to the address that it connects from."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Awaitable, Mapping, Sequence

import pytest

from keyraft.net import CertificateRefusedError
from keyraft.net.tls import addresses
from keyraft.net.tls.addresses import LOOKUP_NAMES_MAX, LOOKUPS_MAX, AddressCheck
from keyraft.net.tls.names import CertificateNames

HERE = "10.0.0.1:5000"


class Told:
    """A resolver that knows what it is told, and counts the questions."""

    def __init__(
        self, names: Mapping[str, Sequence[str]], addresses: Mapping[str, Sequence[str]]
    ) -> None:
        self._names, self._addresses = names, addresses
        self.asked: list[str] = []

    def names(self, address: str) -> Sequence[str]:
        return self._answer(self._names, address)

    def addresses(self, name: str) -> Sequence[str]:
        return self._answer(self._addresses, name)

    def _answer(self, table: Mapping[str, Sequence[str]], key: str) -> Sequence[str]:
        self.asked.append(key)
        if key not in table:
            raise OSError(f"lookup {key}: no such host")
        return table[key]


def showing(*names: str) -> CertificateNames:
    hosts: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    dns: list[str] = []
    for name in names:
        try:
            hosts.append(ipaddress.ip_address(name))
        except ValueError:
            dns.append(name)
    return CertificateNames("m", tuple(dns), tuple(hosts), bool(names))


def verdict(check: AddressCheck, shown: CertificateNames, caller: str = HERE) -> tuple[bool, str]:
    """Whether the resolver was needed, and why it was refused, if it was."""
    waits: Awaitable[None] | None = None
    try:
        waits = check(shown, caller)
        if waits is not None:
            asyncio.run(_await(waits))
    except CertificateRefusedError as error:
        assert error.names is shown
        return waits is not None, str(error)
    return waits is not None, ""


async def _await(waits: Awaitable[None]) -> None:
    await waits


NOBODY = Told({}, {})


@pytest.mark.parametrize(
    ("names", "caller", "reason"),
    [
        ((), HERE, ""),
        (("10.0.0.1",), HERE, ""),
        (("10.9.9.9", "10.0.0.1", "a.example"), HERE, ""),
        (("::1",), "[::1]:5000", ""),
        (("10.0.0.1",), "[::ffff:10.0.0.1]:5000", ""),
        (
            ("10.9.9.9", "10.9.9.8"),
            HERE,
            "x509: certificate is valid for 10.9.9.9, 10.9.9.8, not 10.0.0.1",
        ),
        (("a.example",), "@", ""),  # a unix socket
    ],
)
def test_an_address_needs_no_resolver(names: tuple[str, ...], caller: str, reason: str) -> None:
    assert verdict(AddressCheck(NOBODY), showing(*names), caller) == (False, reason)


@pytest.mark.parametrize(
    ("names", "of_address", "of_names", "reason"),
    [
        # by the address's names
        (["a.example"], {"10.0.0.1": ["a.example."]}, {}, ""),
        (["*.example"], {"10.0.0.1": ["b.example."]}, {}, ""),
        (["*.example"], {"10.0.0.1": ["b.c.example"]}, {}, ""),  # wider than for servers
        (["*.example"], {"10.0.0.1": ["example"]}, {"example": ["10.0.0.1"]}, "no"),
        # by the name's addresses
        (["a.example"], {}, {"a.example": ["10.0.0.3", "10.0.0.1"]}, ""),
        (["b.example", "a.example"], {}, {"a.example": ["10.0.0.1"]}, ""),
        (["a.example", "10.9.9.9"], {}, {"a.example": ["10.0.0.1"]}, ""),
        # not
        (["a.example"], {"10.0.0.1": ["b.example"]}, {"a.example": ["10.0.0.3"]}, "no"),
        (["*.example"], {}, {"a.example": ["10.0.0.1"]}, "lookup 10.0.0.1: no such host"),
        (["a.example", "b"], {"10.0.0.1": []}, {}, "lookup b: no such host"),
    ],
)
def test_names_are_looked_up_both_ways(
    names: list[str],
    of_address: dict[str, list[str]],
    of_names: dict[str, list[str]],
    reason: str,
) -> None:
    shown = showing(*names)
    said = verdict(AddressCheck(Told(of_address, of_names)), shown)
    if not reason:
        assert said == (True, "")
        return
    listed = " ".join(f'"{name}"' for name in shown.dns_names)
    because = "" if reason == "no" else f" ({reason})"
    whole = f'tls: "10.0.0.1" does not match any of DNSNames [{listed}]{because}'
    assert said == (True, whole)


def test_a_certificate_with_thousands_of_names_does_not_keep_the_resolver_busy() -> None:
    resolver = Told({}, {})
    shown = showing(*(f"n{number}.example" for number in range(5_000)))
    needed, reason = verdict(AddressCheck(resolver), shown)
    assert needed and reason and len(resolver.asked) == LOOKUP_NAMES_MAX + 1
    assert len(reason) < 100 * LOOKUP_NAMES_MAX


class Hanging:
    """A resolver that answers nobody before it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def names(self, address: str) -> Sequence[str]:
        self.released.wait(60)
        return ["a.example"]

    def addresses(self, name: str) -> Sequence[str]:
        return []


def test_a_resolver_that_hangs_holds_up_nobody_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Hanging()
    check = AddressCheck(resolver)
    shown = showing("a.example")

    async def run() -> None:
        begun = [asyncio.ensure_future(_await(_needed(check, shown))) for _ in range(LOOKUPS_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(CertificateRefusedError, match="too many lookups"):
            check(shown, HERE)
        assert check(showing("10.0.0.1"), HERE) is None  # who needs no lookup comes in
        resolver.released.set()
        assert await asyncio.gather(*begun) == [None] * LOOKUPS_MAX
        await _needed(check, shown)
        resolver.released.clear()
        monkeypatch.setattr(addresses, "LOOKUP_S_MAX", 0.01)
        with pytest.raises(CertificateRefusedError, match="i/o timeout"):
            await _needed(check, shown)
        resolver.released.set()

    asyncio.run(run())


def _needed(check: AddressCheck, shown: CertificateNames) -> Awaitable[None]:
    waits = check(shown, HERE)
    assert waits is not None
    return waits


def test_the_system_knows_this_machine() -> None:
    """The hosts file at least."""
    check = AddressCheck()
    assert verdict(check, showing("localhost"), "127.0.0.1:1") == (True, "")
    needed, reason = verdict(check, showing("nowhere.invalid"), "127.0.0.1:1")
    assert needed and reason.startswith('tls: "127.0.0.1" does not match any of DNSNames ["nowhere')


def test_who_has_given_up_is_not_looked_up_for() -> None:
    resolver = Told({}, {})
    found = addresses.find(resolver, "10.0.0.1", ["a", "b", "c"], lambda: len(resolver.asked) > 2)
    assert found == "lookup b: no such host" and resolver.asked == ["10.0.0.1", "a", "b"]
