"""Who founds the cluster, or whom to join, where others than `--initial-cluster` say it.

    --discovery-srv DOMAIN       the SRV records of the domain name the members (`net.srv`)
    --discovery-token TOKEN      the members meet in another cluster's keys (`app.registry`)

Asked once, before the first start; a member with a log knows its cluster. The answer is the
configuration with `--initial-cluster` filled in, and whatever follows is as if an operator had
written it there. Source: etcd `server/embed/config.go` (`PeerURLsMapAndToken`,
`GetDNSClusterNames`), `server/etcdserver/bootstrap.go`. Loaded only where one of the flags is set.
"""

from __future__ import annotations

from typing import Final

from keyraft.app.registry import CALL_ERRORS, Registry, RegistryError, open_client, reason
from keyraft.app.start_checks import DiscoveryError, StartError
from keyraft.base.gotext import quote
from keyraft.base.urls import URLError, format_urls_map, parse_urls_map
from keyraft.cluster import (
    BootstrapError,
    check_join,
    check_new_cluster,
    founders,
    has_duplicates,
)
from keyraft.config.config import Config
from keyraft.net import PEERS, Names, SRVError, SystemNames, in_thread, peer_cluster, service_name

TIMEOUT_S_MIN: Final = 1e-6  # a timeout of zero or less is over at once


async def discover(config: Config) -> Config:
    """The configuration of a member that has no log yet; raises StartError.

    By token it returns when all members of the new cluster are there, so perhaps after hours.
    """
    if config.discovery_endpoints:
        return await by_registry(config)
    return await in_thread(lambda: by_records(config, SystemNames()))


def by_records(config: Config, names: Names) -> Config:
    """The members that DNS names, secure ones first. Blocks; raises StartError."""
    log = config.log
    found: list[str] = []
    problems: list[str] = []
    for secure in (True, False):
        service = service_name(PEERS, config.discovery_srv_name, secure)
        cluster: list[str] = []
        failed = {}
        try:
            cluster = peer_cluster(
                names,
                secure,
                service,
                config.name,
                config.discovery_srv,
                config.initial_advertise_peer_urls,
            )
        except SRVError as error:
            problems.append(str(error))
            failed["error"] = str(error)
        log.info(
            f"get cluster for {service_name(PEERS, '', secure)} SRV",
            service_scheme="https" if secure else "http",
            service_name=service,
            server_name=config.name,
            discovery_srv=config.discovery_srv,
            advertise_peer_urls=[str(url) for url in config.initial_advertise_peer_urls],
            found_cluster=cluster,
            **failed,
        )
        found += cluster
    if problems:
        log.warn("failed to resolve during SRV discovery", error="\n".join(problems))
    if not found:
        raise StartError("error setting up initial cluster: " + "\n".join(problems))
    for node in found:
        log.info("got bootstrap from DNS for etcd-server", node=node)
    cluster_text = ",".join(found)
    try:
        members = parse_urls_map(cluster_text)
    except URLError:
        members = {}
    if config.name not in members:
        raise StartError(
            "error setting up initial cluster: cannot find local etcd member "
            f"{quote(config.name)} in SRV records"
        )
    return config._replace(initial_cluster=cluster_text)


async def by_registry(config: Config) -> Config:
    """The members that have met under `--discovery-token`; raises StartError."""
    token = config.discovery_token
    own = {config.name: config.initial_advertise_peer_urls}
    try:
        if config.initial_cluster_state == "existing":
            check_join(config.name, own, discovers=True)
        check_new_cluster(config.name, config.initial_advertise_peer_urls, own)
        (member,) = founders(token, own)
    except BootstrapError as error:
        raise StartError(str(error)) from None
    config.log.info("Bootstrapping cluster using v3 discovery.")
    try:
        cluster = await _meet(config, member.id, format_urls_map(own))
    except (RegistryError, *CALL_ERRORS) as error:
        raise DiscoveryError(reason(error)) from None
    members = parse_urls_map(cluster)
    if has_duplicates(members):
        raise StartError(f"discovery cluster {format_urls_map(members)} has duplicate url")
    try:
        if all(one.id != member.id for one in founders(token, members)):
            # etcd starts, and panics when it finds out.
            raise StartError(
                f"discovery cluster {format_urls_map(members)} has another member "
                f"by the name of {quote(config.name)}"
            )
    except BootstrapError as error:
        raise StartError(str(error)) from None
    return config._replace(initial_cluster=cluster, initial_cluster_token=token)


async def _meet(config: Config, member_id: int, own: str) -> str:
    client, has_user = open_client(config)
    async with client:
        if has_user:
            await client.connect(max(config.discovery_dial_timeout_s, TIMEOUT_S_MIN))
        registry = Registry(
            client,
            config.discovery_token,
            member_id,
            max(config.discovery_request_timeout_s, TIMEOUT_S_MIN),
            config.log,
            discovery_token=config.discovery_token,
            discovery_endpoints=",".join(config.discovery_endpoints),
        )
        return await registry.join(own)
