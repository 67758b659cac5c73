"""What a command works with: its arguments and flags, the client, the printer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from keyraft.cli.ctl import exits
from keyraft.cli.ctl.command import Command
from keyraft.cli.ctl.exits import Exit
from keyraft.cli.ctl.flags import Values
from keyraft.cli.ctl.globals import ClientLog, read_environment, write

if TYPE_CHECKING:
    from keyraft.cli.ctl.printers import Printer
    from keyraft.client import TLS, Client

FOREVER_S: Final = 0.0  # a call without a deadline
KEEPALIVE_S_MIN: Final = 10.0  # gRPC-Go, internal.KeepaliveMinPingTime

# Texts that are not in the table of etcd's own client, which prints them with their status.
_OPAQUE: Final = frozenset(
    {
        "etcdserver: invalid client api version",
        "etcdserver: watch canceled",
        "etcdserver: permission not given",
        "etcdserver: request timed out, waiting for the applied index took too long",
        "etcdserver: request canceled",
        "etcdserver: context deadline exceeded",
    }
)


def error_text(error: Exception) -> str:
    """What the original prints for an error of a call."""
    from keyraft.client.errors import ClientError, DeadlineError, EtcdError, RawError
    from keyraft.grpc.status import CODE_NAMES

    if isinstance(error, ClientError):
        return str(error)
    if isinstance(error, DeadlineError):
        return "context deadline exceeded"
    if isinstance(error, EtcdError) and not isinstance(error, RawError):
        if error.text not in _OPAQUE:
            return error.text
    if isinstance(error, EtcdError | RawError):
        name = CODE_NAMES[error.code] if error.code < len(CODE_NAMES) else f"Code({error.code})"
        return f"rpc error: code = {name} desc = {error.text}"
    return str(error)


def ping_interval_s(keepalive_s: float) -> float:
    """Seconds between two pings on a connection, given --keepalive-time; 0 for none.

    gRPC-Go silently raises short times, such as the flag's default. A server closes a connection
    that pings more often than every 5 s while nothing else happens.
    """
    return max(keepalive_s, KEEPALIVE_S_MIN) if keepalive_s > 0 else 0.0


class Context:
    """One run of one command."""

    def __init__(self, command: Command, values: Values, arguments: list[str], words: list[str]):
        self.command = command
        self.values = values
        self.arguments = arguments
        self.words = words  # the words behind the command's name
        self._printer: Printer | None = None
        self._configured = False
        self._password: tuple[str, str] | None = None
        self._endpoints: list[str] | None = None

    def __getitem__(self, flag: str) -> Any:
        return self.values[flag]

    @property
    def timeout_s(self) -> float:
        """--command-timeout; zero or less still ends the call."""
        seconds: float = self.values["command-timeout"]
        return max(seconds, 1e-6)

    @property
    def printer(self) -> Printer:
        """The printer for the output form; exit code 4 for an unknown form."""
        if self._printer is None:
            from keyraft.cli.ctl import printers

            made = printers.make(self.values["write-out"], self.values["hex"])
            if made is None:
                raise Exit(exits.BAD_FEATURE, "unsupported output format")
            self._printer = made
        return self._printer

    def refuse(self, text: str, code: int = exits.BAD_ARGS) -> Exit:
        """The Exit of a command with wrong arguments."""
        return Exit(code, text)

    def configure(self) -> None:
        """Reads the environment and checks the client's flags, in the original's order."""
        if self._configured:
            return
        self._configured = True
        read_environment(self.values, self.command.name == "watch")
        if self.values["debug"]:
            self._show_flags()
        self._endpoints = self._find_endpoints()
        for name in ("cert", "key", "cacert"):
            if name in self.values.given and not self.values[name]:
                raise Exit(exits.BAD_ARGS, f"empty string is passed to --{name} option")
        self._password = self._find_user()
        _ = self.printer

    def _show_flags(self) -> None:
        from keyraft.cli.ctl.globals import GLOBAL_FLAGS, variable, without_secret
        from keyraft.cli.ctl.printers.base import complain

        for flag in sorted(GLOBAL_FLAGS, key=lambda flag: flag.name):
            complain(f"{variable(flag)}={without_secret(flag, self.values[flag.name])}")

    @property
    def endpoints(self) -> list[str]:
        """--endpoints, or what DNS says."""
        self.configure()
        return self._endpoints or []

    def _find_endpoints(self) -> list[str]:
        domain: str = self.values["discovery-srv"]
        if domain:
            from keyraft.cli.ctl.discovery import discover

            found = discover(
                domain, self.values["discovery-srv-name"], self.values["insecure-discovery"]
            )
            if found:
                return found
        return [endpoint.strip() for endpoint in self.values["endpoints"]]

    def _find_user(self) -> tuple[str, str] | None:
        user: str = self.values["user"]
        if self.values["auth-jwt-token"] or not user:
            return None
        if self.values["password"]:
            return user, self.values["password"]
        name, colon, password = user.partition(":")
        if colon:
            return name, password
        from keyraft.cli.ctl.password import ask

        return user, ask("Password: ")

    def tls(self) -> TLS | None:
        """The TLS configuration, when any flag asks for one; code 128 for a bad one."""
        from keyraft.client import TLS

        domain = "" if self.values["insecure-discovery"] else self.values["discovery-srv"]
        cert, key, ca = (self.values[name] for name in ("cert", "key", "cacert"))
        if not (cert or key or ca or domain) and self.values["insecure-transport"]:
            if not self.values["insecure-skip-tls-verify"]:
                return None
        if bool(cert) != bool(key):
            raise Exit(
                exits.BAD_ARGS,
                f"KeyFile and CertFile must both be present[key: {key}, cert: {cert}]",
            )
        tls = TLS(ca, cert, key, domain, not self.values["insecure-skip-tls-verify"])
        try:
            tls.context()
        except OSError as error:
            raise Exit(exits.BAD_ARGS, _file_error(error, (cert, key, ca))) from None
        return tls

    @asynccontextmanager
    async def client(self, *endpoint: str, timeout_s: float | None = None) -> AsyncIterator[Client]:
        """A client of `endpoint`, by default of all endpoints; code 2 when it cannot be built.

        Calls end after `timeout_s`, by default --command-timeout.
        """
        from keyraft.client import Client
        from keyraft.client.errors import EtcdError, RawError

        self.configure()
        tls = self.tls()
        token: str = self.values["auth-jwt-token"]
        user, password = self._password or ("", "")
        if user and not password:
            user = ""  # as in the original: without a password no token can be fetched
        try:
            client = Client(
                *(endpoint or self.endpoints),
                tls=tls,
                user=user,
                password=password,
                token=token,
                timeout_s=self.timeout_s if timeout_s is None else timeout_s,
                keepalive_s=ping_interval_s(self.values["keepalive-time"]),
                keepalive_timeout_s=self.values["keepalive-timeout"],
                dial_timeout_s=self.values["dial-timeout"],
                receive_bytes_max=self.values["max-recv-bytes"],
                log=ClientLog("etcd-client", self.values["debug"]),
            )
        except ValueError as error:
            raise Exit(exits.BAD_ARGS, str(error)) from None
        async with client:
            if user:
                try:
                    await client.connect(self.values["dial-timeout"])
                except (EtcdError, RawError) as error:
                    raise Exit(exits.BAD_CONNECTION, error_text(error)) from None
            yield client

    async def cluster_endpoints(self) -> list[str]:
        """With --cluster the client URLs of all members, else the endpoints.

        DEVIATION: etcd takes --endpoints here, whatever --discovery-srv says.
        """
        if not self.values["cluster"]:
            self.configure()
            return self.endpoints
        from keyraft.client.errors import EtcdError, RawError

        async with self.client() as client:
            try:
                found = await client.cluster.members()
            except (EtcdError, RawError) as error:
                raise Exit(
                    exits.ERROR,
                    "failed to fetch endpoints from etcd cluster member list: " + error_text(error),
                ) from None
        return [url for member in found.members for url in member.clientURLs]

    def note(self, message: str, **fields: object) -> None:
        """Writes a log line to standard error."""
        write("info", "", message, fields)


def _file_error(error: OSError, files: tuple[str, ...]) -> str:
    """In Go's words."""
    import os

    if isinstance(error, IsADirectoryError):
        return f"read {error.filename}: is a directory"
    if isinstance(error, PermissionError):
        return f"open {error.filename}: permission denied"
    for name in files:
        if name and not os.path.exists(name):
            return f"open {name}: no such file or directory"
    return str(error)
