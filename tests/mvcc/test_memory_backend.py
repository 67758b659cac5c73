"""The dictionary database forgets what was not committed, and nothing else."""

from __future__ import annotations

from keyraft.mvcc import Backend, MemoryBackend
from keyraft.mvcc import backend as b


def test_reads_see_all_layers_and_a_crash_keeps_only_the_disk() -> None:
    db = MemoryBackend(auto_settle=False)
    seen: list[str] = []
    as_backend: Backend = db
    as_backend.before_commit(lambda: db.put(b.META, b"consistent_index", b"1"))
    db.put(b.KEY, b"a", b"1")
    db.put(b.KEY, b"b", b"1")
    db.flush(lambda: seen.append("first"))
    db.put(b.KEY, b"a", b"2")
    db.delete(b.KEY, b"b")
    db.flush()
    db.put(b.KEY, b"c", b"3")
    assert db.get(b.KEY, b"a") == b"2"
    assert db.get(b.KEY, b"b") is None
    assert list(db.range(b.KEY)) == [(b"a", b"2"), (b"c", b"3")]
    assert list(db.range(b.KEY, b"a", b"c")) == [(b"a", b"2")]
    assert list(db.range(b.KEY, limit=1)) == [(b"a", b"2")]
    assert seen == []
    db.settle(1)
    assert seen == ["first"]
    again = MemoryBackend(db.crash())
    assert list(again.range(b.KEY)) == [(b"a", b"1"), (b"b", b"1")]
    assert again.get(b.META, b"consistent_index") == b"1"
    assert again.size_bytes > 0
