"""Coordination built from keys, leases and watches.

Keys have the layout of etcd's own `concurrency` package and its Lock and Election services, so
programs in both languages share locks and elections. Every key that a recipe writes is attached to
a session's lease: when the program dies, the key goes away by itself.
"""

from keyraft.client.recipes.barrier import Barrier, DoubleBarrier
from keyraft.client.recipes.election import Election
from keyraft.client.recipes.lock import Lock
from keyraft.client.recipes.queue import PriorityQueue, Queue
from keyraft.client.recipes.session import Session
from keyraft.client.recipes.stm import Isolation, Transaction, atomically

__all__ = [
    "Barrier",
    "DoubleBarrier",
    "Election",
    "Isolation",
    "Lock",
    "PriorityQueue",
    "Queue",
    "Session",
    "Transaction",
    "atomically",
]
