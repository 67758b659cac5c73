"""Finding members and clients' endpoints by DNS: SRV records (RFC 2782) of a domain.

    _etcd-server-ssl._tcp.DOMAIN    _etcd-server._tcp.DOMAIN      peers, over https and http
    _etcd-client-ssl._tcp.DOMAIN    _etcd-client._tcp.DOMAIN      clients' endpoints

A service name NAME makes "-NAME" the end of the service: `_etcd-server-ssl-NAME`. What names mean
is asked of `Names`: `SystemNames` in life, something with fixed answers in tests. All of it blocks:
on an event loop it runs through `in_thread`.

Invariants: an answer has at most RECORDS_MAX records, or it is refused; one question takes at most
QUESTION_S, all that belong to one domain together LOOKUP_S; records come by priority, those of one
priority by chance and weight. Errors have the words of Go's resolver, which operators know from
etcd. Source: etcd `client/pkg/srv/srv.go`; Go `net/dnsclient.go`.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from random import Random, SystemRandom
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from keyraft.base.urls import URL, URLError, split_host_port
from keyraft.net.address import join_host_port
from keyraft.net.connecting import look_up_blocking

if TYPE_CHECKING:
    import dns.resolver

_T = TypeVar("_T")
CLIENTS: Final = "etcd-client"
PEERS: Final = "etcd-server"
RECORDS_MAX: Final = 256  # of one service; a cluster has a handful of members
QUESTION_S: Final = 10.0  # Go's resolver: 5 s a try, two tries
LOOKUP_S: Final = 60.0  # for one domain: its records and the addresses of their targets
NAMESERVERS: Final = ("127.0.0.1", "::1")  # without any in /etc/resolv.conf, as in Go
NO_SUCH_HOST: Final = "no such host"
MISBEHAVING: Final = "server misbehaving"
TIMEOUT: Final = "i/o timeout"


class SRVError(Exception):
    """Nothing could be found; the message is etcd's."""


class SRVRecord(NamedTuple):
    """Where a service is: `target` is absolute, with its last dot; a lower `priority` is better."""

    target: str
    port: int
    priority: int = 0
    weight: int = 0

    @property
    def address(self) -> str:
        """target:port."""
        return join_host_port(self.target, self.port)


class Names(Protocol):
    """What names mean."""

    def records(self, name: str) -> Sequence[SRVRecord]:
        """The SRV records of a name, in the order to try them; raises SRVError."""

    def address(self, host: str, port: int) -> str:
        """address:port of a host; raises SRVError."""


class Found(NamedTuple):
    """Endpoints as URLs, and the record that each one is from."""

    endpoints: tuple[str, ...] = ()
    records: tuple[SRVRecord, ...] = ()


def service_name(service: str, name: str, secure: bool) -> str:
    """The service with what its scheme and the service name add."""
    return service + ("-ssl" if secure else "") + (f"-{name}" if name else "")


def client_endpoints(names: Names, domain: str, name: str = "") -> Found:
    """The endpoints that clients find, secure ones first; raises SRVError when there are no records."""
    endpoints: list[str] = []
    records: list[SRVRecord] = []
    errors: list[str] = []
    for secure, scheme in ((True, "https"), (False, "http")):
        try:
            answer = names.records(f"_{service_name(CLIENTS, name, secure)}._tcp.{domain}")
        except SRVError as error:
            errors.append(str(error))
            continue
        endpoints += [f"{scheme}://{record.address}" for record in answer]
        records += answer
    if len(errors) == 2:
        raise SRVError(f"dns lookup errors: {errors[0]} and {errors[1]}")
    return Found(tuple(endpoints), tuple(records))


def peer_cluster(
    names: Names, secure: bool, service: str, own: str, domain: str, advertised: Sequence[URL]
) -> list[str]:
    """The members that the peer records name, as `--initial-cluster` has them: "name=URL".

    A record that leads to the address of one of the `advertised` URLs is this member's and gets the
    name `own`; the others are numbered. Raises SRVError.
    """
    scheme = "https" if secure else "http"
    ends_s = monotonic() + LOOKUP_S
    mine: dict[str, URL] = {}
    for url in advertised:
        try:
            host, port = split_host_port(url.host)
        except URLError as error:
            raise SRVError(str(error)) from None
        mine[names.address(host, int(port or "0"))] = url
    problem = ""
    found: list[str] = []
    numbered = 0
    try:
        records = names.records(f"_{service}._tcp.{domain}")
    except SRVError as error:
        raise SRVError(f"error querying DNS SRV records for _{service} {error}") from None
    for record in records:
        if monotonic() > ends_s:
            problem = f"lookup {record.target}: {TIMEOUT}"
            break
        try:
            url_here = mine.get(names.address(record.target, record.port))
        except SRVError as error:
            problem = str(error)
            continue
        name = own if url_here is not None else ""
        if not name:
            name = str(numbered)
            numbered += 1
        url_found = f"{scheme}://{join_host_port(record.target.removesuffix('.'), record.port)}"
        if url_here is not None and url_here.scheme != scheme:
            problem = (
                f"bootstrap at {url_found} from DNS for {service} has scheme mismatch with "
                f"expected peer {url_here}"
            )
        else:
            found.append(f"{name}={url_found}")
    if problem and not found:
        raise SRVError(f"error querying DNS SRV records for _{service} {problem}")
    return found


def in_order(records: Sequence[SRVRecord], random: Random) -> list[SRVRecord]:
    """By priority; those of one priority by chance, which their weights share (RFC 2782)."""
    left = sorted(records, key=lambda record: (record.priority, record.weight))
    ordered: list[SRVRecord] = []
    while left:
        same = [record for record in left if record.priority == left[0].priority]
        del left[: len(same)]
        while total := sum(record.weight for record in same):
            drawn = random.randrange(total)
            for at, record in enumerate(same):
                drawn -= record.weight
                if drawn < 0:
                    ordered.append(same.pop(at))
                    break
        ordered += same
    return ordered


class SystemNames:
    """What this machine's resolver says: /etc/resolv.conf, and /etc/hosts for addresses."""

    def __init__(self, random: Random | None = None) -> None:
        self._random = random or SystemRandom()

    def records(self, name: str) -> list[SRVRecord]:
        """The SRV records of `name`; raises SRVError."""
        import dns.exception
        import dns.name
        import dns.resolver

        resolver = _resolver()
        try:
            asked = dns.name.from_text(name, None)
            answer = resolver.resolve(asked, "SRV", search=True, lifetime=QUESTION_S)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            raise SRVError(_lookup(name, NO_SUCH_HOST, resolver)) from None
        except dns.resolver.LifetimeTimeout:
            raise SRVError(_lookup(name, TIMEOUT, resolver)) from None
        except dns.resolver.NoNameservers:
            raise SRVError(_lookup(name, MISBEHAVING, resolver)) from None
        except (dns.exception.DNSException, UnicodeError, ValueError):  # the name is none
            raise SRVError(_lookup(name, NO_SUCH_HOST)) from None
        except OSError as error:
            raise SRVError(_lookup(name, error.strerror or str(error), resolver)) from None
        if len(answer) > RECORDS_MAX:
            raise SRVError(
                _lookup(name, f"{len(answer)} records, more than {RECORDS_MAX}", resolver)
            )
        records = [
            SRVRecord(one.target.to_text(), one.port, one.priority, one.weight) for one in answer
        ]
        return in_order(records, self._random)

    def address(self, host: str, port: int) -> str:
        """The first address, of IPv4 if there is one (Go `net.ResolveTCPAddr`); raises SRVError."""
        try:
            found = look_up_blocking(host, port)
        except socket.gaierror as error:
            reason = NO_SUCH_HOST if error.errno != socket.EAI_AGAIN else MISBEHAVING
            raise SRVError(_lookup(host, reason, _resolver())) from None
        except (OSError, UnicodeError):
            raise SRVError(_lookup(host, NO_SUCH_HOST)) from None
        found.sort(key=lambda one: one[0] != socket.AF_INET)
        return join_host_port(str(found[0][4][0]), port)


def _resolver() -> dns.resolver.Resolver:
    import dns.resolver

    try:
        return dns.resolver.get_default_resolver()
    except dns.resolver.NoResolverConfiguration:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = list(NAMESERVERS)
        return resolver


def _lookup(name: str, reason: str, resolver: dns.resolver.Resolver | None = None) -> str:
    """An error of Go's resolver (`net.DNSError`)."""
    if resolver is None or not resolver.nameservers:
        return f"lookup {name}: {reason}"
    return (
        f"lookup {name} on {join_host_port(str(resolver.nameservers[0]), resolver.port)}: {reason}"
    )


async def in_thread(work: Callable[[], _T]) -> _T:
    """What `work` returns or raises, from a thread that no end of the process waits for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def finish(result: _T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # there is one without an error

    def run() -> None:
        result: _T | None = None
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  # it is raised where it is awaited
            failure = error
        try:
            loop.call_soon_threadsafe(finish, result, failure)
        except RuntimeError:
            pass  # the loop has ended meanwhile

    threading.Thread(target=run, name="keyraft-names", daemon=True).start()
    return await done
