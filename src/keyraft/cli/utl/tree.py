"""Every command of etcdutl with its flags: etcd 3.7's, and the spellings of 3.5."""

from __future__ import annotations

from typing import Final

from keyraft.cli.ctl.command import Command
from keyraft.cli.ctl.flags import CommandFlag

_COMMANDS: Final = "keyraft.cli.utl.commands"

GLOBAL_FLAGS: Final = [
    CommandFlag(
        "timeout",
        "duration",
        10.0,
        "time to wait to obtain a file lock on db file, 0 to block indefinitely",
    ),
    CommandFlag(
        "write-out",
        "string",
        "simple",
        "set the output format (fields, json, protobuf, simple, table)",
        "w",
    ),
]

_DATA_DIR: Final = CommandFlag("data-dir", "string", "", "Path to the etcd data dir")

SNAPSHOT: Final = Command(
    "snapshot <subcommand>",
    "Manages etcd node snapshots",
    children=[
        Command(
            "status <filename>",
            "Gets backend snapshot status of a given file",
            run=f"{_COMMANDS}:snapshot_status",
            long=(
                "With the simple output format the items are: hash, revision, total keys, total "
                "size, version."
            ),
        ),
        Command(
            "restore <filename> --data-dir {output dir} [options]",
            "Restores an etcd member snapshot to an etcd directory",
            run=f"{_COMMANDS}:snapshot_restore",
            flags=[
                CommandFlag("data-dir", "string", "", "Path to the output data directory"),
                CommandFlag(
                    "wal-dir",
                    "string",
                    "",
                    "Path to the WAL directory (use --data-dir if none given)",
                ),
                CommandFlag(
                    "initial-cluster",
                    "string",
                    "default=http://localhost:2380",
                    "Initial cluster configuration for restore bootstrap",
                ),
                CommandFlag(
                    "initial-cluster-token",
                    "string",
                    "etcd-cluster",
                    "Initial cluster token for the etcd cluster during restore bootstrap",
                ),
                CommandFlag(
                    "initial-advertise-peer-urls",
                    "string",
                    "http://localhost:2380",
                    "List of this member's peer URLs to advertise to the rest of the cluster",
                ),
                CommandFlag("name", "string", "default", "Human-readable name for this member"),
                CommandFlag(
                    "skip-hash-check",
                    "bool",
                    False,
                    "Ignore snapshot integrity hash value (required if copied from data directory)",
                ),
                CommandFlag(
                    "initial-memory-map-size",
                    "uint",
                    0,
                    "Accepted and ignored: nothing is mapped for writing",
                ),
                CommandFlag(
                    "bump-revision",
                    "uint",
                    0,
                    "How much to increase the latest revision after restore",
                ),
                CommandFlag(
                    "mark-compacted",
                    "bool",
                    False,
                    "Mark the latest revision after restore as the point of scheduled compaction "
                    "(required if --bump-revision > 0, disallowed otherwise)",
                ),
            ],
        ),
    ],
)

ROOT: Final = Command(
    "etcdutl",
    "An administrative command line tool for etcd3.",
    inherited=GLOBAL_FLAGS,
    children=[
        SNAPSHOT,
        Command(
            "defrag",
            "Defragments the storage of the etcd",
            run=f"{_COMMANDS}:defrag",
            flags=[
                CommandFlag(
                    "data-dir",
                    "string",
                    "",
                    "Required. Defragments a data directory not in use by etcd.",
                )
            ],
        ),
        Command(
            "hashkv <filename>",
            "Prints the KV history hash of a given file",
            run=f"{_COMMANDS}:hash_kv",
            flags=[
                CommandFlag("rev", "int", 0, "maximum revision to hash (default: latest revision)"),
            ],
        ),
        Command(
            "migrate",
            "Migrates schema of etcd data dir files to make them compatible with different etcd "
            "version",
            run=f"{_COMMANDS}:migrate",
            flags=[
                _DATA_DIR,
                CommandFlag(
                    "target-version",
                    "string",
                    "",
                    "Target etcd version to migrate contents of data dir. Minimal value 3.5. "
                    'Format "X.Y" for example 3.6.',
                ),
                CommandFlag(
                    "force",
                    "bool",
                    False,
                    "Ignore migration failure and forcefully override storage version. Not "
                    "recommended.",
                ),
                CommandFlag(
                    "to-original",
                    "bool",
                    False,
                    "Write the database in the original's format, so that an etcd of the storage "
                    "version can start on the data dir. The target version need not be given then.",
                ),
                CommandFlag(
                    "wal-dir",
                    "string",
                    "",
                    "Path to the WAL directory (use --data-dir if none given)",
                ),
            ],
        ),
        Command("version", "Prints the version of etcdutl", run=f"{_COMMANDS}:version"),
        Command(
            "completion [bash|zsh|fish|powershell]",
            "Generate completion script",
            run=f"{_COMMANDS}:completion",
        ),
        Command("help [command]", "Help about any command", run=f"{_COMMANDS}:help_"),
    ],
)

REQUIRED: Final = {"defrag": ["data-dir"], "migrate": ["data-dir", "target-version"]}
"""Flags that a command requires."""
ARGUMENTS: Final = {"hashkv": 1}
"""How many arguments the parser requires."""
