"""Every command in every output form, with wrong arguments, without permission, without a server.

`{lease}` and `{member}` stand for what an earlier line of the same tool printed.
"""

from __future__ import annotations

from typing import Final

from tests.golden.sessions import Line, line

FORMS: Final = ("-w simple", "-w json", "-w fields", "-w table", "-w protobuf", "--hex")
_TXN: Final = b'mod("k") > "0"\n\nput k2 v2\nget k --prefix\ndel k2\n\nput other x\n\n'


def _each(*lines: str, stdin: bytes = b"", forms: tuple[str, ...] = FORMS) -> list[Line]:
    """The lines in every form, one form after the other; `{n}` is the number of the form."""
    return [
        line(f"{words.replace('{n}', str(number))} {form}", stdin)
        for number, form in enumerate(forms)
        for words in lines
    ]


KEYS_IN_FORMS: Final[list[Line]] = [
    *_each("put k v", "put k w --prev-kv", "put k x --ignore-lease --prev-kv", "get k"),
    *_each("get k --keys-only", "get k --count-only", "get k --print-value-only", "get nosuch"),
    *_each("del k --prev-kv", "del k", "put k v"),
    line("put k2 v"),
    *_each("get k --prefix --limit=1", "get k2 --rev=100000"),
    *_each("txn", stdin=_TXN),
    *_each("txn", stdin=b'mod("k") < "0"\n\nput a b\n\nget k\nget k --prefix\n\n'),
    *_each("lease grant 600"),
    line("put leased v --lease={lease}"),
    *_each("lease timetolive {lease} --keys", "lease timetolive {lease}", "lease timetolive 1234"),
    *_each("lease list", "lease keep-alive --once {lease}", "lease keep-alive --once 1234"),
    *_each("get leased", forms=tuple(form for form in FORMS if form != "-w protobuf")),
    *_each("lease grant 500", "lease revoke {lease}", "lease revoke {lease}"),
    *_each("compaction {n}", "compaction 1{n}"),
    *_each("watch k --rev=1"),
]

CLUSTER_IN_FORMS: Final[list[Line]] = [
    *_each("alarm list", "defrag", "version"),
    # In the form of fields the original (3.5.1) dies of the header that its answer lacks.
    *_each("alarm disarm", forms=tuple(form for form in FORMS if form != "-w fields")),
    *_each("endpoint health", "endpoint status", "endpoint hashkv", "member list"),
    *_each(
        "member add m{n} --peer-urls=http://127.0.0.1:1{n} --learner",
        "member list",
        "member update {member} --peer-urls=http://127.0.0.1:2{n}",
        "member promote {member}",
        "member remove {member}",
        "member remove {member}",
    ),
    *_each("move-leader 1234567"),
    *_each("check perf --load=nosuch"),
]

USERS_IN_FORMS: Final[list[Line]] = [
    *_each("auth status", "auth disable"),
    *_each("role add r{n}", "role add r{n}", "role list", "role get r{n}"),
    *_each(
        "role grant-permission r{n} readwrite a b",
        "role grant-permission r{n} read c --prefix",
        "role grant-permission r{n} write d --from-key",
        "role get r{n}",
        "role revoke-permission r{n} a b",
        "role revoke-permission r{n} nosuch",
    ),
    *_each(
        "user add u{n} --no-password",
        "user add u{n} --no-password",
        "user grant-role u{n} r{n}",
        "user get u{n}",
        "user get u{n} --detail",
        "user list",
        "user revoke-role u{n} r{n}",
        "user get u{n}",
    ),
    *_each("user passwd u{n} --interactive=false", stdin=b"secret\n"),
    *_each("user delete u{n}", "user delete u{n}", "role delete r{n}", "role delete r{n}"),
]

COMMANDS: Final = (
    "alarm disarm",
    "alarm list",
    "auth disable",
    "auth enable",
    "auth status",
    "check datascale",
    "check perf",
    "compaction",
    "defrag",
    "del",
    "elect",
    "endpoint hashkv",
    "endpoint health",
    "endpoint status",
    "get",
    "lease grant",
    "lease keep-alive",
    "lease list",
    "lease revoke",
    "lease timetolive",
    "lock",
    "make-mirror",
    "member add",
    "member list",
    "member promote",
    "member remove",
    "member update",
    "move-leader",
    "put",
    "role add",
    "role delete",
    "role get",
    "role grant-permission",
    "role list",
    "role revoke-permission",
    "snapshot restore",
    "snapshot save",
    "snapshot status",
    "txn",
    "user add",
    "user delete",
    "user get",
    "user grant-role",
    "user list",
    "user passwd",
    "user revoke-role",
    "version",
    "watch",
)
"""Every command of the original, as its help lists them."""

WRONG: Final[list[Line]] = [
    *(line(f"{command} --nosuch") for command in COMMANDS),
    *(line(f"{command} -w nosuch") for command in COMMANDS),
    *(
        line(command)
        for command in COMMANDS
        if command.split()[0] not in ("check", "auth", "alarm", "defrag", "version", "endpoint")
    ),
    *(
        line(f"{command} a b c d e")
        for command in COMMANDS
        if command.split()[0] not in ("lock", "check", "watch")
    ),
    *(
        line(group)
        for group in ("alarm", "auth", "check", "endpoint", "member", "role", "snapshot", "user")
    ),
    *(line(f"{group} nosuch") for group in ("alarm", "auth", "lease", "member", "role", "user")),
]

# No `lease list`: elect and lock of the original leave the leases of their failures behind.
ADMINS: Final[list[Line]] = [
    line("alarm disarm"),
    line("alarm list"),
    line("auth disable"),
    line("auth enable"),
    line("auth status"),
    line("check datascale"),
    line("check perf"),
    line("compaction 1"),
    line("defrag"),
    line("del denied"),
    line("del denied --prefix"),
    line("elect denied me"),
    line("endpoint hashkv"),
    line("endpoint health"),
    line("endpoint status"),
    line("get denied"),
    line("get allowed"),
    line("get allowed --from-key"),
    line("lease grant 60"),
    line("lease keep-alive --once 1234"),
    line("lease revoke 1234"),
    line("lease timetolive 1234"),
    line("lease timetolive 1234 --keys"),
    line("lock denied true"),
    line("member add m2 --peer-urls=http://127.0.0.1:1 --learner"),
    line("member list"),
    line("member promote 1234567"),
    line("member remove 1234567"),
    line("member update 1234567 --peer-urls=http://127.0.0.1:2"),
    line("move-leader 1234567"),
    line("put denied v"),
    line("put allowed v"),
    line("role add r9"),
    line("role delete r1"),
    line("role get r1"),
    line("role get root"),
    line("role grant-permission r1 read x"),
    line("role list"),
    line("role revoke-permission r1 allowed"),
    line("txn", b"\nput denied v\n\n\n"),
    line("txn", b'val("denied") = "1"\n\n\n\n'),
    line("txn", b"\nget allowed\n\n\n"),
    line("user add u9 --no-password"),
    line("user delete u1"),
    line("user get u1"),
    line("user get root"),
    line("user grant-role u1 root"),
    line("user list"),
    line("user passwd root --interactive=false", b"x\n"),
    line("user revoke-role u1 r1"),
    line("watch denied"),
    line("snapshot save nosuch/file"),
]


# Those that the original waits with for ever, and one that opens its file first.
_PATIENT: Final = ("check", "elect", "lock", "role", "snapshot", "txn", "user", "watch")

UNREACHABLE: Final[list[Line]] = [
    (words, stdin)
    for words, stdin in ADMINS
    if words[0] not in _PATIENT
    and words[:2] not in (["lease", "keep-alive"], ["lease", "list"], ["lease", "timetolive"])
]
"""What gives up when no server answers within the time for commands."""


def _as(who: str, lines: list[Line]) -> list[Line]:
    return [([*words, *who.split()], stdin) for words, stdin in lines]


REFUSED: Final[list[Line]] = [
    line("role add r1"),
    line("role grant-permission r1 read allowed"),
    line("user add u1:pw"),
    line("user grant-role u1 r1"),
    line("user add root:root"),
    line("auth enable"),
    *_as("--user=u1:pw", ADMINS),
    *_as("", ADMINS),
    *_as("--user=u1:wrong", ADMINS[:3]),
    *_as("--user=nosuch:pw", ADMINS[:3]),
    line("get allowed --user=u1 --password=pw"),
    line("get allowed --user=u1:pw --password=pw"),
    line("get allowed --password=pw"),
    *_each("get denied --user=u1:pw", "user list --user=u1:pw", "get allowed --user=u1:pw"),
    line("role get r1 --user=root:root"),
    line("auth disable --user=root:root"),
    line("auth status"),
]


SESSIONS: Final = {
    "keys in forms": KEYS_IN_FORMS,
    "cluster in forms": CLUSTER_IN_FORMS,
    "users in forms": USERS_IN_FORMS,
    "wrong": WRONG,
    "refused": REFUSED,
}
