"""A cluster of several members on this machine, for development: `keyraft run 3`.

Each member is a process with its own data directory and ports. Its log lines are printed behind its
name. A member that is killed by hand stays dead, so failures can be tried. When the runner is told
to stop, it stops every member.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

MEMBERS_MAX: Final = 9
STOP_TIMEOUT_S: Final = 20.0  # then it is killed; a stopping leader may wait 7 s
LINE_BYTES_MAX: Final = 1024 * 1024
TOKEN: Final = "etcd-cluster-1"


@dataclass(frozen=True, slots=True)
class Seat:
    """One member of the local cluster: its name, its two ports, its data directory."""

    name: str
    client_port: int
    peer_port: int
    data_dir: str


def seats(count: int) -> tuple[Seat, ...]:
    """The ports of `count` members: clients on 2379, 22379, 32379, …, as in etcd's Procfile."""
    assert 1 <= count <= MEMBERS_MAX, count
    placed = []
    for number in range(1, count + 1):
        # Ports end at 65535: from the seventh member on the numbers start again, 1000 higher.
        base = number * 10_000 if number <= 6 else (number - 6) * 10_000 + 1_000
        client = 2379 if number == 1 else base + 2379
        placed.append(Seat(f"infra{number}", client, base + 2380, f"infra{number}.etcd"))
    return tuple(placed)


def arguments(seat: Seat, cluster: Sequence[Seat]) -> list[str]:
    """The flags of one member."""
    client = f"http://127.0.0.1:{seat.client_port}"
    peer = f"http://127.0.0.1:{seat.peer_port}"
    members = ",".join(f"{other.name}=http://127.0.0.1:{other.peer_port}" for other in cluster)
    return [
        f"--name={seat.name}",
        f"--data-dir={seat.data_dir}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster-token={TOKEN}",
        f"--initial-cluster={members}",
        "--initial-cluster-state=new",
    ]


async def run_cluster(cluster: Sequence[Seat]) -> int | None:
    """Runs until every member has ended, or until a signal stops them all; the exit code.

    None when they were stopped because nobody reads their output.
    """
    members: list[asyncio.subprocess.Process] = []
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    unread = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    for seat in cluster:
        members.append(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "keyraft.cli.etcd",
                *arguments(seat, cluster),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=LINE_BYTES_MAX,
                start_new_session=True,  # Ctrl-C reaches only the runner, which stops them in order
            )
        )
    copying = [
        asyncio.create_task(_copy_lines(seat.name, member, unread.set))
        for seat, member in zip(cluster, members, strict=True)
    ]
    ended = asyncio.create_task(_all_ended(members))
    ends = [asyncio.create_task(event.wait()) for event in (stopping, unread)]
    try:
        await asyncio.wait((ended, *ends), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _stop(members)
        for end in ends:
            end.cancel()
        await asyncio.gather(*copying, ended)
    if unread.is_set():
        return None
    return 0 if stopping.is_set() else 1


async def _all_ended(members: Sequence[asyncio.subprocess.Process]) -> None:
    for member in members:
        await member.wait()


async def _copy_lines(
    name: str, member: asyncio.subprocess.Process, unread: Callable[[], None]
) -> None:
    """Copies the member's lines; `unread` is called when nobody reads them."""

    def say(line: bytes) -> None:
        try:
            os.write(2, prefix + line)
        except BrokenPipeError:
            unread()

    assert member.stdout is not None
    prefix = f"{name} | ".encode()
    while True:
        try:
            line = await member.stdout.readline()
        except ValueError:
            continue  # a line beyond the limit was dropped; the rest goes on
        if not line:
            break
        say(line)
    code = await member.wait()
    say(f"ended with code {code}\n".encode())


async def _stop(members: Sequence[asyncio.subprocess.Process]) -> None:
    for member in members:
        if member.returncode is None:
            os.kill(member.pid, signal.SIGTERM)
    waiting = [asyncio.create_task(member.wait()) for member in members]
    _, late = await asyncio.wait(waiting, timeout=STOP_TIMEOUT_S)
    for member in members:
        if member.returncode is None:
            member.kill()
    if late:
        await asyncio.wait(late)
