"""Command lines for both etcdctls, and where ours is of another version on purpose.

`{lease}`, `{member}` stand for what an earlier line of the same tool printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from tests.golden.sessions import CLUSTER, DATA, Line, line

LEASES: Final[list[Line]] = [
    line("lease list"),
    line("lease list -w json"),
    line("lease grant 600"),
    line("lease timetolive {lease}"),
    line("lease timetolive {lease} -w fields"),
    line("put leased v --lease={lease}"),
    line("put leased w --ignore-lease"),
    line("lease timetolive {lease} --keys"),
    line("lease timetolive {lease} --keys -w json"),
    line("lease timetolive {lease} --keys -w fields"),
    line("lease timetolive {lease} --keys -w protobuf"),
    # Only now a second key: the original tells several in the order of a Go map, which is none.
    line("put leased2 v --lease={lease}"),
    line("lease list"),
    line("lease list -w json"),
    line("lease list -w fields"),
    line("lease keep-alive --once {lease}"),
    line("lease keep-alive --once {lease} -w json"),
    line("lease keep-alive --once {lease} -w fields"),
    line("lease keep-alive --once 1234"),
    line("lease keep-alive 1234"),
    line("get leased -w json"),
    line("get leased -w fields"),
    line("lease grant 600 -w json"),
    line("lease grant 600 -w fields"),
    line("lease grant 600 -w table"),
    line("lease grant"),
    line("lease grant x"),
    line("lease grant 99999999999"),
    line("lease timetolive 1234"),
    line("lease timetolive zz"),
    line("lease timetolive"),
    line("lease revoke {lease}"),
    line("lease revoke {lease}"),
    line("lease revoke zz"),
    line("lease revoke"),
    line("lease keep-alive"),
    line("get leased"),
    line("lease"),
]

WATCHES: Final[list[Line]] = [
    line("put w1 a"),
    line("put w1 b"),
    line("del w1"),
    line("watch"),
    line("watch a --"),
    line("watch a b --prefix"),
    line("compaction 3"),
    line("watch w1 --rev=1"),
    line("watch w1 --rev=1 -w json"),
    line("watch w1 --rev=1 -w fields"),
    line("watch -i", b""),
    line("watch -i", b"nosuch\n\nwatch\n"),
    line("watch -i", b"watch a b --prefix\n"),
    line("watch -i", b"watch a --nosuch\n"),
]

LOCKS: Final[list[Line]] = [
    line("lock"),
    line("lock mine sh -- -c exit␣7"),
    line("lock mine true"),
    line("lock mine echo held"),
    line("lock mine nosuch-command"),
    line("get mine --prefix"),
    line("elect"),
    line("elect seat"),
    line("elect seat me -l"),
]

AUTH: Final[list[Line]] = [
    line("auth status"),
    line("auth status -w json"),
    line("auth status -w fields"),
    line("auth enable x"),
    line("auth enable"),
    line("role add r1"),
    line("role add r1"),
    line("role add r2 -w json"),
    line("role add r3 -w fields"),
    line("role add"),
    line("role list"),
    line("role list -w json"),
    line("role list -w fields"),
    line("role list -w table"),
    line("role grant-permission r1 read a b"),
    line("role grant-permission r1 readwrite c"),
    line("role grant-permission r1 WRITE d --from-key"),
    line("role grant-permission r1 read e --prefix"),
    line("role grant-permission r1 read _ --prefix"),
    line("role grant-permission r2 bad a"),
    line("role grant-permission r2 read"),
    line("role grant-permission r2 read a b --prefix"),
    line("role grant-permission r2 read a b --from-key"),
    line("role grant-permission r2 read a --from-key --prefix"),
    line("role grant-permission nosuch read a"),
    line("role get r1"),
    line("role get r1 -w json"),
    line("role get r1 -w fields"),
    line("role get r1 -w protobuf"),
    line("role get nosuch"),
    line("role get"),
    line("role revoke-permission r1 a b"),
    line("role revoke-permission r1 c"),
    line("role revoke-permission r1 d --from-key"),
    line("role revoke-permission r1 e --prefix"),
    line("role revoke-permission r1 _ --prefix"),
    line("role revoke-permission r1 zzz"),
    line("role revoke-permission r1"),
    line("role get r1"),
    line("user add u1:pw"),
    line("user add u1:pw"),
    line("user add :pw"),
    line("user add u2 --new-user-password=pw2"),
    line("user add u3 --no-password"),
    line("user add u4 --interactive=false", b"pw4\n"),
    line("user add u5:pw -w json"),
    line("user add"),
    line("user list"),
    line("user list -w json"),
    line("user list -w fields"),
    line("user grant-role u1 r1"),
    line("user grant-role u1 nosuch"),
    line("user grant-role u1"),
    line("user get u1"),
    line("user get u1 --detail"),
    line("user get u1 --detail -w json"),
    line("user get u1 -w json"),
    line("user get u1 -w fields"),
    line("user get u3"),
    line("user get nosuch"),
    line("user passwd u1 --interactive=false", b"pw\n"),
    line("user passwd nosuch --interactive=false", b"pw\n"),
    line("user passwd"),
    line("user revoke-role u1 r1"),
    line("user revoke-role u1 r1"),
    line("user delete u5"),
    line("user delete u5"),
    line("user add root:root"),
    line("auth enable"),
    line("get a"),
    line("get a --user=u1:wrong"),
    line("get a --user=u1:pw"),
    line("put a b --user=root:root"),
    line("put a c --user root --password root"),
    line("get a --user=root:root -w json"),
    line("role get root --user=root:root"),
    line("user grant-role u1 r1 --user=root:root"),
    line("user get u1 --user=root:root --detail"),
    line("role grant-permission r1 read a --user=root:root"),
    line("get a --user=u1:pw"),
    line("put a d --user=u1:pw"),
    line("watch b --user=u1:pw"),
    line("member list"),
    line("endpoint health --user=u1:pw"),
    line("endpoint status --user=u1:pw"),
    line("user list --user=u1:pw"),
    line("auth status --user=root:root"),
    line("auth disable"),
    line("auth disable --user=root:root"),
    line("auth disable"),
]

MEMBERS: Final[list[Line]] = [
    line("member add m2 http://127.0.0.1:1"),
    line("member add m2"),
    line("member add m2 --peer-urls=http://127.0.0.1:1 --learner -w json"),
    line("member list"),
    line("member list -w fields"),
    line("member add m3 --peer-urls=http://127.0.0.1:1"),
    line("member update {member}"),
    line("member update {member} --peer-urls=http://127.0.0.1:2"),
    line("member update zz --peer-urls=http://127.0.0.1:2"),
    line("member promote {member}"),
    line("member remove {member}"),
    line("member remove {member}"),
    line("member remove"),
    line("member list"),
    line("move-leader"),
    line("move-leader zz"),
    line("alarm disarm"),
    line("alarm disarm x"),
    line("defrag"),
    line("snapshot save"),
    line("compaction"),
    line("make-mirror"),
    line("txn x"),
    line("txn", b""),
    line("txn", b"bad\n\n\n\n"),
    line("txn", b'nosuch("a") = "1"\n\n\n\n'),
    line("txn", b'mod("a") = "x"\n\n\n\n'),
    line("txn -i", b"\nput a b\n\n\n"),
    line("txn -w protobuf", b"\nput a b\nget a\ndel a\n\n\n"),
    line("get a -w nosuch"),
    line("get a --rev"),
    line("get a --rev=x"),
    line("get a --limit=99999999999999999999"),
    line("get a --prefix=maybe"),
    line("get -z"),
    line("get --nosuch"),
    line("get a -w"),
    line("--nosuch get a"),
    line("get a --dial-timeout=5"),
    line("get a --dial-timeout=x"),
    line("get a --cert="),
    line("get a -w protobuf"),
    line("put a b -w protobuf"),
    line("del a -w protobuf"),
    line("del a -w json"),
    line("member list -w protobuf"),
    line("lease grant 5 -w protobuf"),
    line("endpoint status -w protobuf"),
    line("mem l"),
    line("alar li"),
    line("l g 5"),
    line("gte a"),
]

SESSIONS: Final = {
    "data": DATA,
    "cluster": CLUSTER,
    "leases": LEASES,
    "watches": WATCHES,
    "locks": LOCKS,
    "auth": AUTH,
    "members": MEMBERS,
}


# --- differences of version --------------------------------------------------------------------
#
# Each has the name of what changed between 3.5 and 3.7 and a function that takes it out of an
# output, of the original's or of ours. Everything else must be equal to the byte.

Change = Callable[[list[str], bytes], bytes]


def _error_lines_only(words: list[str], err: bytes) -> bytes:
    kept = [each for each in err.split(b"\n") if each.startswith(b"Error: ")]
    return b"\n".join(kept[:1])


def bad_command_lines_are_told_once(words: list[str], err: bytes) -> bytes:
    """3.5 prints the usage and the error twice, 3.7 the error and another usage page."""
    wrong = (b"unknown", b"invalid argument", b"flag needs", b"bad flag")
    first = _error_lines_only(words, err)
    return first if any(word in first for word in wrong) else err


def log_lines_are_no_output(words: list[str], err: bytes) -> bytes:
    """Lines of the logger (JSON) tell times and places in the program."""
    return b"".join(each for each in err.splitlines(True) if not each.startswith(b'{"level"'))


def range_deletes_ask_for_the_flag(words: list[str], err: bytes) -> bytes:
    """Since 3.6 a del of a range without --range warns and waits."""
    if words[0] != "del":
        return err
    return b"".join(each for each in err.splitlines(True) if not each.startswith(b"Warning: "))


def headers_hide_revision_zero(words: list[str], out: bytes) -> bytes:
    """Since 3.6 the fields form leaves a revision of zero out."""
    return re.sub(rb'"Revision" : 0\n', b"", out)


def status_has_more_fields(words: list[str], out: bytes) -> bytes:
    """Since 3.6 endpoint status tells storage version, sizes, quota and downgrades."""
    if words[:2] != ["endpoint", "status"]:
        return out
    new = rb'"(StorageVersion|DBSizeInUse|DBSizeQuota|DowngradeTargetVersion|DowngradeEnabled)"'
    out = re.sub(new + rb" : .*\n", b"", out)
    rows = []
    for row in out.split(b"\n"):
        cells = row.split(b", ")
        if len(cells) == 16:
            cells = [*cells[:3], cells[4], *cells[8:14]]
        rows.append(b", ".join(cells))
    return b"\n".join(rows)


def hashes_have_their_revision(words: list[str], out: bytes) -> bytes:
    """Since 3.6 endpoint hashkv tells the revision of the hash."""
    if words[:2] != ["endpoint", "hashkv"]:
        return out
    out = re.sub(rb',"hash_revision":\d+', b"", out)
    out = re.sub(rb'"HashRevision" : .*\n', b"", out)
    return re.sub(rb"^(\S+, \d+), \d+$", rb"\1", out, flags=re.M)


def tables_have_other_frames(words: list[str], out: bytes) -> bytes:
    """Since 3.7 tables are drawn with box characters; endpoint status has more columns."""
    if "table" not in words:
        return out
    rows = []
    for row in out.decode().splitlines():
        if row.startswith(("|", "│")):
            cells = [cell.strip() for cell in re.split("[|│]", row)[1:-1]]
            if len(cells) == 16:
                cells = [*cells[:3], cells[4], *cells[8:14]]
            if words[:2] == ["endpoint", "hashkv"]:
                cells = cells[:2]  # without the revision of the hash
            rows.append(", ".join(cells))
    return "\n".join(rows).encode() or out


def canceled_watches_say_why(words: list[str], out: bytes) -> bytes:
    """Since 3.6 the JSON of a watch has its CancelReason."""
    return re.sub(rb',"CancelReason":"[^"]*"', b"", out)


def defragmentation_tells_its_time(words: list[str], out: bytes) -> bytes:
    """Since 3.6 defrag tells how long it took."""
    return re.sub(rb"(Finished defragmenting etcd member\[\S+\])\. took .*", rb"\1", out)


def hexadecimal_members_have_client_urls(words: list[str], out: bytes) -> bytes:
    """3.5 misspells the key in the JSON of member list --hex; since 3.6 all ids are text."""
    return out.replace(b'"clientURLS":', b'"clientURLs":')


def root_role_shows_all_keys(words: list[str], out: bytes) -> bytes:
    """Since 3.6 role get shows that the role root may do everything."""
    return out.replace(b"\t[, <open ended>\n", b"") if words[:3] == ["role", "get", "root"] else out


def learners_are_added_as_such(words: list[str], out: bytes) -> bytes:
    """Since 3.6 member add --learner says that the member is a learner."""
    return out.replace(b" added as learner to ", b" added to ")


def versions_are_their_own(words: list[str], out: bytes) -> bytes:
    """The version of the API is 3.5 there and 3.7 here."""
    return re.sub(rb"API version: 3\.\d+", b"API version: V", out)


def members_to_add_come_in_any_order(words: list[str], out: bytes) -> bytes:
    """The initial cluster lists members in the order of their ids."""
    found = re.search(rb'ETCD_INITIAL_CLUSTER="(.*)"', out)
    if not found:
        return out
    members = b",".join(sorted(found[1].split(b",")))
    return out.replace(found[1], members)


def help_pages_are_ours(words: list[str], out: bytes) -> bytes:
    """The pages of help have another layout since 3.7, and words of their own here."""
    return b"" if out.startswith((b"NAME:", b"Usage:")) or b"\nUsage:\n" in out else out


OUT_CHANGES: Final[list[Change]] = [
    help_pages_are_ours,
    versions_are_their_own,
    members_to_add_come_in_any_order,
    headers_hide_revision_zero,
    status_has_more_fields,
    hashes_have_their_revision,
    tables_have_other_frames,
    canceled_watches_say_why,
    defragmentation_tells_its_time,
    hexadecimal_members_have_client_urls,
    root_role_shows_all_keys,
    learners_are_added_as_such,
]


def saving_names_its_argument(words: list[str], err: bytes) -> bytes:
    """Since 3.6 snapshot save says what its argument is."""
    return err.replace(b"expects one argument <filename>", b"expects one argument")


def failed_defragmentation_tells_its_time(words: list[str], err: bytes) -> bytes:
    """Since 3.6 defrag tells how long its failure took."""
    return re.sub(rb"(Failed to defragment etcd member\[\S+\])\. took \S+\. ", rb"\1 ", err)


ERR_CHANGES: Final[list[Change]] = [
    failed_defragmentation_tells_its_time,
    saving_names_its_argument,
    log_lines_are_no_output,
    range_deletes_ask_for_the_flag,
    bad_command_lines_are_told_once,
]
