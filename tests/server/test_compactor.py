"""A compaction that has ended says so."""

from __future__ import annotations

from keyraft.mvcc import MemoryBackend, Store
from keyraft.proto import rpc_pb2
from keyraft.server.counters import Counters
from keyraft.server.upkeep.compactor import Compactor
from sim.loop import SimLoop


class Lines:
    def __init__(self) -> None:
        self.infos: list[tuple[str, dict[str, object]]] = []

    def debug(self, message: str, **fields: object) -> None:
        raise AssertionError(message)

    def info(self, message: str, **fields: object) -> None:
        self.infos.append((message, fields))

    warn = error = debug


def test_a_finished_compaction_is_one_line() -> None:
    loop, log = SimLoop(), Lines()
    store = Store(MemoryBackend(), compaction_batch_rows=20, compaction_sleep_s=0.01)
    for number in range(100):
        put = rpc_pb2.PutRequest(key=b"k%d" % (number % 10), value=b"%d" % number)
        store.put(put.SerializeToString())
    compactor = Compactor(loop, store, Counters(), lambda: 0.0, log)
    compactor.compact(91)
    assert log.infos == []
    loop.run_until(loop.time() + 1.0)
    ((message, fields),) = log.infos
    assert message == "finished scheduled compaction"
    assert fields["compact_revision"] == 91
    assert fields["number_of_keys_compacted"] == 80
    known = store.hashes.find(91)
    assert known is not None and fields["hash"] == known.hash
    assert fields["took"] == "40ms"
    assert fields["current_db_size_bytes"] == store.backend.size_bytes
