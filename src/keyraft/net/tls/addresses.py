"""Whether a certificate belongs to the address that its owner connects from.

Members are looked at so, on the port for peers (etcd `client/pkg/transport/listener_tls.go`,
`checkCertSAN`):

    no names at all                     let in
    an address of it is the caller's    let in
    addresses only                      refused
    DNS names                           let in when the system's resolver gives one of them for
                                        the address (a wildcard stands for any such name's
                                        beginning), or the address for one of them

The resolver is asked in threads of this module, which may be slow and never hold up the loop.
Everything has a limit: names of one certificate, questions under way, and the time of one check.
Only who has a certificate of a trusted authority comes this far.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

from keyraft.base.gotext import quote
from keyraft.net.reasons import TIMEOUT, lookup_reason

from .names import CertificateNames
from .refusal import CertificateRefusedError

LOOKUP_S_MAX: Final = 10.0  # of one check, as long as a handshake may take
LOOKUPS_MAX: Final = 32  # that the resolver works at, a thread each; more checks are refused
LOOKUP_NAMES_MAX: Final = 64  # of one certificate; those behind them are not looked up


class Resolver(Protocol):
    """Asks the system; both may block, and raise OSError with the reason."""

    def names(self, address: str) -> Sequence[str]:
        """The names of an address."""

    def addresses(self, name: str) -> Sequence[str]:
        """The addresses of a name."""


class SystemResolver:
    """The hosts file, DNS, and what else the system is set to ask."""

    def names(self, address: str) -> Sequence[str]:
        """The names of an address."""
        try:
            name, others, _ = socket.gethostbyaddr(address)
        except (OSError, UnicodeError) as error:
            raise OSError(f"lookup {address}: {_reason(error)}") from None
        return (name, *others)

    def addresses(self, name: str) -> Sequence[str]:
        """The addresses of a name."""
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise OSError(lookup_reason(name, error)) from None
        except (OSError, UnicodeError) as error:
            raise OSError(f"lookup {name}: {_reason(error)}") from None
        return [str(answer[4][0]) for answer in found]


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.herror | UnicodeError):
        return "no such host"
    return (error.strerror or str(error)).lower()


class AddressCheck:
    """The check of one port. Owned by the loop's thread."""

    def __init__(self, resolver: Resolver | None = None) -> None:
        self._resolver = resolver if resolver is not None else SystemResolver()
        self._waiting = 0

    def __call__(self, shown: CertificateNames, caller: str) -> Awaitable[None] | None:
        """Raises CertificateRefusedError, at once or when awaited; None: let in.

        `caller`: "host:port" as Go prints it.
        """
        if not shown.addresses and not shown.dns_names:
            return None
        host, colon, _ = caller.rpartition(":")
        if not colon:
            return None  # a unix socket has no address; etcd's speak without TLS
        host = host.strip("[]")
        if shown.addresses:
            if shown.covers(host):
                return None
            if not shown.dns_names:
                raise CertificateRefusedError(shown.mismatch(host), shown)
        if self._waiting >= LOOKUPS_MAX:
            raise CertificateRefusedError(_mismatch(host, shown, "too many lookups"), shown)
        return self._look_up(shown, host)

    async def _look_up(self, shown: CertificateNames, host: str) -> None:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[str | None] = loop.create_future()
        names = shown.dns_names[:LOOKUP_NAMES_MAX]

        def answer(reason: str | None) -> None:
            self._waiting -= 1
            if not found.done():
                found.set_result(reason)

        def ask() -> None:
            reason = find(self._resolver, host, names, found.done)
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(answer, reason)

        # Of its own and a daemon: a resolver that hangs delays neither others nor the stop.
        self._waiting += 1
        threading.Thread(target=ask, name="names of a peer", daemon=True).start()
        try:
            async with asyncio.timeout(LOOKUP_S_MAX):
                reason = await found
        except TimeoutError:
            reason = TIMEOUT
        if reason is not None:
            raise CertificateRefusedError(_mismatch(host, shown, reason), shown)


def find(
    resolver: Resolver, host: str, dns_names: Iterable[str], given_up: Callable[[], bool]
) -> str | None:
    """None when the address is one of the names'; else the last error, which may be empty.

    Runs in a thread; `given_up`: nobody waits for the answer any more.
    """
    endings = [name[1:] for name in dns_names if name.startswith("*.")]
    whole = [name for name in dns_names if not name.startswith("*.")]
    reason = ""
    try:
        for name in resolver.names(host):
            plain = name.removesuffix(".")
            if plain in whole or any(plain.endswith(ending) for ending in endings):
                return None
    except OSError as error:
        reason = str(error)
    for name in whole:
        if given_up():
            break
        try:
            if host in resolver.addresses(name):
                return None
        except OSError as error:
            reason = str(error)
    return reason


def _mismatch(host: str, shown: CertificateNames, reason: str) -> str:
    names = " ".join(map(quote, shown.dns_names[:LOOKUP_NAMES_MAX]))
    because = f" ({reason})" if reason else ""
    return f"tls: {quote(host)} does not match any of DNSNames [{names}]{because}"
