"""The two encodings of the streams between members (etcd `rafthttp`, docs/formats/peer.md).

A `message` stream is a sequence of

    | offset | bytes | meaning                          |
    | 0      | 8     | length n of the message, BE      |
    | 8      | n     | raftpb.Message                   |

A `msgapp` stream is a sequence of frames that begin with a type byte: 0 is a link heartbeat and
nothing follows; 2 is a whole message behind its length, as above; 1 carries entries alone:

    | 1      | 8     | number of entries, BE            |
    | 9      | 8 + n | length and raftpb.Entry, each    |
    | ...    | 8     | commit index, BE                 |

In frame 1 sender, receiver, term and the index before the entries are not sent: both ends
remember the term and the last index that passed, from 0/0 on a fresh connection. So a frame 1 is
only used when the message continues exactly where the last one ended, in the leader's own term.

Decoders are fed whatever arrived and answer with whole messages; they hold at most one message of
`MESSAGE_BYTES_MAX`. Every violation raises `FrameError` and ends the connection.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from keyraft.raft import codec
from keyraft.raft.limits import ENTRIES_MAX
from keyraft.raft.types import Entry, Message, MessageType

MESSAGE_BYTES_MAX: Final = 512 * 1024 * 1024  # one framed message (etcd msg_codec.go)
SNAPSHOT_MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024  # the message in front of a database file

_LENGTH: Final = Struct(">Q")
_HEARTBEAT: Final = b"\x00"
_ENTRIES: Final = 1
_WHOLE: Final = 2
_LINK_HEARTBEAT: Final = Message(type=MessageType.HEARTBEAT)


class FrameError(ValueError):
    """A peer sent bytes that no member sends; the connection must end."""


class MessageEncoder:
    """The sending end of a `message` stream; it remembers nothing."""

    __slots__ = ()

    def heartbeat(self) -> bytes:
        """A frame that shows that the link is alive: a heartbeat with sender and receiver 0."""
        return _framed(_LINK_HEARTBEAT)

    def encode(self, message: Message) -> bytes:
        """The frame of any message."""
        return _framed(message)


class _LastEntries:
    """Keeps the last encoding: Raft gives the same list to followers at the same place."""

    __slots__ = ("_encoded", "_entries")

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._encoded = b""

    def encode(self, entries: list[Entry]) -> bytes:
        """Each entry behind its length."""
        if entries is self._entries:
            return self._encoded
        pack = _LENGTH.pack
        parts: list[bytes] = []
        for entry in entries:
            encoded = codec.encode_entry(entry)
            parts.append(pack(len(encoded)))
            parts.append(encoded)
        self._entries = entries
        self._encoded = b"".join(parts)
        return self._encoded


_last_entries: Final = _LastEntries()


class AppendEncoder:
    """The sending end of a `msgapp` stream, with the memory that frame 1 relies on."""

    __slots__ = ("_index", "_term")

    def __init__(self) -> None:
        self._term = 0
        self._index = 0

    def heartbeat(self) -> bytes:
        """A frame that shows that the link is alive."""
        return _HEARTBEAT

    def encode(self, message: Message) -> bytes:
        """The frame of an APP message, in the short form where both ends can fill in the rest."""
        entries = message.entries
        if (
            message.index == self._index
            and message.log_term == self._term
            and message.term == self._term
        ):
            pack = _LENGTH.pack
            self._index += len(entries)
            return b"".join(
                (
                    b"\x01",
                    pack(len(entries)),
                    _last_entries.encode(entries) if entries else b"",
                    pack(message.commit),
                )
            )
        self._term = message.term
        self._index = entries[-1].index if entries else message.index
        return b"\x02" + _framed(message)


class _Decoder:
    """Collects bytes until a whole frame is there.

    However a frame is cut, each of its bytes is copied and looked at a fixed number of times.
    """

    __slots__ = ("_need", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()  # a frame that is not whole yet
        self._need = 1  # so many bytes of it tell more

    def feed(self, data: bytes) -> list[Message]:
        """Takes what arrived and returns the messages that are now whole.

        Raises FrameError for bytes that no frame begins with, lengths above the limits and
        messages that do not decode.
        """
        messages: list[Message] = []
        rest = self._rest
        buffer: bytes | bytearray = data
        if rest:
            rest += data
            buffer = rest
        position = 0
        while len(buffer) - position >= self._need:
            taken = self._take(buffer, position, messages)
            if taken == 0:
                break
            position += taken
            self._need = 1
        if buffer is rest:
            del rest[:position]
        elif position < len(data):
            self._rest = bytearray(data[position:] if position else data)
        return messages

    def _take(self, buffer: bytes | bytearray, start: int, messages: list[Message]) -> int:
        """The size of the frame at `start`, 0 (and `_need` set) when it is not whole yet."""
        raise AssertionError("a decoder has its own frame")

    def _whole(self, buffer: bytes | bytearray, start: int, head: int) -> bytes | None:
        """The message behind a length that stands `head` bytes after `start`."""
        length_end = start + head + 8
        if len(buffer) < length_end:
            self._need = head + 8
            return None
        (length,) = _LENGTH.unpack_from(buffer, start + head)
        if length > MESSAGE_BYTES_MAX:
            raise FrameError(f"message of {length} bytes exceeds {MESSAGE_BYTES_MAX}")
        if len(buffer) < length_end + length:
            self._need = head + 8 + length
            return None
        return bytes(memoryview(buffer)[length_end : length_end + length])


class MessageDecoder(_Decoder):
    """The receiving end of a `message` stream."""

    __slots__ = ()

    def _take(self, buffer: bytes | bytearray, start: int, messages: list[Message]) -> int:
        encoded = self._whole(buffer, start, 0)
        if encoded is None:
            return 0
        message = decode(encoded)
        if not is_link_heartbeat(message):
            messages.append(message)
        return 8 + len(encoded)


class AppendDecoder(_Decoder):
    """The receiving end of a `msgapp` stream that `remote` writes and `local` reads."""

    __slots__ = ("_index", "_local", "_remote", "_spans", "_term")

    def __init__(self, local: int, remote: int) -> None:
        super().__init__()
        self._spans: list[tuple[int, int]] = []  # of the entries of a frame that is not whole yet
        self._local = local
        self._remote = remote
        self._term = 0
        self._index = 0

    def _take(self, buffer: bytes | bytearray, start: int, messages: list[Message]) -> int:
        kind = buffer[start]
        if kind == 0:
            return 1
        if kind == _ENTRIES:
            return self._take_entries(buffer, start, messages)
        if kind != _WHOLE:
            raise FrameError(f"failed to parse type {kind} in msgappv2 stream")
        encoded = self._whole(buffer, start, 1)
        if encoded is None:
            return 0
        message = decode(encoded)
        self._term = message.term
        self._index = message.entries[-1].index if message.entries else message.index
        messages.append(message)
        return 9 + len(encoded)

    def _take_entries(self, buffer: bytes | bytearray, start: int, messages: list[Message]) -> int:
        size = len(buffer)
        if size < start + 9:
            self._need = 9
            return 0
        unpack = _LENGTH.unpack_from
        (count,) = unpack(buffer, start + 1)
        if count > ENTRIES_MAX:
            raise FrameError(f"{count} entries in one frame exceed {ENTRIES_MAX}")
        spans = self._spans  # from the frame's start on
        position = start + (spans[-1][1] if spans else 9)
        for _ in range(count - len(spans)):
            if size < position + 8:
                self._need = position + 8 - start
                return 0
            (length,) = unpack(buffer, position)
            position += 8
            if length > MESSAGE_BYTES_MAX or position + length - start > MESSAGE_BYTES_MAX:
                raise FrameError(f"entry of {length} bytes exceeds {MESSAGE_BYTES_MAX}")
            spans.append((position - start, position - start + length))
            position += length
        if size < position + 8:
            self._need = position + 8 - start
            return 0
        self._spans = []
        view = memoryview(buffer)
        try:
            entries = [
                codec.decode_entry(bytes(view[start + begin : start + end])) for begin, end in spans
            ]
        except codec.CodecError as error:
            raise FrameError(f"undecodable entry: {error}") from error
        finally:
            view.release()
        (commit,) = unpack(buffer, position)
        messages.append(
            Message(
                type=MessageType.APP,
                to=self._local,
                from_=self._remote,
                term=self._term,
                log_term=self._term,
                index=self._index,
                entries=entries,
                commit=commit,
            )
        )
        self._index += count
        return position + 8 - start


def is_link_heartbeat(message: Message) -> bool:
    """Whether the message only shows that the link is alive."""
    return message.type == MessageType.HEARTBEAT and not message.from_ and not message.to


def decode(encoded: bytes) -> Message:
    """A raftpb.Message; raises FrameError when it does not decode."""
    try:
        return codec.decode_message(encoded)
    except codec.CodecError as error:
        raise FrameError(f"undecodable message: {error}") from error


def snapshot_head(message: Message) -> bytes:
    """The bytes in front of the database file in a snapshot transfer."""
    return _framed(message)


def _framed(message: Message) -> bytes:
    encoded = codec.encode_message(message)
    return _LENGTH.pack(len(encoded)) + encoded
