"""/debug/vars: what etcd publishes there, in the form of Go's expvar.

`memstats` has the names of Go's runtime for what means the same here; dashboards read `Alloc`,
`Sys`, `NumGC` and `HeapObjects`.
"""

from __future__ import annotations

import gc
import json
import resource
import sys

from keyraft.cluster import format_id
from keyraft.server import Member


def published(member: Member) -> bytes:
    """The whole page."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    told: dict[str, object] = {
        "cmdline": sys.argv,
        "file_descriptor_limit": limit,
        "memstats": _memory(),
        "raft.status": _raft(member),
    }
    lines = [f'"{name}": {_json(value)}' for name, value in told.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _memory() -> dict[str, int]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    try:
        with open("/proc/self/statm", "rb") as file:
            virtual, resident = map(int, file.read().split()[:2])
    except OSError:
        virtual, resident = 0, 0
    page = resource.getpagesize()
    blocks = sys.getallocatedblocks()
    return {
        "Alloc": resident * page,
        "Sys": virtual * page,
        "HeapAlloc": resident * page,
        "HeapObjects": blocks,
        "MaxResident": used.ru_maxrss * 1024,
        "NumGC": sum(int(one["collections"]) for one in gc.get_stats()),
    }


def _raft(member: Member) -> dict[str, object]:
    status = member.raft.status()
    return {
        "id": format_id(status.id),
        "term": status.hard_state.term,
        "vote": format_id(status.hard_state.vote),
        "commit": status.hard_state.commit,
        "lead": format_id(status.soft_state.lead),
        "raftState": str(status.soft_state.state),
        "applied": status.applied,
        "progress": {
            format_id(ident): {"match": one.match, "next": one.next, "state": str(one.state)}
            for ident, one in status.progress.items()
        },
        "leadtransferee": format_id(status.lead_transferee),
    }
