"""A running member: the only place where real clocks, disks, sockets and signals meet the core.

The order of a start: listen (so a port in use is reported before anything is written), open the
disk, build the member, wait until it has a leader and has published itself, then serve. A stop is
the reverse: clients are sent away, the last write ends, the database commits, everything is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from keyraft.app.client_ports import ClientPorts, json_terms
from keyraft.app.data_dir import has_log, kv_directory, open_disk, os_files
from keyraft.app.descriptors import LOOK_S, places, raise_limit, watch_usage
from keyraft.app.diagnosis import serve_debug, watch_signals
from keyraft.app.exact_loop import ExactLoop
from keyraft.app.limits import LimitDoors
from keyraft.app.member_metrics import MemberMetrics, ranges_answered
from keyraft.app.member_settings import member_settings, summary
from keyraft.app.passwords import BcryptPasswords
from keyraft.app.peer_port import PeerPort
from keyraft.app.preloading import preload_later
from keyraft.app.rebuilding import RESTART, end_when_ready, leave_database
from keyraft.app.request_stats import TRACE_S, RequestStats
from keyraft.app.snapshot_transfers import Transfers
from keyraft.app.start_checks import StartError
from keyraft.app.systemd import notify_ready
from keyraft.app.tokens import token_provider
from keyraft.base.histograms import Histogram, exponential
from keyraft.base.urls import URL
from keyraft.base.version import GIT_SHA, VERSION, runtime_version
from keyraft.cluster import MembershipDataError, VersionError
from keyraft.config.config import Config
from keyraft.config.feature_gates import GATES
from keyraft.gateway import Gateway, HandlingTime, PortMetrics, ProcessFamilies, Source
from keyraft.grpc import CallEnd, Router
from keyraft.mvcc import BackendError
from keyraft.net import Server
from keyraft.peer.api_client import ClusterView
from keyraft.peer.compat import PeerRefusal
from keyraft.raft import RaftError
from keyraft.server import BootError, Member, MemberHealth, RaftEngine
from keyraft.server.consensus.first_election import hasten_first_election
from keyraft.service import HealthService, guard_of, register
from keyraft.shell.bootstrap import Opened
from keyraft.shell.durable_log import DiskWorld, MemberLog
from keyraft.shell.fatal_stop import FatalStop
from keyraft.shell.life import Life, World
from keyraft.storage.backend import Checkpoints
from keyraft.storage.process import StorageProcess
from keyraft.storage.transfer import SnapshotFeeds
from keyraft.storage.wal import StorageThread

if TYPE_CHECKING:
    from keyraft.app.audit_log import AuditLog
    from keyraft.app.slow_traces import SlowTraces
    from keyraft.app.tracing import Tracing
    from keyraft.server.verification import Verification

VERIFY_VARIABLE: Final = "KEYRAFT_VERIFY"  # "1": the member looks at itself all the time
SWITCH_INTERVAL_S: Final = 0.0005  # how long the storage thread may wait for the interpreter
PURGE_INTERVAL_S: Final = 30.0  # etcd `purgeFileInterval`
STOP_GRACE_S: Final = 1.0  # for open calls to finish
GC_THRESHOLDS: Final = (50_000, 20, 1_000)  # most objects are freed by reference counting

START_ERRORS: Final = (BootError, BackendError, MembershipDataError, VersionError, RaftError)
"""Errors of a data directory from which no member can start."""


class _StoppedEarlyError(Exception):
    """A signal has ended the wait for the other members of a new cluster."""


def run_member(config: Config, spare: StorageProcess) -> int:
    """Runs until a signal or a failure; returns the exit code, negative for a signal.

    `spare` is a storage process that has opened nothing yet.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if config.memory_mlock:
        from keyraft.app.memory_lock import lock_memory

        lock_memory()
    with asyncio.Runner(loop_factory=ExactLoop) as runner:
        return runner.run(_Running(config, spare).run())


class _Running:
    """One life of a member."""

    def __init__(self, config: Config, spare: StorageProcess) -> None:
        self._config = config
        self._spare = spare
        self._log = config.log
        self._stop = asyncio.Event()
        self._code = 0
        self._verification: Verification | None = None
        self._traces: SlowTraces | None = None
        self._tracing: Tracing | None = None
        self._audit: AuditLog | None = None
        self._router = Router()
        self._transfers = Transfers(config.snap_directory, kv_directory(config), config.log)
        self._limit = raise_limit()
        self._places, peers = places(self._limit, config.log)
        self._fatal = FatalStop(self._cannot_go_on)
        self._peers = PeerPort(config, self._transfers, peers, self._fatal)
        self._commit_s = Histogram(exponential(0.001, 2, 14))

    async def run(self) -> int:
        """Everything, in order."""
        config = self._config
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unexpected)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        self._log.info(
            "starting an etcd server",
            etcd_version=VERSION,
            git_sha=GIT_SHA,
            go_version=runtime_version(),
            **{name.replace("-", "_"): value for name, value in summary(config).items()},
        )
        self._log.info(
            "configuring peer listeners", listen_peer_urls=_texts(config.listen_peer_urls)
        )
        if config.audit_log:
            from keyraft.app.audit_log import AuditLog

            self._audit = AuditLog(config, loop)
        if config.enable_distributed_tracing:
            from keyraft.app.tracing import start

            self._tracing = start(config)
        self._tokens = token_provider(config, loop)
        self._passwords = BcryptPasswords(loop, config.bcrypt_cost)
        await self._peers.bind()
        try:
            ports = await self._listen(loop)
        except BaseException:
            await self._peers.release()
            raise
        try:
            running = None
            if has_log(config):
                if config.discovery_endpoints:
                    self._log.warn(
                        "discovery token is ignored since cluster already initialized; "
                        "valid logs are found",
                        wal_dir=config.wal_directory,
                    )
            else:
                if config.discovers:
                    config = self._config = await self._discovered(config)
                if not config.discovery_endpoints:
                    running = await self._running_cluster()
            opened = open_disk(config, loop, self._fatal.database_failed, running, self._spare)
        except BaseException as error:
            await ports.stop(0.0)
            await self._peers.release()
            if isinstance(error, _StoppedEarlyError):
                return self._code
            raise
        checkpoint = opened.boot.checkpoint
        life = self._build(opened, loop)
        member = life.member
        self._checkpoints = Checkpoints(
            kv_directory(config),
            member.store,
            opened.backend,
            loop,
            loop.call_soon_threadsafe,
            checkpoint.revision if checkpoint is not None else 0,
        )
        del checkpoint  # it holds every key
        health = self._register(member, ports.grpc, life.log)
        self._log.info(
            "now serving peer/client/metrics",
            local_member_id=f"{opened.member_id:x}",
            initial_advertise_peer_urls=_texts(config.initial_advertise_peer_urls),
            listen_peer_urls=_texts(config.listen_peer_urls),
            advertise_client_urls=_texts(config.advertise_client_urls),
            listen_client_urls=_texts(config.listen_client_urls),
            listen_metrics_urls=_texts(config.listen_metrics_urls),
        )
        member.publisher.on_published = lambda: self._ready(ports, health)
        member.on_removed = self._removed
        end_when_ready(member, self._transfers, self._end_with)
        # The collector was off since the command began, and there was almost no garbage.
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.enable()
        self._peers.attach(member)
        why = ""
        if not opened.fresh and config.gate("InitialCorruptCheck"):
            why = await self._compare_first(member)
        if not why:
            await self._peers.serve(member)
            life.begin()
            if config.initial_election_tick_advance:
                hasten_first_election(member)
            self._verify(member, opened)
            self._purge(loop, life.log)
            self._watch_descriptors(loop)
            watch_signals(loop, self._log, member, self._stats)
            await self._stop.wait()
        await self._close(life, opened, ports, health)
        if why:
            raise StartError(why)
        return self._code

    # --- starting -----------------------------------------------------------------------------

    async def _discovered(self, config: Config) -> Config:
        """With the members that DNS or another cluster names; a signal ends the wait for them."""
        from keyraft.app.discovery import discover

        finding = asyncio.ensure_future(discover(config))
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((finding, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not finding.done():
                raise _StoppedEarlyError
            found = finding.result()
        finally:
            finding.cancel()
            stopping.cancel()
            await asyncio.gather(finding, stopping, return_exceptions=True)
        if found.discovery_srv and "https://" in found.initial_cluster:
            if not config.peer_trusted_ca_file:
                self._peers.verify_as(config.discovery_srv)
        return found

    async def _running_cluster(self) -> ClusterView | None:
        """The members of a cluster that runs already, as the other initial members tell them."""
        config = self._config
        initial = config.peer_urls_map()
        others = sorted(
            str(url) for name, urls in initial.items() if name != config.name for url in urls
        )
        if not others:
            return None
        try:
            return await self._peers.ask_cluster(others, config.initial_cluster_state == "existing")
        except PeerRefusal as error:
            if config.initial_cluster_state == "existing":
                raise StartError(f"cannot fetch cluster info from peer urls: {error}") from None
            return None

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> ClientPorts:
        config = self._config
        slow_s = config.warning_unary_request_duration_s
        self._stats = RequestStats(self._log, time.time)
        self._stats.watch(self._router, slow_s)
        self._gateway = Gateway(
            self._log, config.cors, config.host_whitelist, json_terms(config, loop, self._router)
        )
        ports = ClientPorts(config, loop, self._router, self._gateway, self._places, self._limit)
        await ports.listen()
        return ports

    def _build(self, opened: Opened, loop: asyncio.AbstractEventLoop) -> Life[Member]:
        config = self._config
        settings = member_settings(config, opened.member_id, opened.cluster_id)
        opened.backend.on_commit = self._commit_s.observe

        self._transfers.files.put_in_place = opened.replace_database
        disk = DiskWorld(
            os_files(config),
            time.perf_counter,
            loop.call_soon_threadsafe,
            loop.call_later,
            StorageThread("keyraft-storage"),
            StorageThread("keyraft-snapshots"),
        )
        self._log.info(
            "starting local member" if opened.fresh else "restarting local member",
            cluster_id=f"{opened.cluster_id:x}",
            local_member_id=f"{opened.member_id:x}",
            commit_index=opened.boot.hard_state.commit,
        )
        world = World(
            loop,
            time.time,
            random.SystemRandom(),
            self._log,
            disk,
            config.snap_directory,
            self._peers.open(opened.member_id, opened.cluster_id),
            self._tokens,
            self._passwords,
        )
        put_in_place = self._transfers.reception.put_in_place
        try:
            return Life(Member, settings, world, opened, self._fatal, put_in_place)
        except START_ERRORS as error:
            raise StartError(" ".join(str(error).split())) from None

    async def _compare_first(self, member: Member) -> str:
        """Compares the keys with those of the peers.

        Returns why the member must not start, or "".
        """
        compared: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        member.corruption.initial(compared.set_result)
        why = await compared
        if why:
            self._log.error("checkInitialHashKV failed", error=why)
            self._code = 1
        return why

    def _register(self, member: Member, server: Server, member_log: MemberLog) -> HealthService:
        engine = RaftEngine(member, SnapshotFeeds(kv_directory(self._config)).open)
        guard = guard_of(engine, member.loop)
        register(self._router, engine, guard, random.SystemRandom())
        health = HealthService()
        health.register(self._router)
        self._router.ends.listen(partial(self._slow, member), TRACE_S)
        if self._config.gate("StopGRPCServiceOnDefrag"):
            engine.upkeep.on_defragment = partial(health.pause, self._log, "defrag is active")
        own = MemberMetrics(
            member=member,
            fsync_s=member_log.fsync_s,
            commit_s=self._commit_s,
            wal_written_bytes=lambda: member_log.written_bytes,
            peers=self._peers.metrics,
            snapshot_fsync_s=self._transfers.fsync_s,
            snapshot_saved_s=self._transfers.saved_s,
            snapshots=member_log.snapshots,
            ranges_answered=partial(ranges_answered, self._router),
            features=[(name, stage, self._config.gate(name)) for name, (_, stage) in GATES.items()],
        )
        port = PortMetrics(
            router=self._router,
            guard=guard,
            traffic=server.statistics,
            health=self._gateway.counts,
            process=ProcessFamilies(),
        )
        sources: list[Source] = [own.families, port.families]
        if self._config.metrics == "extensive":
            sources.append(HandlingTime(self._router).families)
        sources.append(LimitDoors(member, self._router, guard).families)
        if self._audit is not None:
            self._audit.attach(self._router, guard, member)
            sources.append(self._audit.families)
        self._gateway.serve(MemberHealth(member), sources, lambda: guard.rules.enabled)
        if self._tracing is not None:
            self._tracing.watch(self._router)
        serve_debug(self._gateway, member, self._router, self._config, self._stats)
        return health

    def _slow(self, member: Member, call: CallEnd) -> None:
        """A call took long."""
        if self._traces is None:
            from keyraft.app.slow_traces import SlowTraces

            self._traces = SlowTraces(self._log, time.time, member)
        self._traces.report(call)

    def _ready(self, ports: ClientPorts, health: HealthService) -> None:
        """The member has published itself: begins to serve clients."""
        health.serving = True
        ports.start()
        notify_ready(self._log)
        preload_later()

    def _verify(self, member: Member, opened: Opened) -> None:
        """Has the member look at itself all the time, where the environment asks for it."""
        if os.environ.get(VERIFY_VARIABLE) == "1":
            from keyraft.server.verification import Verification

            def failed(why: str) -> None:
                self._fatal("an invariant does not hold", why)

            self._verification = Verification(member, failed, opened.backend)
            self._verification.start()

    def _purge(self, loop: asyncio.AbstractEventLoop, member_log: MemberLog) -> None:
        """Removes files that no start would read any more, now and every half minute."""
        config = self._config
        if not self._stop.is_set():
            member_log.purge(config.wal_directory, config.max_wals, config.max_snapshots)
            loop.call_later(PURGE_INTERVAL_S, self._purge, loop, member_log)

    def _watch_descriptors(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._stop.is_set():
            watch_usage(self._log)
            loop.call_later(LOOK_S, self._watch_descriptors, loop)

    # --- stopping -----------------------------------------------------------------------------

    def _signalled(self, number: signal.Signals) -> None:
        self._log.info("received signal; shutting down", signal=_SIGNAL_NAMES[number])
        self._end_with(-int(number))

    def _end_with(self, code: int) -> None:
        self._code = code
        self._stop.set()

    def _removed(self) -> None:
        self._log.error(
            "server error", error="the member has been permanently removed from the cluster"
        )
        self._end_with(1)

    def _cannot_go_on(self, what: str, why: str) -> None:
        """The one line of a fatal error."""
        if self._code != 1:
            self._code = 1
            with contextlib.suppress(SystemExit):
                self._log.fatal(what, error=why)
        self._stop.set()

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback has raised an unexpected error: a bug, or damaged data."""
        error = context.get("exception")
        if error is None or isinstance(error, ConnectionError):
            self._log.debug("event loop", error=str(context.get("message")))
            return
        self._fatal.unexpected(error)

    async def _close(
        self, life: Life[Member], opened: Opened, ports: ClientPorts, health: HealthService
    ) -> None:
        config = self._config
        fields = {
            "name": config.name,
            "data_dir": config.data_dir,
            "advertise_peer_urls": _texts(config.initial_advertise_peer_urls),
            "advertise_client_urls": _texts(config.advertise_client_urls),
        }
        self._log.info("closing etcd server", **fields)
        health.stop()
        if self._code == 1:
            await ports.stop(0.0)
        else:
            await self._end(life, ports)
            if self._verification is not None:
                self._verification.end()
        await self._peers.stop()
        if self._tracing is not None:
            await self._tracing.close()
        if self._code != 1:
            self._checkpoints.stop()
        self._passwords.close()
        life.close()
        if self._audit is not None:
            self._audit.end()
        if self._code == RESTART:
            leave_database(config.snap_directory, self._transfers)
        elif opened.cluster.downgrade.enabled and self._code != 1:
            from keyraft.offline.handback import prepare_downgrade

            prepare_downgrade(config.snap_directory, opened.cluster.downgrade.target, self._log)
        self._log.info("closed etcd server", **fields)

    async def _end(self, life: Life[Member], ports: ClientPorts) -> None:
        ended = asyncio.Event()

        def hang_up(then: Callable[[], None]) -> None:
            loop = asyncio.get_running_loop()
            self._hanging_up = loop.create_task(ports.stop(STOP_GRACE_S))
            self._hanging_up.add_done_callback(lambda _: then())

        life.end(hang_up, ended.set)
        await ended.wait()


_SIGNAL_NAMES: Final = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}


def _texts(urls: tuple[URL, ...]) -> list[str]:
    return [str(url) for url in urls]
