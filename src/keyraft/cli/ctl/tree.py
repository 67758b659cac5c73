"""Every command of etcdctl with its flags: etcd 3.7's, and what 3.5 had beside it."""

from __future__ import annotations

from typing import Final

from keyraft.cli.ctl.command import Command
from keyraft.cli.ctl.flags import CommandFlag
from keyraft.cli.ctl.globals import GLOBAL_FLAGS
from keyraft.cli.ctl.help import GROUPS

KEY_VALUE, MAINTENANCE, CONCURRENCY, AUTHENTICATION, UTILITY = GROUPS
_HERE: Final = "keyraft.cli.ctl"


def _bool(name: str, usage: str, short: str = "", default: bool = False) -> CommandFlag:
    return CommandFlag(name, "bool", default, usage, short)


def _int(name: str, usage: str, default: int = 0) -> CommandFlag:
    return CommandFlag(name, "int", default, usage)


def _string(name: str, usage: str, default: str = "") -> CommandFlag:
    return CommandFlag(name, "string", default, usage)


_PREFIX = _bool("prefix", "all keys with the given prefix")
_FROM_KEY = _bool("from-key", "all keys that are greater than or equal to the given key, bytewise")
_CLUSTER = _bool("cluster", "use all endpoints from the cluster member list")
_PEER_URLS = _string("peer-urls", "comma separated peer URLs of the member")
_CONSISTENCY = _string("consistency", "Linearizable(l) or Serializable(s)", "l")

_CHECK_FLAGS = [
    _string("load", "size of the load: s(small), m(medium), l(large), xl(xLarge)", "s"),
    _bool("auto-compact", "compact the store with the last revision afterwards"),
    _bool("auto-defrag", "defragment the store afterwards"),
]

GET = Command(
    "get [options] <key> [range_end]",
    "Gets the key or a range of keys",
    run=f"{_HERE}.kv:get",
    group=KEY_VALUE,
    flags=[
        _CONSISTENCY,
        _string("order", "order of results; ASCEND or DESCEND (ASCEND by default)"),
        _string("sort-by", "sort target; CREATE, KEY, MODIFY, VALUE, or VERSION"),
        _int("limit", "maximum number of results"),
        _PREFIX,
        _FROM_KEY,
        _int("rev", "revision to read at"),
        _bool("keys-only", "get only the keys"),
        _bool("count-only", "get only the count"),
        _bool("print-value-only", 'only write values with the "simple" output format'),
        _int("min-create-rev", "minimum create revision"),
        _int("max-create-rev", "maximum create revision"),
        _int("min-mod-rev", "minimum modification revision"),
        _int("max-mod-rev", "maximum modification revision"),
        _bool("stream", "use the RangeStream RPC"),
    ],
)
PUT = Command(
    "put [options] <key> <value> (<value> can also be given from stdin)",
    "Puts the given key into the store",
    run=f"{_HERE}.kv:put",
    group=KEY_VALUE,
    long=(
        "Puts the given key into the store.\n\n"
        "A value that begins with '-' looks like a flag; put '--' before it:\n\n"
        "  put <key> -- <value>\n\n"
        "Without a value, it is read from standard input:\n\n"
        "  cat file | put <key>"
    ),
    flags=[
        _string("lease", "lease ID (in hexadecimal) to attach to the key", "0"),
        _bool("prev-kv", "return the previous key-value pair"),
        _bool("ignore-value", "keep the key's present value"),
        _bool("ignore-lease", "keep the key's present lease"),
    ],
)
DEL = Command(
    "del [options] <key> [range_end]",
    "Removes the specified key or range of keys [key, range_end)",
    run=f"{_HERE}.kv:delete",
    group=KEY_VALUE,
    flags=[
        _PREFIX,
        _bool("prev-kv", "return deleted key-value pairs"),
        _FROM_KEY,
        _bool("range", "delete a range of keys without the pause for thought"),
    ],
)
WATCH = Command(
    "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    "Watches events stream on keys or prefixes",
    run=f"{_HERE}.watch:watch",
    group=KEY_VALUE,
    flags=[
        _bool("interactive", "read watch commands from standard input", "i"),
        _PREFIX,
        _int("rev", "revision to start watching"),
        _bool("prev-kv", "get the previous key-value pair, too"),
        _bool("progress-notify", "get periodic progress notifications from the server"),
    ],
)
TXN = Command(
    "txn [options]",
    "Txn processes all the requests in one transaction",
    run=f"{_HERE}.txn:txn",
    group=KEY_VALUE,
    long=(
        "Reads a transaction from standard input and carries it out as one step.\n\n"
        "Three blocks, each ended by an empty line: conditions, requests for when all of them\n"
        "hold, requests for when one does not:\n\n"
        '  mod("key1") > "0"\n\n'
        '  put key1 "overwrote-key1"\n\n'
        '  put key1 "created-key1"\n'
        '  put key2 "some extra key"\n'
    ),
    flags=[_bool("interactive", "prompt for each block", "i")],
)
COMPACTION = Command(
    "compaction [options] <revision>",
    "Compacts the event history in etcd",
    run=f"{_HERE}.kv:compaction",
    group=KEY_VALUE,
    flags=[_bool("physical", "wait until all old revisions are removed from the disk")],
)
LEASE = Command(
    "lease <subcommand>",
    "Lease related commands. Use `etcdctl lease --help` to see subcommands",
    long="Lease related commands",
    group=KEY_VALUE,
    children=[
        Command("grant <ttl>", "Creates leases", run=f"{_HERE}.lease:grant"),
        Command("revoke <leaseID>", "Revokes leases", run=f"{_HERE}.lease:revoke"),
        Command(
            "timetolive <leaseID> [options]",
            "Get lease information",
            run=f"{_HERE}.lease:time_to_live",
            flags=[_bool("keys", "get keys attached to this lease")],
        ),
        Command("list", "List all active leases", run=f"{_HERE}.lease:list_all"),
        Command(
            "keep-alive [options] <leaseID>",
            "Keeps leases alive (renew)",
            run=f"{_HERE}.lease:keep_alive",
            flags=[_bool("once", "renew one time only")],
        ),
    ],
)
ALARM = Command(
    "alarm <subcommand>",
    "Alarm related commands. Use `etcdctl alarm --help` to see subcommands",
    long="Alarm related commands",
    group=MAINTENANCE,
    children=[
        Command("disarm", "Disarms all alarms", run=f"{_HERE}.endpoint:alarm_disarm"),
        Command("list", "Lists all alarms", run=f"{_HERE}.endpoint:alarm_list"),
    ],
)
DEFRAG = Command(
    "defrag",
    "Defragments the storage of the etcd members with given endpoints",
    run=f"{_HERE}.endpoint:defrag",
    group=MAINTENANCE,
    inherited=[_CLUSTER],
    flags=[_string("data-dir", "defragment this directory instead (deprecated: use etcdutl)")],
)
ENDPOINT = Command(
    "endpoint <subcommand>",
    "Endpoint related commands. Use `etcdctl endpoint --help` to see subcommands",
    long="Endpoint related commands",
    group=MAINTENANCE,
    inherited=[_CLUSTER],
    children=[
        Command(
            "health",
            "Checks the healthiness of endpoints specified in `--endpoints` flag",
            run=f"{_HERE}.endpoint:health",
        ),
        Command(
            "status",
            "Prints out the status of endpoints specified in `--endpoints` flag",
            run=f"{_HERE}.endpoint:status",
            long=(
                "With the simple output format the columns are: endpoint, ID, version, storage\n"
                "version, db size, in use, percentage not in use, quota, is leader, is learner,\n"
                "raft term, raft index, raft applied index, errors, downgrade target version,\n"
                "downgrade enabled."
            ),
        ),
        Command(
            "hashkv",
            "Prints the KV history hash for each endpoint in --endpoints",
            run=f"{_HERE}.endpoint:hash_kv",
            flags=[_int("rev", "maximum revision to hash (default: latest revision)")],
        ),
    ],
)
MOVE_LEADER = Command(
    "move-leader <transferee-member-id>",
    "Transfers leadership to another etcd cluster member.",
    run=f"{_HERE}.endpoint:move_leader",
    group=MAINTENANCE,
)
MEMBER = Command(
    "member <subcommand>",
    "Membership related commands. Use `etcdctl member --help` to see subcommands",
    long="Membership related commands",
    group=MAINTENANCE,
    children=[
        Command(
            "add <memberName> [options]",
            "Adds a member into the cluster",
            run=f"{_HERE}.member:add",
            flags=[_PEER_URLS, _bool("learner", "the new member is a learner, without a vote")],
        ),
        Command(
            "remove <memberID>", "Removes a member from the cluster", run=f"{_HERE}.member:remove"
        ),
        Command(
            "update <memberID> [options]",
            "Updates a member in the cluster",
            run=f"{_HERE}.member:update",
            flags=[_PEER_URLS],
        ),
        Command(
            "list",
            "Lists all members in the cluster",
            run=f"{_HERE}.member:list_all",
            flags=[_CONSISTENCY],
            long=(
                "With the simple output format the columns are: ID, Status, Name, Peer Addrs,\n"
                "Client Addrs, Is Learner."
            ),
        ),
        Command(
            "promote <memberID>",
            "Promotes a non-voting member in the cluster",
            run=f"{_HERE}.member:promote",
        ),
    ],
)
SNAPSHOT = Command(
    "snapshot <subcommand>",
    "Manages etcd node snapshots",
    group=MAINTENANCE,
    children=[
        Command(
            "save <filename>",
            "Stores an etcd node backend snapshot to a given file",
            run=f"{_HERE}.snapshot:save",
        ),
        Command(
            "status <filename>",
            "[deprecated] Gets backend snapshot status of a given file",
            run=f"{_HERE}.snapshot:status",
        ),
        Command(
            "restore <filename> [options]",
            "[deprecated] Restores an etcd member snapshot to an etcd directory",
            run=f"{_HERE}.snapshot:restore",
            flags=[
                _string("data-dir", "path to the output data directory"),
                _string("wal-dir", "path to the WAL directory (default: in the data directory)"),
                _string(
                    "initial-cluster",
                    "initial cluster configuration",
                    "default=http://localhost:2380",
                ),
                _string("initial-cluster-token", "token of the initial cluster", "etcd-cluster"),
                _string(
                    "initial-advertise-peer-urls",
                    "this member's peer URLs",
                    "http://localhost:2380",
                ),
                _string("name", "this member's name", "default"),
                _bool("skip-hash-check", "ignore the snapshot's integrity hash"),
            ],
        ),
    ],
)
DOWNGRADE = Command(
    "downgrade <TARGET_VERSION>",
    "Downgrade related commands. Use `etcdctl downgrade --help` to see subcommands",
    long="Downgrade related commands",
    group=MAINTENANCE,
    children=[
        Command(
            "validate <TARGET_VERSION>",
            "Validate downgrade capability before starting downgrade",
            run=f"{_HERE}.downgrade:validate",
        ),
        Command(
            "enable <TARGET_VERSION>",
            "Start a downgrade action to cluster",
            run=f"{_HERE}.downgrade:enable",
        ),
        Command(
            "cancel",
            "Cancel the ongoing downgrade action to cluster",
            run=f"{_HERE}.downgrade:cancel",
        ),
    ],
)
LOCK = Command(
    "lock <lockname> [exec-command arg1 arg2 ...]",
    "Acquires a named lock",
    run=f"{_HERE}.concurrency:lock",
    group=CONCURRENCY,
    flags=[_int("ttl", "timeout for session", 10)],
)
ELECT = Command(
    "elect <election-name> [proposal]",
    "Observes and participates in leader election",
    run=f"{_HERE}.concurrency:elect",
    group=CONCURRENCY,
    flags=[_bool("listen", "observation mode", "l")],
)
AUTH = Command(
    "auth <enable or disable>",
    "Enable or disable authentication. Use `etcdctl auth --help` to see subcommands",
    long="Enable or disable authentication",
    group=AUTHENTICATION,
    children=[
        Command("enable", "Enables authentication", run=f"{_HERE}.auth:enable"),
        Command("disable", "Disables authentication", run=f"{_HERE}.auth:disable"),
        Command("status", "Returns authentication status", run=f"{_HERE}.auth:status"),
    ],
)
USER = Command(
    "user <subcommand>",
    "User related commands. Use `etcdctl user --help` to see subcommands",
    long="User related commands",
    group=AUTHENTICATION,
    children=[
        Command(
            "add <user name or user:password> [options]",
            "Adds a new user",
            run=f"{_HERE}.auth:user_add",
            flags=[
                _bool("interactive", "ask for the password on the terminal", default=True),
                _string("new-user-password", "the password"),
                _bool("no-password", "create a user without password (certificates only)"),
            ],
        ),
        Command("delete <user name>", "Deletes a user", run=f"{_HERE}.auth:user_delete"),
        Command(
            "get <user name> [options]",
            "Gets detailed information of a user",
            run=f"{_HERE}.auth:user_get",
            flags=[_bool("detail", "show permissions of roles granted to the user")],
        ),
        Command("list", "Lists all users", run=f"{_HERE}.auth:user_list"),
        Command(
            "passwd <user name> [options]",
            "Changes password of user",
            run=f"{_HERE}.auth:user_passwd",
            flags=[_bool("interactive", "ask for the password on the terminal", default=True)],
        ),
        Command(
            "grant-role <user name> <role name>",
            "Grants a role to a user",
            run=f"{_HERE}.auth:user_grant_role",
        ),
        Command(
            "revoke-role <user name> <role name>",
            "Revokes a role from a user",
            run=f"{_HERE}.auth:user_revoke_role",
        ),
    ],
)
ROLE = Command(
    "role <subcommand>",
    "Role related commands. Use `etcdctl role --help` to see subcommands",
    long="Role related commands",
    group=AUTHENTICATION,
    children=[
        Command("add <role name>", "Adds a new role", run=f"{_HERE}.auth:role_add"),
        Command("delete <role name>", "Deletes a role", run=f"{_HERE}.auth:role_delete"),
        Command(
            "get <role name>", "Gets detailed information of a role", run=f"{_HERE}.auth:role_get"
        ),
        Command("list", "Lists all roles", run=f"{_HERE}.auth:role_list"),
        Command(
            "grant-permission [options] <role name> <permission type> <key> [endkey]",
            "Grants a key to a role",
            run=f"{_HERE}.auth:role_grant",
            flags=[_PREFIX, _FROM_KEY],
        ),
        Command(
            "revoke-permission <role name> <key> [endkey]",
            "Revokes a key from a role",
            run=f"{_HERE}.auth:role_revoke",
            flags=[_PREFIX, _FROM_KEY],
        ),
    ],
)
MAKE_MIRROR = Command(
    "make-mirror [options] <destination>",
    "Makes a mirror at the destination etcd cluster",
    run=f"{_HERE}.mirror:make_mirror",
    group=UTILITY,
    flags=[
        _string("prefix", "prefix of the keys to mirror"),
        _int("rev", "revision to start at, without the keys as they are"),
        CommandFlag("max-txn-ops", "uint", 128, "maximum number of operations in a transaction"),
        _string("dest-prefix", "prefix at the destination instead of the source's"),
        _bool("no-dest-prefix", "mirror without any prefix"),
        _string("dest-cert", "client certificate file for the destination"),
        _string("dest-key", "client key file for the destination"),
        _string("dest-cacert", "CA bundle for the destination"),
        _bool("dest-insecure-transport", "no transport security", default=True),
        _string("dest-user", "username[:password] for the destination"),
        _string("dest-password", "password for the destination"),
    ],
)
CHECK = Command(
    "check <subcommand>",
    "commands for checking properties of the etcd cluster. "
    "Use `etcdctl check --help` to see subcommands",
    long="commands for checking properties of the etcd cluster",
    group=UTILITY,
    children=[
        Command(
            "perf [options]",
            "Check the performance of the etcd cluster",
            run=f"{_HERE}.check:perf",
            flags=[
                *_CHECK_FLAGS,
                _string("prefix", "prefix of the keys it writes", "/etcdctl-check-perf/"),
            ],
        ),
        Command(
            "datascale [options]",
            "Check the memory usage of holding data for different workloads on a given server "
            "endpoint.",
            long="Without endpoints, localhost is checked; of several endpoints, the first.",
            run=f"{_HERE}.check:datascale",
            flags=[
                *_CHECK_FLAGS,
                _string("prefix", "prefix of the keys it writes", "/etcdctl-check-datascale/"),
            ],
        ),
    ],
)

ROOT: Final = Command(
    "etcdctl",
    "A simple command line client for etcd3.",
    inherited=GLOBAL_FLAGS,
    children=[
        GET,
        PUT,
        DEL,
        TXN,
        COMPACTION,
        WATCH,
        LEASE,
        ALARM,
        DEFRAG,
        ENDPOINT,
        MOVE_LEADER,
        MEMBER,
        SNAPSHOT,
        DOWNGRADE,
        LOCK,
        ELECT,
        AUTH,
        USER,
        ROLE,
        MAKE_MIRROR,
        CHECK,
        Command(
            "version", "Prints the version of etcdctl", run=f"{_HERE}.plain:version", group=UTILITY
        ),
        Command(
            "completion [bash|zsh|fish|powershell]",
            "Generate completion script",
            run=f"{_HERE}.completion:completion",
            group=UTILITY,
        ),
        Command(
            "options",
            "Show the global command-line flags",
            run=f"{_HERE}.plain:options",
            group=UTILITY,
        ),
        Command(
            "help [command]", "Help about any command", run=f"{_HERE}.plain:help_", group=UTILITY
        ),
    ],
)
