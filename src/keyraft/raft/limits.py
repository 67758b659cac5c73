"""The largest numbers of Raft. No larger one is accepted from a peer or written."""

from __future__ import annotations

from typing import Final

TERM_MAX: Final = 1 << 62
"""No member campaigns for a later one; all sums of terms stay within 64 bits."""
TERM_LEAP_MAX: Final = 1 << 32
"""How far a peer's term may be above this member's: thirteen years of ten elections a second."""
INDEX_BITS: Final = 62
"""Indexes are below 2^62."""
ENTRIES_MAX: Final = 1 << 18
"""Entries of one message. A sender stops at 1 MiB of them, and none has less than four bytes."""
MEMBERS_MAX: Final = 1_000
"""Ids of one configuration."""
CONTEXT_BYTES_MAX: Final = 1_024
"""Bytes of the context of a message or of a read index request; etcd sends 8 and 16."""
READS_WAITING_MAX: Final = 10_000
"""Requests for a read index that a leader keeps while it cannot answer."""
