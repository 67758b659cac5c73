"""The connection to other members: the peer port and the transport.

The port is bound before anything is written, so that a port in use is reported first; requests wait
in its backlog until `serve`. The transport needs the member's id, so it is made when the disk is
open. The member is attached last.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, TypeVar

from keyraft.app.descriptors import Rejections, refusal
from keyraft.app.leader_calls import Forwarding
from keyraft.app.peer_hashes import HashQuestions
from keyraft.app.snapshot_transfers import Transfers
from keyraft.app.start_checks import StartError, listen_error
from keyraft.auth import TokenAheadError
from keyraft.base import errors
from keyraft.base.errors import EtcdError, RawError
from keyraft.base.urls import URL
from keyraft.base.version import VERSION
from keyraft.cluster import may_join, parse_version
from keyraft.config.config import Config
from keyraft.grpc import Limits, Router
from keyraft.mvcc import KVHash
from keyraft.net import (
    PEER_PORT,
    Http1Client,
    Http1Service,
    Places,
    Server,
)
from keyraft.peer.api_client import ClusterView, PeerApiClient
from keyraft.peer.api_handlers import ApiHandlers, HashKVAnswer
from keyraft.peer.exchange import Routes
from keyraft.peer.handlers import PIPELINE_BYTES_MAX, RaftHandlers
from keyraft.peer.metrics import PeerMetrics
from keyraft.peer.stream import DialTerms
from keyraft.peer.transport import Transport
from keyraft.proto import rpc_pb2
from keyraft.raft import Message, MessageType
from keyraft.server import Member, hash_keys
from keyraft.shell.inbox import Inbox

if TYPE_CHECKING:
    from keyraft.net import ClientTLS, ServerTLS

_T = TypeVar("_T")
_SNAP: Final = int(MessageType.SNAP)
APPLY_WAIT_S: Final = 1.0  # etcd `applyTimeout`: how long a forwarded lease request waits
VERSIONS_TIMEOUT_S: Final = 5.0  # for each peer URL of a cluster to join
BOOTSTRAPPED_TIMEOUT_S: Final = 1.0  # short: nobody answers while a cluster is being founded


class PeerPort:
    """All communication between this member and others. Owned by the loop."""

    def __init__(
        self,
        config: Config,
        transfers: Transfers,
        places: Places,
        fatal: Callable[[str, str], None],
    ) -> None:
        """`places`: how many connections others may open at once. `fatal(what, why)` stops it."""
        self._config = config
        self._places = places
        self._transfers = transfers
        self._log = config.log
        self._inbox = Inbox(time.monotonic, config.log, fatal, transfers.reception.has_database)
        self._member: Member | None = None
        self._transport: Transport | None = None
        self._server: Server | None = None
        self._routes = Routes(config.log)
        self._forwarding: Forwarding | None = None
        self._hashes: HashQuestions | None = None
        self._server_tls: ServerTLS | None = None
        self._client_tls: ClientTLS | None = None
        if config.cipher_suites or _speaks_tls(config):
            from keyraft.app.member_tls import check_suites, peer_tls

            check_suites(config)
            if _speaks_tls(config):
                self._server_tls, self._client_tls = peer_tls(config)

    # --- starting -----------------------------------------------------------------------------

    async def bind(self) -> None:
        """Binds the ports of the peer URLs; raises StartError."""
        config = self._config
        loop = asyncio.get_running_loop()
        self._server = Server(
            loop,
            Router(),
            Limits(),
            None,
            places=self._places,
            say=refusal(self._log, "peer", self._places.most),
            failed=Rejections(self._log, "peer", loop.time),
            http1=Http1Service(self._routes.handle, loop, PEER_PORT, early=True),
        )
        for url in config.listen_peer_urls:
            try:
                if url.is_secure and self._server_tls is None:
                    raise StartError(
                        f"cannot listen on TLS for {_numeric(url)}: KeyFile and CertFile are not "
                        "presented"
                    )
                self._tell_of_plain(url)
                await self._server.listen(
                    str(url),
                    self._server_tls,
                    reuse_port=config.socket_reuse_port,
                    start_serving=False,
                )
            except (OSError, StartError) as error:
                reason = listen_error(url.address, error) if isinstance(error, OSError) else error
                self._log.error("creating peer listener failed", error=str(reason))
                await self.release()
                raise StartError(str(reason)) from None

    def _tell_of_plain(self, url: URL) -> None:
        """Warns when flags about TLS do not reach a URL."""
        if url.scheme != "http":
            return
        if self._server_tls is not None:
            self._log.warn(
                "scheme is HTTP while key and cert files are present; ignoring key and cert files",
                peer_url=str(url),
            )
        if self._config.peer_client_cert_auth:
            self._log.warn(
                "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert "
                "auth for this URL",
                peer_url=str(url),
            )

    async def release(self) -> None:
        """Closes the ports and all connections accepted on them."""
        if self._server is not None:
            await self._server.stop()

    def verify_as(self, domain: str) -> None:
        """The members that are dialled show certificates for `domain`, where DNS names them and
        no authority is given (etcd `PeerURLsMapAndToken`)."""
        if self._client_tls is not None:
            self._client_tls.server_name = domain

    async def ask_cluster(self, peer_urls: Sequence[str], joining: bool) -> ClusterView:
        """The members of the running cluster; raises PeerRefusal when nobody answers."""
        client = Http1Client(tls=self._client_tls)
        try:
            ask = PeerApiClient(client, self._log)
            if joining:
                view = await ask.cluster(peer_urls)
                if not may_join(parse_version(VERSION), await self._versions(ask, view), self._log):
                    raise StartError("incompatible with current running cluster")
                return view
            return await ask.cluster(peer_urls, BOOTSTRAPPED_TIMEOUT_S, tell=False)
        finally:
            client.close()

    async def _versions(self, ask: PeerApiClient, view: ClusterView) -> dict[int, str | None]:
        """The cluster version, as each member of a running cluster gives it."""
        own = {str(url) for url in self._config.initial_advertise_peer_urls}

        async def version(member: Mapping[str, Any]) -> str | None:
            urls = [url for url in member.get("peerURLs") or () if url not in own]
            answer = await ask.versions(urls, VERSIONS_TIMEOUT_S)
            return answer.get("etcdcluster") if answer is not None else None

        told = await asyncio.gather(*(version(member) for member in view.members))
        return {int(member["id"]): text for member, text in zip(view.members, told, strict=True)}

    @property
    def metrics(self) -> PeerMetrics:
        """The counts of the traffic; only after `open`."""
        assert self._transport is not None, "no network yet"
        return self._transport.metrics

    def open(self, member_id: int, cluster_id: int) -> PeerNetwork:
        """Makes the network for a member with these ids."""
        config = self._config
        self._transport = Transport(
            member_id,
            cluster_id,
            [str(url) for url in config.initial_advertise_peer_urls],
            self._inbox,
            self._log,
            tls=self._client_tls,
            terms=DialTerms(
                1.0 + config.election_timeout_ms / 1000,
                config.raft_read_timeout_s,
                config.raft_write_timeout_s,
                local_host(config),
            ),
        )
        self.api_client = PeerApiClient(self._transport.client, self._log)
        return PeerNetwork(self._transport, self._send_snapshot)

    def _send_snapshot(self, message: Message) -> None:
        if self._member is not None and self._transport is not None:
            self._transfers.send(self._member, self._transport, message)

    def attach(self, member: Member) -> None:
        """Lets the member use this port."""
        self._hashes = HashQuestions(member, self.api_client)
        member.peer_hashes = self._hashes

    async def serve(self, member: Member) -> None:
        """Begins to answer others; `attach` has been called."""
        transport = self._transport
        assert transport is not None, "the port serves before it has a transport"
        self._member = self._inbox.member = member
        self._forwarding = Forwarding(member, self.api_client)
        member.leader_calls = self._forwarding
        assert self._server is not None, "the port serves before it is bound"
        # The other members accept client requests of the same size as this member.
        posted_bytes_max = max(PIPELINE_BYTES_MAX, 2 * self._config.max_request_bytes)
        RaftHandlers(transport, self, self._log, posted_bytes_max).register(self._routes)
        ApiHandlers(self, transport.cluster_id).register(self._routes)
        self._server.start()
        for url in self._config.listen_peer_urls:
            self._log.info("serving peer traffic", address=url.address)

    async def stop(self) -> None:
        """Ends all communication."""
        await self._transfers.stop()
        if self._hashes is not None:
            await self._hashes.stop()
        if self._forwarding is not None:
            await self._forwarding.stop()
        if self._transport is not None:
            await self._transport.stop()
        await self._routes.stop()
        await self.release()

    async def receive_snapshot(self, message: Message, database: AsyncIterator[bytes]) -> int:
        """A database from the leader."""
        assert message.snapshot is not None, "a snapshot message has a snapshot"
        member = self._inbox.check_snapshot(message)
        raft = member.raft
        size = await self._transfers.receive(
            message.snapshot.meta.index,
            database,
            lambda: raft.takes_snapshot,
            member.received,
        )

        def forget_unused() -> None:
            if not raft.takes_snapshot:
                member.received.forget()  # Raft did not take it

        # Runs after the caller, which steps the message in this turn.
        asyncio.get_running_loop().call_soon(forget_unused)
        return size

    # --- for the handlers of the peer port (peer.api_handlers.LocalMember) ----------------------

    @property
    def _here(self) -> Member:
        member = self._member
        assert member is not None, "the port serves before it has a member"
        return member

    def members_json(self) -> list[dict[str, Any]]:
        """All members."""
        return [json.loads(one.to_json()) for one in self._here.membership.cluster.members]

    def versions_json(self) -> dict[str, str]:
        """This member's versions."""
        membership = self._here.membership
        version = membership.cluster.version
        return {
            "etcdserver": VERSION,
            "etcdcluster": str(version) if version is not None else "not_decided",
            "storage": membership.storage_version or "unknown",
        }

    async def promote(self, member_id: int, token: str | None) -> list[dict[str, Any]]:
        """Promotes a learner, if the token is an administrator's."""
        await self._check_admin(token)
        reconfiguration = self._here.membership_changes
        error: EtcdError | RawError | None = await _answer(
            lambda done: reconfiguration.promote(member_id, done)
        )
        if isinstance(error, EtcdError):
            raise error
        if error is not None:
            raise errors.RequestTimeoutError
        return self.members_json()

    async def _check_admin(self, token: str | None) -> None:
        """The follower has checked its client already; the leader checks again."""
        member = self._here
        auth = member.auth
        if not auth.enabled:
            return
        metadata = {b"token": token.encode("utf-8", "surrogateescape")} if token else {}
        while True:
            try:
                auth.check_admin(auth.identify(metadata, None, member.applied_index))
                return
            except TokenAheadError as error:
                ahead = error
            refusal: EtcdError | None = await _answer(partial(member.await_token, ahead))
            if refusal is not None:
                raise refusal

    async def hash_kv(self, revision: int) -> HashKVAnswer:
        """The hash of the keys."""
        member = self._here
        current = member.store.revision
        gone = False
        try:
            found: KVHash | EtcdError = await _answer(
                lambda done: hash_keys(member, revision, done, done, lambda: gone)
            )
        except asyncio.CancelledError:
            gone = True
            raise
        if isinstance(found, EtcdError):
            raise found
        return HashKVAnswer(current, found.hash, found.compact_revision, found.revision)

    def send_database(self, member_id: int) -> str:
        """To a member that rebuilds its own."""
        member, transport = self._here, self._transport
        assert transport is not None, "the port serves before it has a transport"
        return self._transfers.send_copy(member, transport, member_id)

    async def wait_applied(self) -> bool:
        """Waits up to a second for all entries that are committed now to be applied."""
        member = self._here
        target = member.committed_index
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + APPLY_WAIT_S
        while member.applied_index < target:
            if loop.time() >= deadline_s:
                return False
            await asyncio.sleep(0.005)
        return True

    async def renew(self, lease_id: int) -> int:
        """A keep-alive that a follower forwarded.

        For an expired lease it waits for the revocation.
        """
        member = self._here
        if not member.lessor.primary:
            raise errors.NotLeaderError
        done: asyncio.Future[int | EtcdError | RawError] = (
            asyncio.get_running_loop().create_future()
        )

        def renewed(outcome: int | EtcdError | RawError) -> None:
            if not done.done():
                done.set_result(outcome)

        take_back = member.leasing.renew(lease_id, renewed)
        try:
            outcome = await done
        finally:
            if take_back is not None:
                take_back()
        if isinstance(outcome, EtcdError):
            raise outcome
        if isinstance(outcome, RawError):
            raise errors.NotLeaderError
        return outcome

    async def time_to_live(self, lease_id: int, keys: bool) -> rpc_pb2.LeaseTimeToLiveResponse:
        """A TimeToLive request that a follower forwarded."""
        leasing = self._here.leasing
        answer: rpc_pb2.LeaseTimeToLiveResponse | EtcdError | RawError = await _answer(
            lambda done: leasing.remaining(lease_id, keys, done)
        )
        if isinstance(answer, EtcdError):
            raise answer
        if isinstance(answer, RawError):
            raise errors.NotLeaderError
        return answer

    async def downgrade_enabled(self) -> bool:
        """Whether a downgrade is under way."""
        member = self._here
        error = await _answer(member.read_index)
        if isinstance(error, EtcdError):
            raise error
        return member.membership.cluster.downgrade.enabled


class PeerNetwork:
    """The `server.ports.Network` of a real member."""

    def __init__(self, transport: Transport, send_snapshot: Callable[[Message], None]) -> None:
        self._transport = transport
        self._send_snapshot = send_snapshot
        self.add_peer = transport.add_peer
        self.remove_peer = transport.remove_peer
        self.update_peer = transport.update_peer
        self.active_since = transport.active_since
        self.last_versions = transport.last_versions

    def send(self, messages: Sequence[Message]) -> None:
        """Sends each message to its receiver; a snapshot message goes with its database."""
        for message in messages:
            if message.type == _SNAP:
                self._send_snapshot(message)
                messages = [other for other in messages if other.type != _SNAP]
        self._transport.send(messages)

    def versions(self) -> Mapping[int, str | None]:
        """The versions that the other members give."""
        return self._transport.versions()


async def _answer(ask: Callable[[Callable[[_T], None]], object]) -> _T:
    """The callback for `ask`."""
    answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()

    def answered(value: _T) -> None:
        if not answer.done():
            answer.set_result(value)

    ask(answered)
    return await answer


def _speaks_tls(config: Config) -> bool:
    """Whether there is anything to read or to make for the TLS of peers."""
    return config.peer_auto_tls or any(
        (config.peer_cert_file, config.peer_key_file, config.peer_trusted_ca_file)
    )


def _numeric(url: URL) -> str:
    """An address as Go prints that of a listener; names of others are not bound."""
    return url.address.replace("localhost:", "127.0.0.1:")


def local_host(config: Config) -> str:
    """Our end's address when other members are dialled (gate SetMemberLocalAddr); empty: any."""
    if not config.gate("SetMemberLocalAddr"):
        return ""
    urls = [str(url) for url in config.initial_advertise_peer_urls]
    config.log.info(
        "searching for a suitable member local address in AdvertisePeerURLs",
        advertise_peer_urls=urls,
    )
    for url in config.initial_advertise_peer_urls:
        try:
            address = ip_address(url.hostname)
        except ValueError:
            continue  # a name
        if not (address.is_loopback or address.is_unspecified):
            config.log.info("setting member local address", LocalAddr=str(address))
            return str(address)
    config.log.warn(
        "unable to set a member local address due to lack of suitable local addresses",
        advertise_peer_urls=urls,
    )
    return ""
