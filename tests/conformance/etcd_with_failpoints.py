"""Our etcd, with the failpoints that etcd's suites ask for. Only for tests.

    GOFAIL_HTTP=127.0.0.1:22381 python -m tests.conformance.etcd_with_failpoints --name ...

The package knows nothing of it: methods are exchanged here for others that ask a failpoint first.
What would wait does so without the loop, so that clients are served meanwhile. Points that have no
counterpart in our member are not listed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any, Final

from keyraft.cli import etcd
from keyraft.mvcc.backend import META_FINISHED_COMPACT
from keyraft.raft import EntryType, MemoryStorage
from keyraft.server.apply.queue import ApplyQueue
from keyraft.server.consensus.raft_loop import RaftLoop
from keyraft.server.upkeep.compactor import Compactor
from keyraft.shell.database_reception import DatabaseReception
from keyraft.storage.backend import LMDBEngine, WriteBuffer
from tests.conformance.failpoints import Failpoints

NAMES: Final = (
    "afterCommit",
    "afterStartDBTxn",
    "afterWritebackBuf",
    "applyAfterOpenSnapshot",
    "applyBeforeOpenSnapshot",
    "beforeApplyOneConfChange",
    "beforeApplyOneEntryNormal",
    "beforeCommit",
    "beforeStartDBTxn",
    "beforeWritebackBuf",
    "commitAfterPreCommitHook",
    "commitBeforePreCommitHook",
    "compactAfterCommitBatch",
    "compactAfterCommitScheduledCompact",
    "compactAfterSetFinishedCompact",
    "compactBeforeCommitBatch",
    "compactBeforeCommitScheduledCompact",
    "compactBeforeSetFinishedCompact",
    "defragBeforeCopy",
    "defragOpenFileError",
    "defragdbFail",
    "raftAfterApplySnap",
    "raftAfterSave",
    "raftAfterSaveSnap",
    "raftAfterWALRelease",
    "raftBeforeAdvance",
    "raftBeforeApplySnap",
    "raftBeforeFollowerSend",
    "raftBeforeLeaderSend",
    "raftBeforeSave",
    "raftBeforeSaveSnap",
)
POINTS: Final = Failpoints(NAMES)

Asks = Callable[[Any], bool]


def always(_owner: Any) -> bool:
    """A point that is passed with every call of its method."""
    return True


def before(owner: type, method: str, *names: str, when: Asks = always, later: bool = False) -> None:
    """The points are passed before the method runs.

    `later`: a wait puts the call off, so that the loop goes on; else it stops the loop, as where the
    original's goroutine holds the lock that everybody needs.
    """
    original = getattr(owner, method)

    def passed(self: Any, *words: Any) -> Any:
        delay_s = sum(map(POINTS.hit, names)) if when(self) else 0.0
        if delay_s and later:
            asyncio.get_running_loop().call_later(delay_s, original, self, *words)
            return None
        time.sleep(delay_s)
        return original(self, *words)

    setattr(owner, method, passed)


def after(owner: type, method: str, *names: str) -> None:
    """The points are passed when the method has run; a wait stops the loop."""
    original = getattr(owner, method)

    def passed(self: Any, *words: Any) -> Any:
        result = original(self, *words)
        time.sleep(sum(map(POINTS.hit, names)))
        return result

    setattr(owner, method, passed)


def around_finished_compaction() -> None:
    """The write that records the end of a compaction."""
    original = WriteBuffer.put

    def put(self: WriteBuffer, bucket: bytes, key: bytes, value: bytes) -> None:
        names = _FINISHING if key == META_FINISHED_COMPACT else ()
        for name in names[:1]:
            time.sleep(POINTS.hit(name))
        original(self, bucket, key, value)
        for name in names[1:]:
            time.sleep(POINTS.hit(name))

    WriteBuffer.put = put  # type: ignore[method-assign]


def failing_defragmentation() -> None:
    """One that cannot be carried out, for the reason that the point returns."""
    original = LMDBEngine.defragment

    def defragment(self: LMDBEngine, done: Callable[[str | None], None]) -> None:
        for name in ("defragOpenFileError", "defragdbFail"):
            reason = POINTS.text(name)
            if reason is not None:
                asyncio.get_running_loop().call_soon(done, reason)
                return
        original(self, done)

    LMDBEngine.defragment = defragment  # type: ignore[method-assign]


_FINISHING: Final = ("compactBeforeSetFinishedCompact", "compactAfterSetFinishedCompact")


def instrument() -> None:
    """Must run before a member is built."""
    before(RaftLoop, "_carry_out", "raftBeforeLeaderSend", when=_leads)
    before(RaftLoop, "_install", "raftBeforeSaveSnap", later=True)
    before(RaftLoop, "_snapshot_durable", "raftAfterSaveSnap", "raftBeforeApplySnap", later=True)
    after(MemoryStorage, "apply_snapshot", "raftAfterApplySnap", "raftAfterWALRelease")
    before(RaftLoop, "_persist", "raftBeforeSave", later=True)
    before(RaftLoop, "_persisted", "raftBeforeFollowerSend", when=_follows, later=True)
    before(RaftLoop, "_persisted", "raftAfterSave", later=True)
    before(RaftLoop, "_advance", "raftBeforeAdvance", later=True)
    before(DatabaseReception, "put_in_place", "applyBeforeOpenSnapshot")
    after(DatabaseReception, "put_in_place", "applyAfterOpenSnapshot")
    normal, changes = _next_is(EntryType.NORMAL), _next_is(*list(EntryType)[1:])
    before(ApplyQueue, "_slice", "beforeApplyOneEntryNormal", when=normal, later=True)
    before(ApplyQueue, "_slice", "beforeApplyOneConfChange", when=changes, later=True)
    before(WriteBuffer, "_seal", "beforeWritebackBuf", "commitBeforePreCommitHook")
    before(LMDBEngine, "commit", "afterWritebackBuf", "commitAfterPreCommitHook", "beforeCommit")
    before(LMDBEngine, "defragment", "defragBeforeCopy", later=True)
    before(WriteBuffer, "_committed", "afterCommit", "beforeStartDBTxn", later=True)
    after(WriteBuffer, "_committed", "afterStartDBTxn")
    before(Compactor, "compact", "compactBeforeCommitScheduledCompact")
    after(Compactor, "compact", "compactAfterCommitScheduledCompact")
    before(Compactor, "_step", "compactBeforeCommitBatch", later=True)
    after(Compactor, "_step", "compactAfterCommitBatch")
    around_finished_compaction()
    failing_defragmentation()


def _leads(raft: Any) -> bool:
    return bool(raft._leadership.leading)


def _follows(raft: Any) -> bool:
    ready = raft._ready
    return not raft._as_leader and ready is not None and bool(ready.messages)


def _next_is(*types: EntryType) -> Asks:
    def asked(queue: Any) -> bool:
        return bool(queue._queue) and queue._queue[0][queue._at].type in types

    return asked


def main() -> int:
    """As `etcd`."""
    address = os.environ.get("GOFAIL_HTTP")
    if address:
        instrument()
        for word in filter(None, os.environ.get("GOFAIL_FAILPOINTS", "").split(";")):
            name, _, terms = word.partition("=")
            POINTS.set(name, terms)
        POINTS.serve(address)
    return etcd.main()


if __name__ == "__main__":
    raise SystemExit(main())
