"""One member: propose, persist, send, apply; reads, alarms, quota. Deterministic: loop, clocks,
disk, network and chance are handed in."""

from keyraft.auth import Identity
from keyraft.server.consensus.boot import Boot, BootError
from keyraft.server.counters import Counters, Histogram, Histograms, exponential
from keyraft.server.member import Member
from keyraft.server.membership.conf_state import decode_conf_state, encode_conf_state
from keyraft.server.parsing import parse
from keyraft.server.ports import (
    DurableLog,
    LeaderCalls,
    Network,
    NoNetwork,
    Passwords,
    PeerHash,
    UnknownRequestError,
)
from keyraft.server.settings import MemberSettings
from keyraft.server.upkeep.hashing import hash_buckets, hash_keys
from keyraft.server.wait_table import Done, DoneWaiter, Result, Waiter

__all__ = [
    "Boot",
    "BootError",
    "Counters",
    "Done",
    "DoneWaiter",
    "DurableLog",
    "Histogram",
    "Histograms",
    "Identity",
    "LeaderCalls",
    "Member",
    "MemberSettings",
    "Network",
    "NoNetwork",
    "Passwords",
    "PeerHash",
    "Result",
    "UnknownRequestError",
    "Waiter",
    "decode_conf_state",
    "encode_conf_state",
    "exponential",
    "hash_buckets",
    "hash_keys",
    "parse",
]
