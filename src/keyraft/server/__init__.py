"""One member: propose, persist, send, apply; reads, alarms, quota.

Deterministic: loop, clocks, disk, network and random numbers are handed in.
"""

from keyraft.server.consensus.boot import Boot, BootError
from keyraft.server.counters import Counters
from keyraft.server.engine import MemberHealth, RaftEngine
from keyraft.server.member import Member
from keyraft.server.membership.conf_state import decode_conf_state, encode_conf_state
from keyraft.server.ports import (
    Asker,
    DurableLog,
    LeaderCalls,
    Network,
    NoNetwork,
    Passwords,
    PeerHash,
    UnknownRequestError,
)
from keyraft.server.settings import MemberSettings
from keyraft.server.upkeep.disk_waits import DiskWaits
from keyraft.server.upkeep.hashing import hash_buckets, hash_keys
from keyraft.server.upkeep.rebuild import CONTEXT as REBUILD_CONTEXT
from keyraft.server.upkeep.received_database import ReceivedDatabase

__all__ = [
    "REBUILD_CONTEXT",
    "Asker",
    "Boot",
    "BootError",
    "Counters",
    "DiskWaits",
    "DurableLog",
    "LeaderCalls",
    "Member",
    "MemberHealth",
    "MemberSettings",
    "Network",
    "NoNetwork",
    "Passwords",
    "PeerHash",
    "RaftEngine",
    "ReceivedDatabase",
    "UnknownRequestError",
    "decode_conf_state",
    "encode_conf_state",
    "hash_buckets",
    "hash_keys",
]
