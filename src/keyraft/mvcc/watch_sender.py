"""Sends the messages of a cohort's job to its watchers' streams.

Small messages to neighbours of one stream go out together, in one frame; large ones are cut into
fragments, or share the bytes of their events with the other watchers of the range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from . import watch_messages as messages
from .watch_cohort import BulkSink, Job, Watcher

BATCH_BYTES_MAX: Final = 16_384  # messages of neighbours that go out together: a frame
BATCH_MESSAGE_BYTES_MAX: Final = 4_096  # larger ones go alone
_HEAD_BYTES_MAX: Final = 16  # of a message beside header and payload: a watch id, five of gRPC's
_BUDGET_SHIFT: Final = 13  # 8 KiB of a message cost as much as a message


class EventSender:
    """Sends jobs; a watcher whose stream is full is given to `stall`, with what it needs next."""

    def __init__(
        self,
        header: Callable[[int], bytes],
        stall: Callable[[Watcher, int], None],
        message_bytes_max: int,
    ) -> None:
        self._header = header
        self._stall = stall
        self._message_bytes_max = message_bytes_max  # fragments stay below
        self.events_total = 0
        self.messages_total = 0

    def send(self, job: Job, budget: int) -> int:
        """Sends a job to its next targets; the loop that all of a member's fan-out goes through.

        Small messages to neighbours of one stream go out together, in one frame.
        """
        targets = job.targets
        at, count = job.at, len(targets)
        first, after, payload = job.first, job.after, job.payload
        head = self._header(job.covered)
        cost = 1 + (len(payload) >> _BUDGET_SHIFT)
        message_bytes = len(head) + len(payload) + _HEAD_BYTES_MAX
        large = message_bytes >= self._message_bytes_max
        batched = message_bytes <= BATCH_MESSAGE_BYTES_MAX and not large
        heads: dict[int, bytes] = {}  # gRPC's five bytes and the header, by the id field's length
        batch: list[bytes] = []
        stream: BulkSink | None = None  # whose messages are in the batch
        room = 0  # messages that the batch may still take
        sent = 0
        while at < count and budget > 0:
            watcher = targets[at]
            at += 1
            seen = watcher.min_revision
            if seen >= after:
                continue
            bulk = watcher.bulk
            if not batched or bulk is None or seen > first:
                if batch:
                    _send_batch(stream, batch)
                stream = None
                if watcher.sink.writable <= 0:
                    self._stall(watcher, first)
                    continue
                budget -= cost
                sent += 1
                self._send_one(watcher, head, job, large)
                continue
            if bulk is not stream or not room:
                if batch:
                    _send_batch(stream, batch)
                writable = watcher.sink.writable
                if writable <= 0:
                    stream = None
                    self._stall(watcher, first)
                    continue
                stream = bulk
                room = max(1, min(writable, BATCH_BYTES_MAX) // message_bytes)
            id_field = watcher.id_field
            framed = heads.get(len(id_field))
            if framed is None:
                size = len(head) + len(id_field) + len(payload)
                framed = heads[len(id_field)] = b"\0" + size.to_bytes(4, "big") + head
            batch += framed, id_field, payload
            watcher.min_revision = after
            watcher.sent = True
            room -= 1
            budget -= 1
            sent += 1
        if batch:
            _send_batch(stream, batch)
        job.at = at
        self.messages_total += sent
        self.events_total += sent * len(job.encoded)
        return budget

    def _send_one(self, watcher: Watcher, head: bytes, job: Job, large: bool) -> None:
        # Updated before sending, because a sink inside the member may end its watcher at once.
        seen, watcher.min_revision = watcher.min_revision, job.after
        watcher.sent = True
        if seen > job.first:
            self.send_some(watcher, head, job, seen)
        elif large and watcher.fragment:
            self._send_fragments(watcher, head, job.encoded)
        elif watcher.bulk is not None and job.pieces:
            watcher.bulk.send_shared(head + watcher.id_field, job.pieces)
        else:
            watcher.sink.send(job.message(head, watcher.id_field))

    def send_some(self, watcher: Watcher, head: bytes, job: Job, first: int) -> None:
        if watcher.fragment:
            self._send_fragments(watcher, head, job.from_revision(first))
        else:
            payload = job.payload_from(first)
            watcher.sink.send(b"".join((head, watcher.id_field, payload)))

    def _send_fragments(self, watcher: Watcher, head: bytes, encoded: list[bytes]) -> None:
        head += watcher.id_field
        for message in messages.fragments(head, encoded, self._message_bytes_max):
            watcher.sink.send(message)


def _send_batch(stream: BulkSink | None, batch: list[bytes]) -> None:
    assert stream is not None, "messages for nobody"
    stream.send_framed(b"".join(batch), len(batch) // 3)
    batch.clear()
