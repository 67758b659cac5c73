"""A few Raft members driven step by step by a script, as etcd-io/raft's `rafttest` does it.

Everything a command causes is written down: log lines with their levels, each Ready, each message
as it is delivered. Messages wait in one list until they are delivered or dropped by name.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from keyraft.base import gotext
from keyraft.raft import (
    ConfChange,
    ConfChangeTransition,
    ConfChangeV2,
    ConfState,
    HardState,
    MemoryStorage,
    Message,
    MessageType,
    RaftConfig,
    RaftError,
    RawNode,
    ReadOnlyOption,
    Ready,
    Snapshot,
    SnapshotMeta,
    codec,
    describe,
)
from keyraft.raft.invariants import check_state
from keyraft.raft.names import message_name
from keyraft.raft.tracker import format_progress
from keyraft.raft.types import NO_LIMIT, Entry, EntryType, is_local_target
from sim.raft.datadriven import ScriptCommand

LEVELS = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE"]
_QUIET = len(LEVELS) - 1
_INFLIGHT_MAX = 2**31 - 1
_MESSAGE_TYPES = {message_name(kind): kind.value for kind in MessageType}


class ScriptError(Exception):
    """A command that failed; its text is part of the output."""


def _boolean(text: str) -> bool:
    try:
        return gotext.parse_bool(text)
    except ValueError as error:
        raise ScriptError(str(error)) from None


class ScriptOutput:
    """What a command prints, and the logger of all members."""

    def __init__(self) -> None:
        self.level = 0
        self.parts: list[str] = []

    def write(self, text: str) -> None:
        if self.level != _QUIET:
            self.parts.append(text)

    def indented(self, action: Callable[[], None]) -> None:
        """Runs `action` with its output two columns to the right."""
        outer, self.parts = self.parts, []
        try:
            action()
        finally:
            text = "".join(self.parts)
            self.parts = outer
            self.parts += [f"  {line}\n" for line in text.split("\n")[: text.count("\n")]]
            if text and not text.endswith("\n"):
                self.parts.append(f"  {text.rsplit(chr(10), 1)[-1]}\n")

    def _log(self, level: int, message: str) -> None:
        if self.level <= level:
            self.write(f"{LEVELS[level]} {message}\n")

    def debug(self, message: str, **fields: object) -> None:
        self._log(0, message)

    def info(self, message: str, **fields: object) -> None:
        self._log(1, message)

    def warn(self, message: str, **fields: object) -> None:
        self._log(2, message)

    def error(self, message: str, **fields: object) -> None:
        self._log(3, message)


class _HistoryStorage(MemoryStorage):
    """Its snapshot is always the latest state of the state machine."""

    __slots__ = ("history",)

    def __init__(self) -> None:
        super().__init__()
        self.history: list[Snapshot] = []

    def snapshot(self) -> Snapshot:
        return self.history[-1]


@dataclass(slots=True)
class ScriptMember:
    """A member with its storage, its state machine's history, and the work of its threads."""

    raw: RawNode
    storage: _HistoryStorage
    config: RaftConfig
    append_work: list[Message] = field(default_factory=list)
    apply_work: list[Message] = field(default_factory=list)


class Environment:
    """All members of one script and the messages between them."""

    def __init__(self) -> None:
        self.nodes: list[ScriptMember] = []
        self.messages: list[Message] = []
        self.output = ScriptOutput()

    def handle(self, case: ScriptCommand) -> str:
        """Runs one command and returns its output, "ok" when it printed nothing."""
        output = self.output
        output.parts = []
        error = ""
        try:
            command = _COMMANDS.get(case.command)
            if command is None:
                raise ScriptError("unknown command")
            command(self, case)
        except (ScriptError, RaftError, ValueError) as failure:
            error = str(failure)
        for node in self.nodes:
            check_state(node.raw.raft)
        if error and output.level == _QUIET:
            return error
        text = "".join(output.parts) + error
        return text or "ok"

    def _first(self, case: ScriptCommand) -> ScriptMember:
        return self.nodes[int(case.arguments[0].key) - 1]

    def _chosen(self, case: ScriptCommand) -> list[int]:
        return [int(key) - 1 for key in case.plain()]

    def _each(self, case: ScriptCommand, what: str, action: Callable[[int], None]) -> None:
        chosen = self._chosen(case)
        for position in chosen:
            if len(chosen) > 1:
                self.output.write(f"> {position + 1} {what}\n")
                self.output.indented(lambda position=position: action(position))  # type: ignore[misc]
            else:
                action(position)

    # --- members ----------------------------------------------------------------------------

    def add_nodes(self, case: ScriptCommand) -> None:
        state = ConfState()
        snapshot = Snapshot(meta=SnapshotMeta(state))
        config = RaftConfig(
            id=1,
            random=random.Random(0),
            election_ticks=3,
            heartbeat_ticks=1,
            inflight_messages_max=_INFLIGHT_MAX,
            logger=self.output,
        )
        for argument in case.arguments[1:]:
            for value in argument.values:
                config = self._node_option(config, snapshot, argument.key, value)
        empty = Snapshot(meta=SnapshotMeta(ConfState()))
        for _ in range(int(case.arguments[0].key)):
            storage = _HistoryStorage()
            if snapshot != empty:
                if snapshot.meta.index <= 1:
                    raise ScriptError("index must be specified as > 1 due to bootstrap")
                snapshot.meta.term = 1
                storage.apply_snapshot(snapshot)
            storage.history.append(snapshot)
            own = replace(config, id=len(self.nodes) + 1)
            self.nodes.append(ScriptMember(RawNode(own, storage), storage, own))

    def _node_option(
        self, config: RaftConfig, snapshot: Snapshot, key: str, value: str
    ) -> RaftConfig:
        if key == "voters":
            snapshot.meta.conf_state.voters.append(int(value))
        elif key == "learners":
            snapshot.meta.conf_state.learners.append(int(value))
        elif key == "index":
            snapshot.meta.index = int(value)
            return replace(config, applied=int(value))
        elif key == "content":
            snapshot.data = value.encode()
        elif key == "inflight":
            return replace(config, inflight_messages_max=int(value))
        elif key == "async-storage-writes":
            return replace(config, async_storage_writes=_boolean(value))
        elif key == "prevote":
            return replace(config, pre_vote=_boolean(value))
        elif key == "checkquorum":
            return replace(config, check_quorum=_boolean(value))
        elif key == "max-committed-size-per-ready":
            return replace(config, committed_size_max=int(value))
        elif key == "disable-conf-change-validation":
            return replace(config, disable_conf_change_validation=_boolean(value))
        elif key == "step-down-on-removal":
            return replace(config, step_down_on_removal=_boolean(value))
        elif key == "read-only":
            options = {"safe": ReadOnlyOption.SAFE, "lease-based": ReadOnlyOption.LEASE_BASED}
            if value not in options:
                raise ScriptError(f'invalid read-only option "{value}"')
            return replace(config, read_only=options[value])
        return config

    # --- asking a member for something ------------------------------------------------------

    def campaign(self, case: ScriptCommand) -> None:
        self._first(case).raw.campaign()

    def propose(self, case: ScriptCommand) -> None:
        self._first(case).raw.propose([case.arguments[1].key.encode()])

    def propose_conf_change(self, case: ScriptCommand) -> None:
        transitions = {
            "auto": ConfChangeTransition.AUTO,
            "implicit": ConfChangeTransition.JOINT_IMPLICIT,
            "explicit": ConfChangeTransition.JOINT_EXPLICIT,
        }
        is_v1 = False
        transition = ConfChangeTransition.AUTO
        for argument in case.arguments[1:]:
            for value in argument.values:
                if argument.key == "v1":
                    is_v1 = _boolean(value)
                elif argument.key == "transition":
                    if value not in transitions:
                        raise ScriptError(f"unknown transition {value}")
                    transition = transitions[value]
                else:
                    raise ScriptError(f"unknown command {argument.key}")
        changes = describe.parse_conf_changes(case.input)
        node = self._first(case).raw
        if not is_v1:
            node.propose_conf_change(ConfChangeV2(changes, transition.value))
            return
        if len(changes) > 1 or transition != ConfChangeTransition.AUTO:
            raise ScriptError("v1 conf change can only have one operation and no transition")
        node.propose_conf_change(ConfChange(changes[0].type, changes[0].node_id))

    def transfer_leadership(self, case: ScriptCommand) -> None:
        self.nodes[int(case.value("from")) - 1].raw.transfer_leader(int(case.value("to")))

    def forget_leader(self, case: ScriptCommand) -> None:
        self._first(case).raw.forget_leader()

    def report_unreachable(self, case: ScriptCommand) -> None:
        chosen = self._chosen(case)
        if len(chosen) != 2:
            raise ScriptError(
                "must specify exactly two node indexes: node on which to report, and reported node"
            )
        self.nodes[chosen[0]].raw.report_unreachable(chosen[1] + 1)

    def send_snapshot(self, case: ScriptCommand) -> None:
        source, target = self._chosen(case)
        node = self.nodes[source]
        message = Message(
            MessageType.SNAP.value,
            to=target + 1,
            from_=source + 1,
            term=node.raw.raft.term,
            snapshot=node.storage.snapshot(),
        )
        self.messages.append(message)
        self.output.write(describe.describe_message(message))

    def compact(self, case: ScriptCommand) -> None:
        self._first(case).storage.compact(int(case.arguments[1].key))
        self.raft_log(case)

    def tick_election(self, case: ScriptCommand) -> None:
        node = self._first(case)
        for _ in range(node.config.election_ticks):
            node.raw.tick()

    def tick_heartbeat(self, case: ScriptCommand) -> None:
        node = self._first(case)
        for _ in range(node.config.heartbeat_ticks):
            node.raw.tick()

    def set_randomized_election_timeout(self, case: ScriptCommand) -> None:
        timeout = int(case.value("timeout"))
        assert timeout, "a timeout of zero ticks"
        self._first(case).raw.raft.randomized_election_timeout = timeout

    # --- showing ----------------------------------------------------------------------------

    def log_level(self, case: ScriptCommand) -> None:
        self._set_level(case.arguments[0].key)

    def _set_level(self, name: str) -> None:
        if name.upper() not in LEVELS:
            raise ScriptError(f"log levels must be either of [{' '.join(LEVELS)}]")
        self.output.level = LEVELS.index(name.upper())

    def raft_log(self, case: ScriptCommand) -> None:
        storage = self._first(case).storage
        first, last = storage.first_index(), storage.last_index()
        if last < first:
            self.output.write(f"log is empty: first index={first}, last index={last}")
            return
        entries = storage.entries(first, last + 1, NO_LIMIT)
        self.output.write(describe.describe_entries(entries))

    def raft_state(self, case: ScriptCommand) -> None:
        for node in self.nodes:
            status = node.raw.status()
            voter = "(Voter)" if status.id in status.config.voters.ids() else "(Non-Voter)"
            self.output.write(
                f"{status.id}: {status.soft_state.state} {voter} "
                f"Term:{status.hard_state.term} Lead:{status.soft_state.lead}\n"
            )

    def status(self, case: ScriptCommand) -> None:
        self.output.write(format_progress(self._first(case).raw.status().progress))

    # --- carrying out a member's work -------------------------------------------------------

    def process_ready(self, case: ScriptCommand) -> None:
        self._each(case, "handling Ready", self._process_ready)

    def _process_ready(self, position: int) -> None:
        node = self.nodes[position]
        ready: Ready = node.raw.ready()
        self.output.write(describe.describe_ready(ready))
        is_async = node.config.async_storage_writes
        if not is_async:
            self._write(node, ready.hard_state, ready.entries, ready.snapshot)
            self._apply(node, ready.committed_entries)
        for message in ready.messages:
            if not is_local_target(message.to):
                self.messages.append(message)
            elif message.type == MessageType.STORAGE_APPEND:
                node.append_work.append(message)
            else:
                node.apply_work.append(message)
        if not is_async:
            node.raw.advance()

    def process_append_thread(self, case: ScriptCommand) -> None:
        self._each(case, "processing append thread", self._process_append)

    def _process_append(self, position: int) -> None:
        node = self.nodes[position]
        if not node.append_work:
            self.output.write("no append work to perform")
            return
        message = node.append_work.pop(0)
        responses, message.responses = message.responses, []
        self.output.write(f"Processing:\n{describe.describe_message(message)}\n")
        state = HardState(message.term, message.vote, message.commit)
        self._write(node, state, message.entries, message.snapshot)
        self._deliver_responses(responses)

    def process_apply_thread(self, case: ScriptCommand) -> None:
        self._each(case, "processing apply thread", self._process_apply)

    def _process_apply(self, position: int) -> None:
        node = self.nodes[position]
        if not node.apply_work:
            self.output.write("no apply work to perform")
            return
        message = node.apply_work.pop(0)
        responses, message.responses = message.responses, []
        self.output.write(f"Processing:\n{describe.describe_message(message)}\n")
        self._apply(node, message.entries)
        self._deliver_responses(responses)

    def _deliver_responses(self, responses: list[Message]) -> None:
        self.output.write("Responses:\n")
        for response in responses:
            self.output.write(f"{describe.describe_message(response)}\n")
        self.messages += responses

    def _write(
        self,
        node: ScriptMember,
        state: HardState | None,
        entries: list[Entry],
        snapshot: Snapshot | None,
    ) -> None:
        if state is not None and not state.is_empty():
            node.storage.set_hard_state(state)
        if snapshot is not None and not snapshot.is_empty():
            if entries:
                raise ScriptError("can't apply snapshot and entries at the same time")
            node.storage.apply_snapshot(snapshot)
            return
        node.storage.append(entries)

    def _apply(self, node: ScriptMember, entries: list[Entry]) -> None:
        """A state machine that appends every entry's data to its state."""
        for entry in entries:
            change: ConfChange | ConfChangeV2 | None = None
            update = entry.data
            if entry.type == EntryType.CONF_CHANGE:
                change = codec.decode_conf_change(entry.data)
            elif entry.type == EntryType.CONF_CHANGE_V2:
                change = codec.decode_conf_change_v2(entry.data)
            last = node.storage.history[-1]
            state = last.meta.conf_state
            if change is not None:
                update = change.context
                state = node.raw.apply_conf_change(change)
            node.storage.history.append(
                Snapshot(last.data + update, SnapshotMeta(state, entry.index, entry.term))
            )

    # --- delivering -------------------------------------------------------------------------

    def deliver_msgs(self, case: ScriptCommand) -> None:
        type_: int | None = None
        recipients: list[tuple[int, bool]] = []
        for argument in case.arguments:
            if not argument.values:
                recipients.append((int(argument.key), False))
            for value in argument.values:
                if argument.key == "drop":
                    assert (int(value), False) not in recipients, "both delivered and dropped"
                    recipients.append((int(value), True))
                elif argument.key == "type":
                    type_ = _MESSAGE_TYPES[value]
        count = sum(self._deliver(to, type_, drop) for to, drop in recipients)
        if not count:
            self.output.write("no messages\n")

    def _split(self, to: int, type_: int | None, drop: bool) -> tuple[list[Message], list[Message]]:
        chosen: list[Message] = []
        rest: list[Message] = []
        for message in self.messages:
            # What a member tells itself is never lost.
            is_local = (
                message.from_ == message.to
                or is_local_target(message.from_)
                or is_local_target(message.to)
            )
            is_chosen = (
                message.to == to
                and not (drop and is_local)
                and (type_ is None or message.type == type_)
            )
            (chosen if is_chosen else rest).append(message)
        return chosen, rest

    def _deliver(self, to: int, type_: int | None, drop: bool) -> int:
        chosen, self.messages = self._split(to, type_, drop)
        for message in chosen:
            prefix = "dropped: " if drop else ""
            self.output.write(f"{prefix}{describe.describe_message(message)}\n")
            if drop:
                continue
            try:
                self.nodes[message.to - 1].raw.step(message)
            except RaftError as error:
                self.output.write(f"{error}\n")
        return len(chosen)

    def stabilize(self, case: ScriptCommand) -> None:
        level = self.output.level
        for argument in case.arguments:
            for value in argument.values:
                if argument.key == "log-level":
                    self._set_level(value)
        try:
            chosen = self._chosen(case) or list(range(len(self.nodes)))
            while self._stabilize_once(chosen):
                pass
        finally:
            self.output.level = level

    def _stabilize_once(self, chosen: list[int]) -> bool:
        output = self.output
        worked = False
        for position in chosen:
            if self.nodes[position].raw.has_ready():
                output.write(f"> {position + 1} handling Ready\n")
                output.indented(lambda p=position: self._process_ready(p))  # type: ignore[misc]
                worked = True
        for position in chosen:
            if self._split(position + 1, None, False)[0]:
                output.write(f"> {position + 1} receiving messages\n")
                output.indented(lambda p=position: self._deliver(p + 1, None, False))  # type: ignore[misc, arg-type]
                worked = True
        for position in chosen:
            if self.nodes[position].append_work:
                output.write(f"> {position + 1} processing append thread\n")
                while self.nodes[position].append_work:
                    output.indented(lambda p=position: self._process_append(p))  # type: ignore[misc]
                worked = True
        for position in chosen:
            if self.nodes[position].apply_work:
                output.write(f"> {position + 1} processing apply thread\n")
                while self.nodes[position].apply_work:
                    output.indented(lambda p=position: self._process_apply(p))  # type: ignore[misc]
                worked = True
        return worked

    def breakpoint(self, case: ScriptCommand) -> None:
        """A place to stop at in a long script."""


_COMMANDS: dict[str, Callable[[Environment, ScriptCommand], None]] = {
    "_breakpoint": Environment.breakpoint,
    "add-nodes": Environment.add_nodes,
    "campaign": Environment.campaign,
    "compact": Environment.compact,
    "deliver-msgs": Environment.deliver_msgs,
    "process-ready": Environment.process_ready,
    "process-append-thread": Environment.process_append_thread,
    "process-apply-thread": Environment.process_apply_thread,
    "log-level": Environment.log_level,
    "raft-log": Environment.raft_log,
    "raft-state": Environment.raft_state,
    "set-randomized-election-timeout": Environment.set_randomized_election_timeout,
    "stabilize": Environment.stabilize,
    "status": Environment.status,
    "tick-election": Environment.tick_election,
    "tick-heartbeat": Environment.tick_heartbeat,
    "transfer-leadership": Environment.transfer_leadership,
    "forget-leader": Environment.forget_leader,
    "send-snapshot": Environment.send_snapshot,
    "propose": Environment.propose,
    "propose-conf-change": Environment.propose_conf_change,
    "report-unreachable": Environment.report_unreachable,
}
