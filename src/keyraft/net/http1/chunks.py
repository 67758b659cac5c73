"""Takes a chunked body apart (RFC 9112 §7.1)."""

from __future__ import annotations

from typing import Final

CHUNK_LINE_BYTES_MAX: Final = 256  # a chunk's size and its extensions
TRAILER_BYTES_MAX: Final = 16_384  # the fields behind the last chunk, which are ignored
_SIZE_DIGITS_MAX: Final = 16
_LINE: Final = b"\r\n"


class ChunkError(ValueError):
    """The bytes are no chunked body."""


class ChunkDecoder:
    """Returns pieces as soon as they arrive; raises ChunkError."""

    __slots__ = ("_left", "_line", "_trailer_bytes", "ended", "rest")

    def __init__(self) -> None:
        self._line = b""  # the beginning of a line, or of the line end behind a chunk
        self._left = 0  # of the chunk that is read, its line end included; 0: a size line is next
        self._trailer_bytes = -1  # -1 before the last chunk
        self.ended = False
        self.rest = b""  # the bytes behind the body

    def feed(self, data: bytes) -> bytes:
        """The content in `data`; raises ChunkError."""
        if self._line:
            data = self._line + data
            self._line = b""
        parts: list[bytes] = []
        position, size = 0, len(data)
        while position < size and not self.ended:
            if self._trailer_bytes >= 0:
                position = self._trailer(data, position)
                continue
            left = self._left
            if not left:
                end = data.find(_LINE, position, position + CHUNK_LINE_BYTES_MAX)
                if end < 0:
                    if size - position >= CHUNK_LINE_BYTES_MAX:
                        raise ChunkError("a chunk's size line is too long")
                    self._line = data[position:]
                    break
                digits = data[position:end].partition(b";")[0].rstrip(b" \t")
                if not digits.isalnum() or len(digits) > _SIZE_DIGITS_MAX:
                    raise ChunkError("a chunk has no size")
                try:
                    left = int(digits, 16)
                except ValueError:
                    raise ChunkError("a chunk has no size") from None
                position = end + 2
                if not left:
                    self._trailer_bytes = 0
                    continue
                left += 2
            stop = position + left
            if stop <= size:
                if data[stop - 2 : stop] != _LINE:
                    raise ChunkError("a chunk is longer than its size")
                parts.append(data[position : stop - 2])
                self._left = 0
                position = stop
                continue
            # An incomplete line end is kept back until it is whole, so that one place checks it.
            content_end = min(size, stop - 2)
            parts.append(data[position:content_end])
            self._left = left - (content_end - position)
            self._line = data[content_end:]
            break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _trailer(self, data: bytes, position: int) -> int:
        """One line behind the last chunk; an empty one ends the body."""
        end = data.find(_LINE, position)
        if end == position:
            self.ended = True
            self.rest = data[end + 2 :]
            return len(data)
        stop = end + 2 if end >= 0 else len(data)
        self._trailer_bytes += stop - position
        if self._trailer_bytes > TRAILER_BYTES_MAX:
            raise ChunkError("too many trailers")
        if end < 0:
            self._trailer_bytes -= stop - position  # counted when the line is whole
            self._line = data[position:]
        return stop
