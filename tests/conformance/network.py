"""Makes a new network namespace look like a machine with one address, then becomes a command.

    unshare --net python network.py COMMAND ...

The loopback comes up and gets an address besides 127.0.0.1 and the default route, because some
tests ask which address of theirs leads to the rest of the world.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from typing import Final

SIOCSIFFLAGS: Final = 0x8914
SIOCSIFADDR: Final = 0x8916
SIOCADDRT: Final = 0x890B
UP: Final = 1
"""IFF_UP, and RTF_UP."""
ADDRESS: Final = "10.0.0.1"


def _sockaddr(address: str) -> bytes:
    return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def prepare() -> None:
    """Raises OSError where this namespace is not ours to change."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", UP))
        fcntl.ioctl(asked, SIOCSIFADDR, struct.pack("16s16s8x", b"lo:1", _sockaddr(ADDRESS)))
        device = ctypes.create_string_buffer(b"lo")
        everywhere = _sockaddr("0.0.0.0")
        name = ctypes.addressof(device)
        # struct rtentry: destination, gateway, mask, flags, metric, device, and what stays zero.
        route = struct.pack(
            "L16s16s16sHhLPhPLLHxxxxxx",
            *(0, everywhere, everywhere, everywhere, UP),
            *(0, 0, 0, 0, name, 0, 0, 0),
        )
        fcntl.ioctl(asked, SIOCADDRT, route)


if __name__ == "__main__":
    prepare()
    os.execvp(sys.argv[1], sys.argv[1:])
