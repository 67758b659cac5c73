"""`--force-new-cluster`: one member of a cluster that lost its quorum continues alone.

Entries that are not known to be committed are dropped, because nobody can tell any more. Then the
log gets entries that remove all other members, as if the old cluster had agreed on them. Member id,
cluster id and keys stay. The flag is for one start only: with it, a cluster that has grown again
would be reduced to one member again (etcd `bootstrapWALFromSnapshot`, `CreateConfigChangeEnts`).
"""

from __future__ import annotations

from collections.abc import Iterable

from keyraft.base.ids import MemberID
from keyraft.base.log import Logger
from keyraft.cluster import ChangeContext, MemberRecord
from keyraft.raft import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfState,
    Entry,
    EntryType,
    HardState,
    codec,
)
from keyraft.server.membership.recovery import changed
from keyraft.shell.bootstrap import Opened

LOST_PEER_URLS = ("http://localhost:2380", "http://localhost:7001")  # etcd's, for an unknown member


def force_new_cluster(opened: Opened, log: Logger) -> None:
    """Makes a reopened member the only one of its cluster. Raises WALWriteError."""
    boot = opened.boot
    state = boot.hard_state
    commit = max(state.commit, boot.applied_index)
    kept = [entry for entry in boot.entries if entry.index <= commit]
    if len(kept) < len(boot.entries):
        log.info(
            "discarding uncommitted WAL entries",
            entry_index=boot.entries[len(kept)].index,
            commit_index_from_wal=commit,
            number_of_discarded_entries=len(boot.entries) - len(kept),
        )
    applied = boot.applied_index
    behind = (entry for entry in kept if entry.index > applied)
    voters, learners = members_after(boot.conf_state, behind)
    changes = _changes(opened, voters, learners)
    term = max(state.term, boot.snapshot.term)
    added = [
        Entry(term, index, codec.encode_conf_change(change), EntryType.CONF_CHANGE)
        for index, change in enumerate(changes, commit + 1)
    ]
    boot.entries = kept + added
    boot.hard_state = HardState(term, state.vote, commit + len(added))
    opened.wal.append(added, boot.hard_state)
    log.info(
        "forcing restart member",
        cluster_id=f"{opened.cluster_id:x}",
        local_member_id=f"{opened.member_id:x}",
        wal_commit_index=state.commit,
        commit_index=boot.hard_state.commit,
    )


def members_after(state: ConfState, entries: Iterable[Entry]) -> tuple[set[int], set[int]]:
    """Voters and learners after the changes in `entries`."""
    made = (codec.decode_conf_change(e.data) for e in entries if e.type == EntryType.CONF_CHANGE)
    after = changed(state, (ConfChangeSingle(change.type, change.node_id) for change in made))
    return set(after.voters), set(after.learners)


def _changes(opened: Opened, voters: set[int], learners: set[int]) -> list[ConfChange]:
    """The changes, this member's first: Raft refuses to have no voter."""
    own = MemberID(opened.member_id)
    changes = []
    if own not in voters:
        # DEVIATION: in etcd a learner stays a learner, and so the member never starts.
        context = ChangeContext(MemberRecord(own, LOST_PEER_URLS), is_promote=own in learners)
        changes.append(ConfChange(ConfChangeType.ADD_NODE, own, context.to_json()))
    changes += [
        ConfChange(ConfChangeType.REMOVE_NODE, other)
        for other in sorted((voters | learners) - {own})
    ]
    return changes
