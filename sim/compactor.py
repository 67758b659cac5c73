"""Somebody who compacts: now and then, up to a revision of the recent past, through any member."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Final

from keyraft.base.errors import EtcdError, RawError
from keyraft.base.waiters import Result
from keyraft.proto import rpc_pb2
from keyraft.server.apply import internal_request
from sim.cluster import SimCluster

INTERVAL_S: Final = 3.0  # about so often
LEFT_REVISIONS_MAX: Final = 40  # so many at most are left behind the compaction


class CompactingClient:
    """Compacts until stopped."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._chance = Random(cluster.chance.randrange(0, 1 << 30))
        self.stopped = False
        self._later()

    def stop(self) -> None:
        """No further compactions."""
        self.stopped = True

    def _later(self) -> None:
        self._cluster.loop.call_later(self._chance.random() * 2 * INTERVAL_S, self._act)

    def _act(self) -> None:
        if self.stopped:
            return
        self._later()
        nodes = [node for node in self._cluster.nodes.values() if node.running]
        twin = self._cluster.witness.twin
        revision = twin.revision - self._chance.randrange(0, LEFT_REVISIONS_MAX)
        if not nodes or revision <= twin.compacted:
            return
        member = self._chance.choice(nodes).member
        assert member is not None, "it runs"
        request = rpc_pb2.CompactionRequest(revision=revision)
        with suppress(EtcdError, RawError):
            member.propose(internal_request.KIND_COMPACTION, request.SerializeToString(), _ignore)


def _ignore(_: Result) -> None:
    """What became of it, the twin knows."""
