"""gRPC proxies as processes, of both makes, in front of members."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.server import Server

STARTED = b"started gRPC proxy"


@dataclass
class Proxy(Server):
    """`etcd grpc-proxy start`; its data directory outlives it, its client port is what it listens
    on."""

    upstream: str = ""
    ready: bytes = STARTED

    def arguments(self) -> list[str]:
        return [
            "grpc-proxy",
            "start",
            f"--listen-addr={self.endpoint}",
            f"--advertise-client-url={self.endpoint}",
            f"--endpoints={self.upstream}",
            f"--data-dir={self.data_dir}",
            *self.flags,
        ]


def behind(command: tuple[str, ...], member: Server, *flags: str) -> Proxy:
    """A proxy before one member."""
    directory = member.data_dir.with_name(f"{member.data_dir.name}.proxy")
    return Proxy(command, directory, flags=flags, upstream=member.endpoint)
