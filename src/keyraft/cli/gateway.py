"""`etcd gateway start`: the stateless TCP proxy in front of members."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, Final
from urllib.parse import urlsplit

import click

from keyraft.app.descriptors import raise_limit
from keyraft.app.systemd import notify_ready
from keyraft.base.durations import DurationError, parse_duration
from keyraft.base.gotext import parse_bool, quote
from keyraft.base.urls import URLError, split_host_port
from keyraft.logs.zap import DEFAULT_LOGGER
from keyraft.net import SRVError, look_up_blocking
from keyraft.proxy.discovered import discover_endpoints
from keyraft.proxy.tcp import GatewayEndpoint, run_gateway

SWITCH: Final = "--insecure-discovery"
PORT_MAX: Final = 65_535


class _Refused(click.ClickException):
    """Why the gateway does not start: one line, where the original writes it, and code 1."""

    def __init__(self, message: str, to_stderr: bool = False) -> None:
        super().__init__(message)
        self._to_stderr = to_stderr

    def show(self, file: Any = None) -> None:
        """Writes the line."""
        click.echo(self.message, file=file, err=self._to_stderr)


@click.group(name="gateway")
def gateway() -> None:
    """gateway related command"""


@gateway.command()
@click.option("--listen-addr", default="127.0.0.1:23790", help="listen address", show_default=True)
@click.option(
    "--endpoints",
    multiple=True,
    default=["127.0.0.1:2379"],
    help="comma separated etcd cluster endpoints",
    show_default=True,
)
@click.option("--discovery-srv", default="", help="DNS domain whose SRV records name the endpoints")
@click.option("--discovery-srv-name", default="", help="end of the service's name in the records")
@click.option("--insecure-discovery", is_flag=True, help="accept insecure SRV records")
@click.option(
    "--trusted-ca-file",
    default="",
    help="CA file of the members; must be readable when --discovery-srv is given",
)
@click.option(
    "--retry-delay",
    default="1m0s",
    help="duration of delay before retrying failed endpoints",
    show_default=True,
)
def start(
    listen_addr: str,
    endpoints: tuple[str, ...],
    discovery_srv: str,
    discovery_srv_name: str,
    insecure_discovery: bool,
    trusted_ca_file: str,
    retry_delay: str,
) -> None:
    """start the gateway"""
    log = DEFAULT_LOGGER
    try:
        retry_ns = parse_duration(retry_delay)
    except DurationError as error:
        raise click.ClickException(
            f'invalid argument {quote(retry_delay)} for "--retry-delay" flag: {error}'
        ) from None
    log.info("Running: ", args=["etcd", *sys.argv[1:]])
    try:
        found = discover_endpoints(
            log, discovery_srv, trusted_ca_file, insecure_discovery, discovery_srv_name
        )
    except SRVError as error:
        raise _Refused(str(error), to_stderr=True) from None
    members = [
        GatewayEndpoint(one.target, one.port, one.priority, one.weight) for one in found.records
    ] or [_endpoint(text.strip()) for text in ",".join(endpoints).split(",") if text.strip()]
    try:
        host, port = split_host_port(listen_addr)
        own = _addresses(host)
    except URLError:
        raise _Refused(f"failed to validate listen address: {listen_addr}") from None
    except OSError:
        raise _Refused(f"failed to resolve listen host: {host}") from None
    for member in members:
        _check_not_itself(member, own, port, listen_addr)
    if not members:
        raise _Refused("no endpoints found")
    try:
        asyncio.run(
            run_gateway(
                host,
                int(port or "0"),
                members,
                retry_ns,
                raise_limit(),
                log,
                lambda: notify_ready(log),
            )
        )
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise _Refused(f"listen tcp {listen_addr}: bind: {reason}", to_stderr=True) from None


def verb_first(words: list[str]) -> list[str]:
    """The words with `start` moved to the front. As in cobra, a flag without "=" takes a word.

    But for the one switch, which takes its value behind "=" only.
    """
    words = [word for given in words for word in _switch(given)]
    at = 0
    while at < len(words):
        word = words[at]
        if not word.startswith("-"):
            return [word, *words[:at], *words[at + 1 :]]
        if word == "--":
            break
        at += 1 if "=" in word or word in ("-h", "--help", SWITCH) else 2
    return words


def _switch(word: str) -> list[str]:
    """Without a value, as click has it: on, or left out."""
    name, given, value = word.partition("=")
    if name != SWITCH or not given:
        return [word]
    try:
        return [SWITCH] if parse_bool(value) else []
    except ValueError:
        return [word]  # click refuses it


def _endpoint(text: str) -> GatewayEndpoint:
    address = urlsplit(text).netloc if "://" in text else text
    try:
        host, port = split_host_port(address)
        if int(port) > PORT_MAX:
            raise ValueError(port)
        return GatewayEndpoint(host, int(port))
    except (URLError, ValueError):
        raise _Refused(f"error parsing endpoint {quote(text)}") from None


def _check_not_itself(member: GatewayEndpoint, own: set[str], port: str, listen_addr: str) -> None:
    try:
        resolved = _addresses(member.host)
    except OSError:
        raise _Refused(f"failed to resolve endpoint host: {member.host}") from None
    if str(member.port) == port and not own.isdisjoint(resolved):
        address = sorted(own & resolved)[0]
        raise _Refused(
            f"SRV or endpoint ({member.host}:{member.port}->{address}:{member.port}) "
            f"should not resolve to the gateway listen addr ({listen_addr})"
        )


def _addresses(host: str) -> set[str]:
    return {str(info[4][0]) for info in look_up_blocking(host or "0.0.0.0", 0)}
