"""How far Raft's numbers go. Nothing above is taken from a peer, and nothing above is written."""

from __future__ import annotations

from typing import Final

TERM_MAX: Final = 1 << 62
"""No member campaigns for a later one; all sums of terms stay within 64 bits."""
TERM_LEAP_MAX: Final = 1 << 32
"""How much a peer may know better: thirteen years of elections, ten a second."""
INDEX_BITS: Final = 62
"""Indexes are below 2^62."""
ENTRIES_MAX: Final = 1 << 18
"""Entries of one message. A sender stops at 1 MiB of them, and none has less than four bytes."""
MEMBERS_MAX: Final = 1_000
"""Ids of one configuration."""
CONTEXT_BYTES_MAX: Final = 1_024
"""Of a message or a request for a read index; etcd's have 8 and 16."""
READS_WAITING_MAX: Final = 10_000
"""Requests for a read index that a leader keeps while it cannot answer."""
