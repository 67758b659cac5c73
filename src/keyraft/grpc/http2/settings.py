"""The peer's settings (RFC 9113 §6.5.2), and which of ours it still has to acknowledge."""

from __future__ import annotations

from . import frames
from .errors import FLOW_CONTROL_ERROR, PROTOCOL_ERROR, ConnectionFault


class Settings:
    """The peer's, under the RFC's names and with its defaults; `received` once they have come.

    SETTINGS_HEADER_TABLE_SIZE is kept by the encoder; SETTINGS_MAX_HEADER_LIST_SIZE is advisory and
    not used.
    """

    __slots__ = (
        "_acks_due",
        "initial_window_size",
        "max_concurrent_streams",
        "max_frame_size",
        "received",
    )

    def __init__(self) -> None:
        self.received = False
        self.initial_window_size = frames.WINDOW_DEFAULT
        self.max_frame_size = frames.FRAME_BYTES_DEFAULT
        self.max_concurrent_streams = 0xFFFFFFFF
        self._acks_due = 0

    def sent(self) -> None:
        """Our SETTINGS were sent."""
        self._acks_due += 1

    def confirmed(self) -> None:
        """An acknowledgement came; raises ConnectionFault if none was expected."""
        if self._acks_due == 0:
            raise ConnectionFault(PROTOCOL_ERROR, "an acknowledgement of nothing")
        self._acks_due -= 1

    def apply(self, identifier: int, value: int, is_client: bool) -> None:
        """Applies one setting of the peer; ignores unknown ones. Raises ConnectionFault."""
        if identifier == frames.SETTINGS_INITIAL_WINDOW_SIZE:
            if value > frames.WINDOW_MAX:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "an initial window above the maximum")
            self.initial_window_size = value
        elif identifier == frames.SETTINGS_MAX_FRAME_SIZE:
            if not frames.FRAME_BYTES_DEFAULT <= value <= frames.FRAME_BYTES_MAX:
                raise ConnectionFault(PROTOCOL_ERROR, "a maximum frame size out of range")
            self.max_frame_size = value
        elif identifier == frames.SETTINGS_MAX_CONCURRENT_STREAMS:
            self.max_concurrent_streams = value
        elif identifier == frames.SETTINGS_ENABLE_PUSH:
            if value > 1 or (is_client and value):
                raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH with a wrong value")
