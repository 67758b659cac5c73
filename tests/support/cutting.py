"""A network between members that can be cut: one proxy in front of every member's peer port.

Members advertise the proxies' ports, so all that they say to each other passes here. Who dials is
found out from the system's table of connections, because only some of etcd's peer requests name
their sender; each way between two members has a gate of its own. A shut gate holds what comes, as
a network does that loses packets: the two ends notice by their own timeouts only, and what was
under way arrives late when the gate opens again. A refused way breaks connections at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from keyraft.client.sync import Portal
from tests.support.pumping import pump

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
INODE_OFFSET = 16 + 4 + 48 + 16  # behind netlink's head, four bytes, the addresses, four numbers
LOOPBACK_HEX = "0100007F"  # 127.0.0.1 as /proc/net/tcp writes it

Way = tuple[str, str]
"""From one member to another, by their names."""


def owner_of(port: int, target_port: int, pids: Iterable[int]) -> int | None:
    """Which of the processes has the connection from 127.0.0.1:`port` to `target_port`."""
    inode = _asked(port, target_port)
    if inode is None:
        inode = _looked_up(port)
    wanted = f"socket:[{inode}]"
    for pid in pids:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{name}") == wanted:
                        return pid
    return None


def _asked(port: int, target_port: int) -> int | None:
    """The socket's inode, asked of the kernel (sock_diag(7)); None where it does not answer."""
    loopback = socket.inet_aton("127.0.0.1").ljust(16, b"\0")
    family = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
    ports = struct.pack("!HH", port, target_port)
    anything = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    request = family + ports + loopback * 2 + anything
    head = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, 1, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(1.0)
            netlink.send(head + request)
            answer = netlink.recv(4_096)
    except OSError:
        return None
    if struct.unpack_from("=H", answer, 4)[0] != SOCK_DIAG_BY_FAMILY:
        return None
    inode: int = struct.unpack_from("=I", answer, INODE_OFFSET)[0]
    return inode


def _looked_up(port: int) -> int | None:
    """The same from the table of all connections, which takes the kernel long."""
    local = f"{LOOPBACK_HEX}:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == local:
            return int(fields[9])
    return None


class Cuts:
    """Proxies for members by name; used from any thread, at work on the portal's loop."""

    def __init__(self, portal: Portal, pids: Callable[[], dict[int, str]]) -> None:
        """`pids` says whose process is whose: process id to name."""
        self._portal = portal
        self._pids = pids
        self._shut: set[Way] = set()
        self._refused: set[Way] = set()
        self._changed: asyncio.Event | None = None
        self._servers: list[asyncio.Server] = []
        self._open: dict[asyncio.StreamWriter, Way] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def guard(self, name: str, target_port: int) -> int:
        """Puts a proxy in front of the port of member `name`; where others find it."""
        return self._portal.run(self._guard(name, target_port))

    async def _guard(self, name: str, target_port: int) -> int:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._connect(name, target_port, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(accepted, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    # --- cutting ------------------------------------------------------------------------------

    def cut(self, *ways: Way) -> None:
        """Nothing passes these ways any more, and nobody is told."""
        self._portal.run(self._change(self._shut | set(ways), self._refused))

    def refuse(self, *ways: Way) -> None:
        """Connections of these ways break, and new ones are refused."""
        self._portal.run(self._change(self._shut, self._refused | set(ways)))

    def heal(self) -> None:
        """Everything passes again, what was held first."""
        self._portal.run(self._change(set(), set()))

    async def _change(self, shut: set[Way], refused: set[Way]) -> None:
        self._shut, self._refused = shut, refused
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()
        for writer, way in list(self._open.items()):
            if way in refused:
                writer.transport.abort()

    def close(self) -> None:
        """Ends every connection and every proxy."""
        self._portal.run(self._close())

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for writer in list(self._open):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- passing on ---------------------------------------------------------------------------

    async def _passable(self, *ways: Way) -> None:
        """Waits until all these ways are open."""
        while not self._shut.isdisjoint(ways):
            if self._changed is None:
                self._changed = asyncio.Event()
            await self._changed.wait()

    async def _connect(
        self, name: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        names = self._pids()
        own_port = writer.get_extra_info("sockname")[1]
        pid = owner_of(writer.get_extra_info("peername")[1], own_port, names)
        if pid is None:
            writer.transport.abort()  # gone already, or none of the members
            return
        there, back = (names[pid], name), (name, names[pid])
        if there in self._refused or back in self._refused:
            writer.transport.abort()
            return
        await self._passable(there, back)  # a connection takes packets of both ways
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(
            self._pump(reader, far_writer, there), self._pump(far_reader, writer, back)
        )

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: Way
    ) -> None:
        self._open[sink] = way
        try:
            await pump(source, sink, lambda: self._passable(way))
        finally:
            del self._open[sink]


def both(left: Iterable[str], right: Iterable[str]) -> list[Way]:
    """All ways between two sides."""
    ways = [(one, other) for one in left for other in right]
    return ways + [(other, one) for one, other in ways]
