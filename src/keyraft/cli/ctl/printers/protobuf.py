"""The answer's own bytes."""

from __future__ import annotations

from google.protobuf.message import Message

from keyraft.cli.ctl.printers.base import Printer, write
from keyraft.proto import rpc_pb2


class ProtobufPrinter(Printer):
    """`--write-out protobuf`: the bytes alone, without a newline."""

    form = "protobuf"

    def message(self, response: Message) -> None:
        write(response.SerializeToString(deterministic=True))

    def watch(self, response: rpc_pb2.WatchResponse) -> None:
        self.message(
            rpc_pb2.WatchResponse(
                header=response.header,
                events=response.events,
                compact_revision=response.compact_revision,
                canceled=response.canceled,
                created=response.created,
            )
        )

    # For answers about leases the original writes only the header: its structures embed the header,
    # and with it the header's Marshal method.
    def lease_grant(self, response: rpc_pb2.LeaseGrantResponse) -> None:
        self.message(response.header)

    def lease_keep_alive(self, response: rpc_pb2.LeaseKeepAliveResponse) -> None:
        self.message(response.header)

    def lease_time_to_live(self, response: rpc_pb2.LeaseTimeToLiveResponse, keys: bool) -> None:
        self.message(response.header)

    def leases(self, response: rpc_pb2.LeaseLeasesResponse) -> None:
        self.message(response.header)
