"""The simulated disk keeps its promises and no more, and the log survives it."""

from __future__ import annotations

from random import Random

import pytest

from keyraft.raft.types import Entry, HardState
from keyraft.storage.wal import WAL
from sim.disk import SimDisk
from sim.loop import SimLoop
from sim.network import SimNetwork


def test_only_what_was_synced_is_sure_to_survive() -> None:
    outcomes = set()
    for seed in range(40):
        disk = SimDisk(Random(seed))
        disk.make_dirs("/d")
        disk.sync_dir("/")
        file = disk.open("/d/f", create=True)
        file.pwrite(b"a" * 1024, 0)
        file.fdatasync()
        disk.sync_dir("/d")
        file.pwrite(b"b" * 1024, 0)
        disk.open("/d/g", create=True)
        disk.crash()
        content = disk.open("/d/f").pread(2048, 0)
        assert len(content) == 1024
        sectors = (content[:512], content[512:])
        assert all(sector in (b"a" * 512, b"b" * 512) for sector in sectors)
        outcomes.add((sectors[0][:1], sectors[1][:1], disk.exists("/d/g")))
    assert len(outcomes) >= 6  # lost, kept and torn, with the name and without


def test_a_directory_moves_with_all_below_it() -> None:
    disk = SimDisk(Random(1))
    disk.make_dirs("/wal.tmp")
    disk.open("/wal.tmp/0", create=True).pwrite(b"x", 0, durable=True)
    disk.rename("/wal.tmp", "/wal")
    disk.sync_dir("/")
    disk.crash()
    assert disk.list("/wal") == ["0"]
    assert not disk.exists("/wal.tmp")


@pytest.mark.parametrize("seed", range(60))
def test_the_log_loses_nothing_that_it_acknowledged(seed: int) -> None:
    chance = Random(seed)
    disk = SimDisk(chance)
    disk.make_dirs("/data")
    disk.sync_dir("/")
    wal = WAL.create(disk, "/data/wal", b"meta", segment_bytes=16_384)
    durable: list[Entry] = []
    state = HardState()
    for _ in range(6):
        for _ in range(chance.randrange(0, 12)):
            first = len(durable) + 1
            entries = [
                Entry(1, first + i, chance.randbytes(chance.randrange(0, 3000)))
                for i in range(chance.randrange(1, 5))
            ]
            state = HardState(1, 1, first - 1)
            batch = wal.encode(entries, state, True)
            assert batch is not None
            if chance.random() < 0.2:
                break  # the crash comes before the write
            wal.write([batch])
            durable += entries
        disk.crash()
        wal, replay = WAL.open(disk, "/data/wal", segment_bytes=16_384)
        assert replay.entries[: len(durable)] == durable
        assert replay.metadata == b"meta"
        durable = list(replay.entries)


def test_a_cut_is_one_way() -> None:
    from keyraft.raft.types import Message, MessageType

    loop = SimLoop()
    network = SimNetwork(loop, Random(1))
    got: dict[int, list[Message]] = {1: [], 2: []}
    for member in got:
        network.join(member, got[member].extend)
    network.cut(1, 2)
    assert not network.send(1, Message(type=MessageType.HEARTBEAT, to=2, from_=1))
    assert network.send(2, Message(type=MessageType.HEARTBEAT, to=1, from_=2))
    loop.run_until(1)
    assert (len(got[1]), len(got[2])) == (1, 0)
    network.heal()
    network.weather.duplicate = 1.0
    network.send(1, Message(type=MessageType.HEARTBEAT, to=2, from_=1))
    loop.run_until(2)
    assert len(got[2]) == 2
