"""Names longer than LMDB's keys go in, come out, and come out in order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyraft.mvcc import backend as b
from keyraft.storage.backend import LMDBEngine, long_keys
from keyraft.storage.transfer import export_file, import_bolt

names = st.binary(min_size=1, max_size=3) | st.builds(
    lambda size, tail: b"n" * size + tail,
    st.sampled_from([478, 479, 480, 509, 510, 511, 512, 2000]),
    st.binary(max_size=2),
)


@given(st.dictionaries(names, st.binary(max_size=3)), names, st.none() | names)
def test_what_is_stored_is_short_and_gives_the_names_back(
    pairs: dict[bytes, bytes], start: bytes, end: bytes | None
) -> None:
    stored = {long_keys.stored_key(k): long_keys.stored_value(k, v) for k, v in pairs.items()}
    assert len(stored) == len(pairs)
    assert all(len(key) <= 511 for key in stored)
    assert dict(long_keys.original(k, v) for k, v in stored.items()) == pairs
    want = sorted((k, v) for k, v in pairs.items() if k >= start and (end is None or k < end))
    for at in (b"", long_keys.stored_start(start)):
        found = sorted((k, v) for k, v in stored.items() if k >= at)
        assert list(long_keys.ordered(found, start, end)) == want


def test_names_are_read_as_they_are_asked_for() -> None:
    """A list of a hundred thousand users is made of pages; no page reads all of them."""
    stored = [(b"%06d" % number, b"") for number in range(10_000)]
    read = 0

    def counted() -> Iterator[tuple[bytes, bytes]]:
        nonlocal read
        for pair in stored:
            read += 1
            yield pair

    page = list(itertools.islice(long_keys.ordered(counted()), 500))
    assert page == stored[:500] and read == 500


@pytest.mark.real
def test_a_database_keeps_long_names_through_export_and_import(tmp_path: Path) -> None:
    pairs: dict[bytes, bytes | None] = {b"n" * size: b"%d" % size for size in (1, 510, 511, 5000)}
    pairs[b"n" * 4999 + b"m"] = b"m"
    engine = LMDBEngine(tmp_path / "kv", lambda *call: None)
    engine.commit({b.AUTH_USERS: dict(pairs)}, lambda: None)
    engine.wait()
    for key, value in pairs.items():
        assert engine.get(b.AUTH_USERS, key) == value
    assert engine.get(b.AUTH_USERS, b"n" * 600) is None
    assert engine.get(b.AUTH_USERS, b"") is None
    assert list(engine.range(b.AUTH_USERS, b"", None)) == sorted(pairs.items())
    engine.commit({b.AUTH_USERS: {b"n" * 511: None}}, lambda: None)
    engine.wait()
    del pairs[b"n" * 511]
    engine.close()
    with open(tmp_path / "db", "w+b") as file:
        export_file(str(tmp_path / "kv"), file)
    import_bolt(str(tmp_path / "db"), str(tmp_path / "again"))
    engine = LMDBEngine(tmp_path / "again", lambda *call: None)
    assert list(engine.range(b.AUTH_USERS, b"", None)) == sorted(pairs.items())
    engine.close()
