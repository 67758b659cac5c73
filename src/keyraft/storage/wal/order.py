"""What may be written to a log: exactly what a reader accepts.

A reader refuses entries that leave a gap, that replace a committed one or that go back in term,
changes of the configuration without content, a hard state of an earlier term than the entry before
it, one snapshot under two terms, and numbers of more than 64 bits. So nothing of the kind may be
written: an acknowledged entry that makes its log unreadable is lost, with everything around it.
Raft never asks for such a write. If it did, that would be a bug, and the member stops before it
acknowledges anything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from keyraft.raft.limits import MEMBERS_MAX
from keyraft.raft.types import ConfState, Entry, EntryType, HardState
from keyraft.storage.wal.record import SnapshotMark, WALRefusedError

_CONF_CHANGE = EntryType.CONF_CHANGE.value
_TYPE_MAX = EntryType.CONF_CHANGE_V2.value


class Order:
    """The indexes and terms of the log so far, as a reader will have met them."""

    __slots__ = ("_commit", "_mark", "_starts", "_term", "_terms", "last_index")

    def __init__(self) -> None:
        self.last_index = 0  # of the last entry or snapshot
        self._term = 0  # there
        self._commit = 0  # of the last hard state
        self._mark = (0, 0)  # index and term of the newest snapshot
        # Where each term begins, ascending: a reader checks against the entry before.
        self._starts: list[int] = []
        self._terms: list[int] = []

    def begin(
        self, mark: SnapshotMark, entries: Sequence[Entry], last_index: int, state: HardState
    ) -> None:
        """A log was read: entries behind `mark`, and the last index met, also before it."""
        self.last_index = mark.index
        self._mark = (mark.index, mark.term)
        if mark.term:
            self._begin_term(mark.index, mark.term)
        self._commit = state.commit
        for entry in entries:
            if entry.term != self._term:
                self._begin_term(entry.index, entry.term)
        self.last_index = last_index

    def _begin_term(self, index: int, term: int) -> None:
        self._term = term
        self._starts.append(index)
        self._terms.append(term)

    def add_entries(self, entries: Sequence[Entry]) -> None:
        """Adds entries that are written next; raises WALRefusedError, with nothing changed."""
        index = self.last_index
        term = self._term
        for entry in entries:
            index += 1
            if entry.index != index or entry.term != term or entry.type:
                self._add_any(entries)
                return
        if index >> 64:
            raise WALRefusedError(f"entry {index}")
        self.last_index = index

    def _add_any(self, entries: Sequence[Entry]) -> None:
        """The same for any entries: of other terms and types, or in place of earlier ones."""
        first = index = entries[0].index
        term = self._term
        kept = len(self._starts)
        if first != self.last_index + 1:
            if first > self.last_index or first <= self._commit:
                raise WALRefusedError(
                    f"entry {first} does not follow {self.last_index}, committed {self._commit}"
                )
            kept = bisect_left(self._starts, first)
            term = self._terms[kept - 1] if kept else 0
        runs: list[tuple[int, int]] = []
        for entry in entries:
            if entry.index != index:
                raise WALRefusedError(f"entry {entry.index} follows entry {index - 1}")
            if entry.term != term:
                if entry.term < term:
                    raise WALRefusedError(
                        f"entry {index} of term {entry.term} follows one of term {term}"
                    )
                term = entry.term
                runs.append((index, term))
            if entry.type and (
                not 0 < entry.type <= _TYPE_MAX or (entry.type == _CONF_CHANGE and not entry.data)
            ):
                raise WALRefusedError(f"entry {index} of type {entry.type} is none")
            index += 1
        _check_numbers(index - 1, term)
        self.last_index = index - 1
        self._term = term
        if kept < len(self._starts):
            del self._starts[kept:], self._terms[kept:]
        for start, begun in runs:
            self._begin_term(start, begun)

    def add_state(self, state: HardState) -> None:
        """A hard state behind what was added last; raises WALRefusedError."""
        if (state.term | state.vote | state.commit) >> 64:
            _check_numbers(state.term, state.vote, state.commit)
        if not state.term or state.term < self._term:
            raise WALRefusedError(
                f"a hard state of term {state.term} follows an entry of term {self._term}"
            )
        self._commit = state.commit

    def add_mark(self, mark: SnapshotMark) -> None:
        """A snapshot's mark; raises WALRefusedError."""
        _check_numbers(mark.index, mark.term)
        index, term = self._mark
        if mark.index < index or (mark.index == index and mark.term != term):
            raise WALRefusedError(
                f"a snapshot of index {mark.index}, term {mark.term} behind one of {index}, {term}"
            )
        if mark.conf_state is not None:
            _check_conf_state(mark.conf_state)
        self._mark = (mark.index, mark.term)
        if mark.index > self.last_index:
            self.last_index = mark.index
            if mark.term > self._term:
                self._begin_term(mark.index, mark.term)


def _check_conf_state(state: ConfState) -> None:
    for ids in (state.voters, state.learners, state.voters_outgoing, state.learners_next):
        if len(ids) > MEMBERS_MAX:
            raise WALRefusedError(f"a configuration of {len(ids)} members")
        _check_numbers(*ids)


def _check_numbers(*numbers: int) -> None:
    if numbers and (max(numbers) >> 64 or min(numbers) < 0):
        raise WALRefusedError(f"a number of more than 64 bits: {max(numbers)}")
