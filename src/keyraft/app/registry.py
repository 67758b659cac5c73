"""Members of a new cluster meet under a token in the keys of another cluster (v3 discovery).

    /_etcd/registry/TOKEN/_config/size     how many members the cluster has, written by an operator
    /_etcd/registry/TOKEN/members/ID       "name=peer URL,…" of one member, written by that member

Each member writes its own key and waits until as many are there as the size says; the first ones by
create revision are the cluster, and who comes later is refused. Nothing is written before the
cluster has been looked at. A member that died half way finds its own key and goes on.

A question that fails is asked again after 2, 4, … 256 s, for ever: the registry may come up later
than the members. A registry's answers are bounded (MEMBERS_MAX, ANSWER_BYTES_MAX). Source: etcd
`server/etcdserver/api/v3discovery/discovery.go`.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from keyraft.base.durations import SECOND, format_duration
from keyraft.base.log import Logger
from keyraft.base.urls import URLError, parse_urls_map
from keyraft.client import TLS, Client
from keyraft.client.errors import EtcdError, RawError
from keyraft.cluster import format_id
from keyraft.config.config import Config

if TYPE_CHECKING:
    from keyraft.client import Event
    from keyraft.proto.mvcc_pb2 import KeyValue

PREFIX: Final = "/_etcd/registry"
MEMBERS_MAX: Final = 1_024  # keys that are read under one token; no cluster is so large
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
RETRIES_DOUBLED: Final = 8  # then the wait stays 2**8 s
PING_S_MIN: Final = 10.0  # gRPC-Go raises shorter times (internal.KeepaliveMinPingTime)
CALL_ERRORS: Final = (EtcdError, RawError)
_SIZE: Final = re.compile(rb"\+?[0-9]{1,18}\Z")


class RegistryError(Exception):
    """The members do not come together this way; the message is etcd's."""


FULL: Final = "discovery: cluster is full"
NO_SIZE: Final = "discovery: size key not found"
BAD_SIZE: Final = "discovery: size key is bad"
BAD_URL: Final = "discovery: invalid peer URL"


class Registration(NamedTuple):
    """One member's key: its name, its text, and when it was made."""

    key: str
    text: str
    create_revision: int


class Registrations:
    """The members found under a token, in the order in which they came."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.members: list[Registration] = []

    def add(self, one: Registration) -> str:
        """Takes a registration; returns why not, or ""."""
        if not one.key.startswith(self._prefix):
            return "invalid peer registry key"
        if "=" not in one.text:
            return "invalid peer info returned from discovery service"
        if any(one.key == other.key for other in self.members):
            return "found duplicate peer from discovery service"
        self.members.append(one)
        self.members.sort(key=lambda member: member.create_revision)
        return ""

    def has_place(self, key: str, size: int) -> bool:
        """Whether `key` is one of the first `size`, or there are fewer than that."""
        return len(self.members) < size or key in (one.key for one in self.members[:size])

    def cluster(self, size: int) -> str:
        """The first `size` members, as `--initial-cluster` has them."""
        return ",".join(one.text for one in self.members[:size])


class Registry:
    """One member's way into the cluster of its token."""

    def __init__(
        self,
        client: Client,
        token: str,
        member_id: int,
        timeout_s: float,
        log: Logger,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        **fields: object,
    ) -> None:
        """`timeout_s`: of one request. `fields` go into each line of the log."""
        self._client = client
        place = posixpath.normpath(f"{PREFIX}/{token}")
        self._size_key = f"{place}/_config/size"
        self._members = f"{place}/members"
        self._own_key = f"{self._members}/{format_id(member_id)}"
        self._timeout_s = timeout_s
        self._log = log
        self._fields = fields
        self._sleep = sleep
        self._retries = 0

    async def join(self, own: str) -> str:
        """Registers `own` ("name=URL,…") and waits for the others.

        Returns the cluster, as `--initial-cluster` has it; raises RegistryError.
        """
        cluster = ""
        try:
            await self._look()
            await self._register(own)
            found, size, revision = await self._look()
            while len(found.members) < size:
                await self._wait(found, size, revision)
                if len(found.members) < size:
                    found, size, revision = await self._look()
            cluster = found.cluster(size)
            try:
                parse_urls_map(cluster)
            except URLError:
                raise RegistryError(BAD_URL) from None
        except RegistryError as error:
            self._log.error(
                "discovery failed to join cluster",
                **self._fields,
                cluster=cluster,
                error=str(error),
            )
            raise
        self._log.info("discovery joined cluster successfully", **self._fields, cluster=cluster)
        return cluster

    async def _look(self) -> tuple[Registrations, int, int]:
        """The members, the cluster's size, and the revision of both; raises RegistryError."""
        while True:
            try:
                size = await self._cluster_size()
                found, revision = await self._registered()
                break
            except CALL_ERRORS:
                await self._wait_to_retry("cluster status check")
        self._retries = 0
        if not found.has_place(self._own_key, size):
            raise RegistryError(FULL)
        return found, size, revision

    async def _cluster_size(self) -> int:
        try:
            answer = await self._client.get(self._size_key, timeout_s=self._timeout_s)
        except CALL_ERRORS as error:
            self._log.warn(
                "failed to get cluster size from discovery service",
                **self._fields,
                clusterSizeKey=self._size_key,
                error=reason(error),
            )
            raise
        if not answer.kvs:
            raise RegistryError(NO_SIZE)
        text = answer.kvs[0].value
        if not _SIZE.match(text) or not 0 < int(text) <= MEMBERS_MAX:
            raise RegistryError(BAD_SIZE)
        return int(text)

    async def _registered(self) -> tuple[Registrations, int]:
        try:
            answer = await self._client.get(
                self._members,
                prefix=True,
                limit=MEMBERS_MAX,
                sort_by="create",
                order="ascend",
                timeout_s=self._timeout_s,
            )
        except CALL_ERRORS as error:
            self._log.warn(
                "failed to get cluster members from discovery service",
                **self._fields,
                membersKeyPrefix=self._members,
                error=reason(error),
            )
            raise
        found = Registrations(self._members)
        for pair in answer.kvs:
            self._take(found, pair)
        return found, answer.header.revision

    def _take(self, found: Registrations, pair: KeyValue) -> None:
        one = Registration(_text(pair.key), _text(pair.value), pair.create_revision)
        refusal = found.add(one)
        fields = {**self._fields, "memberKey": one.key, "memberInfo": one.text}
        if refusal:
            self._log.warn(refusal, **fields)
        else:
            self._log.info("found peer from discovery service", **fields)

    async def _register(self, own: str) -> None:
        while True:
            try:
                await self._client.put(self._own_key, own, timeout_s=self._timeout_s)
                break
            except CALL_ERRORS as error:
                self._log.warn(
                    "failed to register members itself to the discovery service",
                    **self._fields,
                    memberKey=self._own_key,
                    error=reason(error),
                )
            await self._wait_to_retry("register member itself")
        self._retries = 0
        self._log.info(
            "register member itself successfully",
            **self._fields,
            memberKey=self._own_key,
            memberInfo=own,
        )

    async def _wait(self, found: Registrations, size: int, revision: int) -> None:
        """Until `size` members are there, or the watch has ended and one must look again."""
        self._log.info(
            "waiting for peers from discovery service",
            **self._fields,
            clusterSize=size,
            found_peers=len(found.members),
        )
        event: Event
        try:
            async with self._client.watch(
                self._members, prefix=True, start_revision=revision + 1
            ) as watch:
                async for event in watch:
                    self._take(found, event.kv)
                    if len(found.members) >= size:
                        break
        except CALL_ERRORS:
            await self._wait_to_retry("cluster status check")
            return
        if len(found.members) >= size:
            self._log.info(
                "found all needed peers from discovery service",
                **self._fields,
                clusterSize=size,
                found_peers=len(found.members),
            )

    async def _wait_to_retry(self, step: str) -> None:
        self._retries += 1
        seconds = 2 ** min(self._retries, RETRIES_DOUBLED)
        self._log.warn(
            "retry connecting to discovery service",
            **self._fields,
            reason=step,
            backoff=format_duration(seconds * SECOND),
        )
        await self._sleep(seconds)


def open_client(config: Config) -> tuple[Client, bool]:
    """The client of the registry, and whether it has a user; raises RegistryError.

    DEVIATION: a password may stand behind the user's name and a colon, as the help text of etcd
    says; etcd then asks without a user.
    """
    cert, key, ca = config.discovery_cert, config.discovery_key, config.discovery_cacert
    skip = config.discovery_insecure_skip_tls_verify
    if bool(cert) != bool(key):
        raise RegistryError(f"KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")
    tls = None
    if cert or ca or skip or not config.discovery_insecure_transport:
        tls = TLS(ca, cert, key, verify=not skip)
        try:
            tls.context()
        except OSError as error:  # an ssl.SSLError is one too
            raise RegistryError(_file_reason(error, (cert, key, ca))) from None
    user, password = config.discovery_user, config.discovery_password
    if user and not password:
        user, _, password = user.partition(":")
    if not password:
        user = ""  # as etcd's client: without a password no token can be fetched
    keepalive_s = config.discovery_keepalive_time_s
    try:
        client = Client(
            *config.discovery_endpoints,
            tls=tls,
            user=user,
            password=password,
            dial_timeout_s=config.discovery_dial_timeout_s,
            keepalive_s=max(keepalive_s, PING_S_MIN) if keepalive_s > 0 else 0.0,
            keepalive_timeout_s=config.discovery_keepalive_timeout_s,
            receive_bytes_max=ANSWER_BYTES_MAX,
        )
    except ValueError as error:
        raise RegistryError(str(error)) from None
    return client, bool(user)


def reason(error: Exception) -> str:
    """An error of a call, without what the client adds about its connections."""
    return str(getattr(error, "text", error))


def _file_reason(error: OSError, files: tuple[str, ...]) -> str:
    for name in files:
        if name:
            try:
                with open(name, "rb"):
                    pass
            except OSError as problem:
                return f"open {name}: {(problem.strerror or '').lower()}"
    return str(error)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").strip()
