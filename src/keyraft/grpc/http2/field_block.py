"""A field block that is still coming: HEADERS without END_HEADERS, then CONTINUATION frames
(RFC 9113 §4.3, §6.10). Nothing else may come in between."""

from __future__ import annotations

from keyraft.grpc.limits import Limits

from .errors import ENHANCE_YOUR_CALM, ConnectionFault


class UnfinishedBlock:
    """What has come so far."""

    __slots__ = ("_frames", "data", "ends_stream", "stream_id")

    def __init__(self, stream_id: int, first: bytes, ends_stream: bool) -> None:
        self.stream_id = stream_id
        self.data = bytearray(first)
        self.ends_stream = ends_stream
        self._frames = 0

    def add(self, more: bytes, limits: Limits) -> None:
        """A CONTINUATION frame's part; raises ConnectionFault for a block without end."""
        self.data += more
        self._frames += 1
        if (
            self._frames > limits.continuation_frames_max
            or len(self.data) > limits.header_block_bytes_max
        ):
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a header block without end")
