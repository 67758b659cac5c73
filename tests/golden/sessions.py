"""What is typed, and what of the output follows from ports, ids, elections and disks.

Masked are: endpoints, member and cluster ids, terms, log indexes, versions, sizes of the
database, durations, timestamps. Everything else must be the same to the byte, except that the
width of table columns follows from what is masked.
"""

from __future__ import annotations

import re
from typing import Final

Line = tuple[list[str], bytes]
"""Arguments of etcdctl and what comes on its standard input."""


def line(words: str, stdin: bytes = b"") -> Line:
    """A line without quoting; "_" stands for an empty argument, "␣" for a space in one."""
    return (
        ["" if word == "_" else word.replace("␣", " ") for word in words.split()],
        stdin,
    )


DATA: Final[list[Line]] = [
    line("put foo bar"),
    line("put foo1 bar1"),
    line("put foo2 bar2"),
    line("put foo3 bar3 --prev-kv"),
    line("put foo bar4 --prev-kv"),
    line("put foo --ignore-value"),
    line("put nosuch --ignore-value"),
    line("put foo x --ignore-value"),
    line("put foo x --ignore-lease"),
    line("put foo x --lease=1234"),
    line("put", b""),
    line("put stdin-value", b"from stdin"),
    line("put -- -dash -value"),
    line("put utf8␣key grüße"),
    line("put _ v"),
    line("put big value -w json"),
    line("put big value -w fields"),
    line("put big value --hex"),
    line("get foo"),
    line("get foo --hex"),
    line("get foo -w json"),
    line("get foo -w fields"),
    line("get foo --print-value-only"),
    line("get foo -w table"),
    line("get nosuch"),
    line("get _"),
    line("get foo foo3"),
    line("get foo foo3 extra"),
    line("get --prefix foo"),
    line("get --prefix foo --limit=2"),
    line("get --prefix foo --limit=2 -w json"),
    line("get --prefix foo --limit=2 -w fields"),
    line("get --prefix foo --keys-only"),
    line("get --prefix foo --keys-only -w json"),
    line("get --prefix foo --count-only"),
    line("get --prefix foo --count-only -w fields"),
    line("get --prefix foo --rev=3"),
    line("get --prefix foo --rev=3 -w json"),
    line("get --prefix foo --rev=1000"),
    line("get --prefix foo --order=DESCEND"),
    line("get --prefix foo --order=ASCEND --sort-by=MODIFY"),
    line("get --prefix foo --order=DESCEND --sort-by=VALUE"),
    line("get --prefix foo --order=DESCEND --sort-by=CREATE"),
    line("get --prefix foo --order=ASCEND --sort-by=VERSION"),
    line("get --prefix foo --sort-by=NOSUCH"),
    line("get --prefix foo --order=NOSUCH"),
    line("get --prefix --from-key foo"),
    line("get --from-key foo2"),
    line("get --from-key _ --limit=3"),
    line("get --prefix _ --keys-only"),
    line("get foo --consistency=s"),
    line("get foo --consistency=x"),
    line("del foo1"),
    line("del foo1"),
    line("del foo2 foo3"),
    line("del --prefix foo --prev-kv"),
    line("del --prefix utf8 -w json"),
    line("del --from-key zzz -w fields"),
    line("del"),
    line("get --prefix _"),
    line("get --prefix foo --rev=4"),
    line("txn", b'mod("key1") > "0"\n\nput key1 "overwrote-key1"\n\nput key1 "created-key1"\n\n'),
    line("txn", b'mod("key1") > "0"\n\nput key1 "overwrote-key1"\n\nput key1 "created-key1"\n\n'),
    line("txn", b'value("key1") = "overwrote-key1"\n\nget key1\nput a b\ndel a\n\nget x\n\n'),
    line("txn -w json", b'version("key1") = "2"\n\nget key1\n\nget x\n\n'),
    line("txn -w fields", b'create("nosuch") = "0"\n\nget key1\nput c d\n\nget x\n\n'),
    line("txn --hex", b"\nget key1\n\n\n"),
    line("txn", b"\nput dup 1\nput dup 2\n\n\n"),
    line("txn", b"\nnosuch key1\n\n\n"),
    line("compaction 5"),
    line("compaction 5"),
    line("compaction 1000000"),
    line("compaction 8 --physical"),
    line("compaction x"),
    line("get foo --rev=2"),
    line("get foo --rev=8"),
    line("get foo --rev=7"),
    line("endpoint hashkv"),
    line("endpoint hashkv -w json"),
    line("endpoint hashkv --rev=9"),
    line("endpoint hashkv --rev=100000"),
    line("alarm list"),
]

CLUSTER: Final[list[Line]] = [
    line("endpoint health"),
    line("endpoint health -w json"),
    line("endpoint health --cluster"),
    line("endpoint status"),
    line("endpoint status -w fields"),
    line("endpoint status -w table"),
    line("endpoint status --cluster"),
    line("member list"),
    line("member list -w table"),
    line("member list -w json"),
    line("member list -w fields"),
    line("member list --hex -w json"),
    line("member add"),
    line("member remove 1234567"),
    line("member update 1234567 --peer-urls=http://127.0.0.1:1"),
    line("member promote 1234567"),
    line("move-leader 1234567"),
    line("check nosuch"),
    line("nosuch"),
]

_MASKS: Final = [
    (re.compile(rb'"(cluster_id|member_id|raft_term|ID|id)": ?\d+'), rb'"\1":0'),
    (re.compile(rb'"(cluster_id|member_id|raft_term|ID|id)": ?"[0-9a-f]+"'), rb'"\1":0'),
    (re.compile(rb'"(ClusterID|MemberID|RaftTerm|ID)" : [0-9a-f]+'), rb'"\1" : 0'),
    (
        re.compile(
            rb'"(RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse|Leader|StorageVersion)"'
            rb" : .*"
        ),
        rb'"\1" : 0',
    ),
    (
        re.compile(rb'"(raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|leader|raftTerm)":\d+'),
        rb'"\1":0',
    ),
    (re.compile(rb'"Version" : ".*"'), rb'"Version" : V'),
    (re.compile(rb"took = [0-9.]+(ms|s|\xc2\xb5s)"), rb"took = T"),
    (re.compile(rb'"took":"[0-9.]+(ms|s|\xc2\xb5s)"'), rb'"took":"T"'),
    (re.compile(rb'"ts":"[^"]*"'), rb'"ts":""'),
    (re.compile(rb"etcd-endpoints://0x[0-9a-f]+/"), rb"etcd-endpoints://0x/"),
    (re.compile(rb" {2,}(?=[0-9a-f]{10,15}\b)"), rb" "),  # %16x pads an id that begins with zeros
    (re.compile(rb"\b[0-9a-f]{10,16}\b"), rb"ID"),
    (re.compile(rb"\b3\.[0-9]+\.[0-9]+\b"), rb"VERSION"),
    (re.compile(rb"\b[0-9.]+ [kM]B\b"), rb"SIZE"),
]
_TABLE_SPACES: Final = re.compile(rb" *\| *")
_TABLE_RULES: Final = re.compile(rb"\+-[-+]+\+")
_STATUS_NUMBERS: Final = re.compile(rb"(true|false)(\|| *, *)\d+(\|| *, *)\d+(\|| *, *)\d+")


def mask(output: bytes, client_port: int, peer_port: int) -> bytes:
    """The output with everything taken out that follows from the place and the moment."""
    output = output.replace(b"127.0.0.1:%d" % client_port, b"CLIENT")
    output = output.replace(b"127.0.0.1:%d" % peer_port, b"PEER")
    for pattern, replacement in _MASKS:
        output = pattern.sub(replacement, output)
    output = _TABLE_SPACES.sub(b"|", output)
    output = _TABLE_RULES.sub(b"+-+", output)
    return _STATUS_NUMBERS.sub(rb"\1 TERM INDEX APPLIED", output)


def is_status(words: list[str]) -> bool:
    """Whether the output carries the numbers of an election and a log."""
    return words[:2] == ["endpoint", "status"]
