"""Plain lines as etcd 3.3 wrote them (`--logger=capnslog`), for who reads or greps such logs.

    2019-03-06 09:17:04.642613 I | raft: raft.node: 8e9e05c52164694d elected leader ... at term 36

A line has the local time, the level's letter (C, E, W, N, I, D), the package as etcd 3.3 had it, and
the message. Where 3.3 worded a message otherwise, its words are used; fields that no words are
known for follow in parentheses. Source: etcd v3.3 (`plog` calls), coreos/pkg/capnslog.

DEVIATION: since 3.5 the original refuses `--logger=capnslog`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

_LETTERS: Final = MappingProxyType(
    {"debug": "D", "info": "I", "warn": "W", "error": "E"}  # panic, fatal: C
)

_PACKAGES: Final = MappingProxyType(
    {
        "raft": "raft",
        "consensus": "raft",
        "peer": "rafthttp",
        "cluster": "etcdserver/membership",
        "membership": "etcdserver/membership",
        "wal": "wal",
        "storage": "wal",
        "backend": "mvcc",
        "mvcc": "mvcc",
        "auth": "auth",
        "lease": "lease",
        "gateway": "etcdserver/api/etcdhttp",
        "net": "embed",
        "config": "etcdmain",
        "cli": "etcdmain",
        "proxy": "tcpproxy",
    }
)
"""Folder of ours → package of the original; all others are `etcdserver`."""

_FILES: Final = MappingProxyType(
    {"client_ports.py": "embed", "peer_port.py": "embed", "publisher.py": "etcdserver"}
)
"""Files that stand for another package than their folder."""

_READER: Final = "(%(stream_reader_type)s reader)"
_WRITER: Final = "(%(stream_writer_type)s writer)"
_WORDS: Final = MappingProxyType(
    {
        "added member": "added member %(added_peer_id)s %(added_peer_peer_urls)s to cluster "
        "%(cluster_id)s",
        "removed member": "removed member %(removed_remote_peer_id)s from cluster %(cluster_id)s",
        "updated member": "updated member %(updated_remote_peer_id)s "
        "%(updated_remote_peer_urls)s in cluster %(cluster_id)s",
        "starting remote peer": "starting peer %(remote_peer_id)s...",
        "started remote peer": "started peer %(remote_peer_id)s",
        "removed remote peer": "removed peer %(removed_remote_peer_id)s",
        "added remote peer": "added peer %(remote_peer_id)s",
        "started stream reader with remote peer": "started streaming with peer "
        "%(remote_peer_id)s " + _READER,
        "peer became active": "peer %(peer_id)s became active",
        "peer became inactive (message send to peer failed)": "peer %(peer_id)s became inactive "
        "(%(error)s)",
        "prober detected unhealthy status": "health check for peer %(remote_peer_id)s could not "
        "connect: %(error)s",
        "published local member to cluster through raft": "published "
        "%(local_member_attributes)s to cluster %(cluster_id)s",
        "set initial cluster version": "set the initial cluster version to %(cluster_version)s",
        "setting up initial cluster version using v3 API": "setting up the initial cluster "
        "version to %(cluster_version)s",
        "starting etcd server": "starting server... [version: %(local_server_version)s, cluster "
        "version: %(cluster_version)s]",
        "starting local member": "starting member %(local_member_id)s in cluster %(cluster_id)s",
        "restarting local member": "restarting member %(local_member_id)s in cluster "
        "%(cluster_id)s at commit index %(commit_index)s",
        "serving client traffic insecurely; this is strongly discouraged!": "serving insecure "
        "client requests on %(address)s, this is strongly discouraged!",
        "serving client traffic securely": "serving client requests on %(address)s",
        "received signal; shutting down": "received %(signal)s signal, shutting down...",
        "configuring peer listeners": "listening for peers on %(listen_peer_urls)s",
        "configuring client listeners": "listening for client requests on %(listen_client_urls)s",
        "created a new WAL segment": "segmented wal file %(path)s is created",
    }
)
"""Message → the words of 3.3, with our fields in them."""

_STREAMS: Final = MappingProxyType(
    {
        "established TCP streaming connection with remote peer": "established a TCP streaming "
        "connection with peer %(remote_peer_id)s ",
        "lost TCP streaming connection with remote peer": "lost the TCP streaming connection with "
        "peer %(remote_peer_id)s ",
        "closed TCP streaming connection with remote peer": "closed the TCP streaming connection "
        "with peer %(remote_peer_id)s ",
        "stopped TCP streaming connection with remote peer": "closed the TCP streaming connection "
        "with peer %(remote_peer_id)s ",
    }
)
"""The same for those that readers and writers of streams have in common."""

_FIELD: Final = re.compile(r"%\((\w+)\)s")


def plain_line(
    unix_s: float, level: str, caller: str, message: str, fields: Mapping[str, object]
) -> bytes:
    """The whole line with its end; `caller` is folder, file and line of the call."""
    stamp = datetime.fromtimestamp(unix_s).strftime("%Y-%m-%d %H:%M:%S.%f")
    text = " ".join(_worded(message, fields).splitlines())
    line = f"{stamp} {_LETTERS.get(level, 'C')} | {_package(caller)}: {text}\n"
    return line.encode("utf-8", "replace")


def _package(caller: str) -> str:
    folder, _, rest = caller.partition("/")
    return _FILES.get(rest.partition(":")[0]) or _PACKAGES.get(folder, "etcdserver")


def _worded(message: str, fields: Mapping[str, object]) -> str:
    words = _WORDS.get(message)
    if words is None and message in _STREAMS:
        words = _STREAMS[message] + (_WRITER if "stream_writer_type" in fields else _READER)
    if words is not None and all(name in fields for name in _FIELD.findall(words)):
        return words % {name: _value(value) for name, value in fields.items()}
    if not fields:
        return message
    pairs = ", ".join(f"{name.replace('_', '-')}: {_value(fields[name])}" for name in fields)
    return f"{message} ({pairs})"


def _value(value: object) -> str:
    """As Go's `%v` prints it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return "[" + " ".join(_value(item) for item in value) + "]"
    return str(value)
