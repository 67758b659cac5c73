"""`etcd gateway start`: the stateless TCP proxy in front of members."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from urllib.parse import urlsplit

import click

from keyraft.app.descriptors import raise_limit
from keyraft.app.systemd import notify_ready
from keyraft.base.durations import DurationError, parse_duration
from keyraft.base.gotext import quote
from keyraft.base.log import Logger
from keyraft.base.urls import URLError, split_host_port
from keyraft.logs.zap import DEFAULT_LOGGER
from keyraft.proxy.tcp import GatewayEndpoint, run_gateway

VALIDATION_S_MAX = 5.0  # of a member that DNS named (etcd `ValidateSecureEndpoints`)


@click.group(name="gateway")
def gateway() -> None:
    """gateway related command"""


@gateway.command()
@click.option("--listen-addr", default="127.0.0.1:23790", help="listen address", show_default=True)
@click.option(
    "--endpoints",
    default="127.0.0.1:2379",
    help="comma separated etcd cluster endpoints",
    show_default=True,
)
@click.option("--discovery-srv", default="", help="DNS domain to find the endpoints in")
@click.option("--discovery-srv-name", default="", help="service name to query there")
@click.option("--insecure-discovery", is_flag=True, help="accept insecure SRV records")
@click.option("--trusted-ca-file", default="", help="CA that must have signed what is discovered")
@click.option(
    "--retry-delay",
    default="1m0s",
    help="duration of delay before retrying failed endpoints",
    show_default=True,
)
def start(
    listen_addr: str,
    endpoints: str,
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
    if trusted_ca_file and not os.path.exists(trusted_ca_file):
        raise click.ClickException(f"open {trusted_ca_file}: no such file or directory")
    members = _discovered(discovery_srv, discovery_srv_name, insecure_discovery)
    if members and not insecure_discovery:
        members = asyncio.run(secure_ones(members, discovery_srv, trusted_ca_file, log))
    members = members or [_endpoint(text) for text in endpoints.split(",")]
    try:
        host, port = split_host_port(listen_addr)
        own = _addresses(host)
    except URLError:
        raise click.ClickException(f"failed to validate listen address: {listen_addr}") from None
    except OSError:
        raise click.ClickException(f"failed to resolve listen host: {host}") from None
    for member in members:
        _check_not_itself(member, own, port, listen_addr)
    notify_ready(log)
    try:
        asyncio.run(run_gateway(host, int(port or "0"), members, retry_ns, raise_limit(), log))
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise click.ClickException(f"listen tcp {listen_addr}: bind: {reason}") from None


def verb_first(words: list[str]) -> list[str]:
    """The words with `start` moved to the front. As in cobra, a flag without "=" takes a word."""
    at = 0
    while at < len(words):
        word = words[at]
        if not word.startswith("-"):
            return [word, *words[:at], *words[at + 1 :]]
        if word == "--":
            break
        at += 1 if "=" in word or word in ("-h", "--help") else 2
    return words


def _endpoint(text: str) -> GatewayEndpoint:
    address = urlsplit(text).netloc if "://" in text else text
    try:
        host, port = split_host_port(address)
        return GatewayEndpoint(host, int(port))
    except (URLError, ValueError):
        raise click.ClickException(f"error parsing endpoint {quote(text)}") from None


def _check_not_itself(member: GatewayEndpoint, own: set[str], port: str, listen_addr: str) -> None:
    try:
        resolved = _addresses(member.host)
    except OSError:
        raise click.ClickException(f"failed to resolve endpoint host: {member.host}") from None
    if str(member.port) == port and not own.isdisjoint(resolved):
        address = sorted(own & resolved)[0]
        raise click.ClickException(
            f"SRV or endpoint ({member.host}:{member.port}->{address}:{member.port}) "
            f"should not resolve to the gateway listen addr ({listen_addr})"
        )


def _addresses(host: str) -> set[str]:
    return {str(info[4][0]) for info in socket.getaddrinfo(host or "0.0.0.0", None)}


async def secure_ones(
    members: list[GatewayEndpoint], domain: str, trusted_ca_file: str, log: Logger
) -> list[GatewayEndpoint]:
    """Those members that DNS named and that show a certificate of `domain` by a known authority.

    DEVIATION: etcd only looks whether they take a connection.
    """
    import ssl

    context = ssl.create_default_context(cafile=trusted_ca_file or None)

    async def reason(member: GatewayEndpoint) -> str:
        try:
            async with asyncio.timeout(VALIDATION_S_MAX):
                _, writer = await asyncio.open_connection(
                    member.host, member.port, ssl=context, server_hostname=domain
                )
        except (OSError, ValueError) as error:  # a name that no server can have is a ValueError
            return str(error) or type(error).__name__
        writer.transport.abort()
        return ""

    reasons = await asyncio.gather(*map(reason, members))
    kept = [member for member, why in zip(members, reasons) if not why]
    refused = [
        f"{quote(f'https://{member.host}:{member.port}')} failed to dial ({why})"
        for member, why in zip(members, reasons)
        if why
    ]
    shown = [f"https://{member.host}:{member.port}" for member in kept]
    if refused:
        log.warn(
            "failed to validate discovered endpoints",
            srv_server=domain,
            endpoints=shown,
            error=",".join(refused),
        )
    else:
        log.info("using validated discovered SRV endpoints", srv_server=domain, endpoints=shown)
    return kept


def _discovered(domain: str, name: str, insecure: bool) -> list[GatewayEndpoint]:
    """The members that DNS names; insecure ones only on request."""
    if not domain:
        return []
    import dns.exception
    import dns.resolver

    suffix = f"-{name}" if name else ""
    services = [f"_etcd-client-ssl{suffix}", *([f"_etcd-client{suffix}"] if insecure else [])]
    found: list[GatewayEndpoint] = []
    for service in services:
        try:
            records = dns.resolver.resolve(f"{service}._tcp.{domain}", "SRV")
        except dns.exception.DNSException:
            continue
        found += [
            GatewayEndpoint(r.target.to_text(omit_final_dot=True), r.port, r.priority, r.weight)
            for r in records
        ]
    if not found:
        raise click.ClickException(f"no SRV records of etcd clients in {domain}")
    return found
