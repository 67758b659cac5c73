"""The three families of scripts and what runs each: interaction, confchange, quorum.

A script's family is known by its commands, so that scripts may lie in any folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keyraft.raft import describe
from keyraft.raft.confchange import Changer
from keyraft.raft.errors import ConfChangeError
from keyraft.raft.quorum import EVERYTHING, AckedIndex, JointConfig, majority_committed
from keyraft.raft.tracker import ProgressTracker, format_progress
from sim.raft import datadriven
from sim.raft.datadriven import ScriptCommand
from sim.raft.interaction import Environment

_INFLIGHT_MAX = 10
_VOTES = {"y": 2, "n": 1, "_": 0}


class ConfChangeScript:
    """Changes one configuration after another; each command counts as one more log entry."""

    def __init__(self) -> None:
        self.tracker = ProgressTracker(_INFLIGHT_MAX)
        self.last_index = 0

    def handle(self, case: ScriptCommand) -> str:
        changer = Changer(self.tracker, self.last_index)
        self.last_index += 1
        try:
            changes = describe.parse_conf_changes(case.input)
            if case.command == "simple":
                result = changer.simple(changes)
            elif case.command == "enter-joint":
                auto_leave = bool(case.arguments) and case.value("autoleave") == "true"
                result = changer.enter_joint(auto_leave, changes)
            elif case.command == "leave-joint":
                if changes:
                    raise ConfChangeError("this command takes no input")
                result = changer.leave_joint()
            else:
                return "unknown command"
        except (ConfChangeError, ValueError) as error:
            return f"{error}\n"
        self.tracker.switch_to(*result)
        return f"{self.tracker.config}\n{format_progress(self.tracker.progress)}"


class QuorumScript:
    """Committed index and vote result, worked out in more than one way."""

    def handle(self, case: ScriptCommand) -> str:
        ids: list[int] = []
        joint_ids: list[int] = []
        is_joint = False
        numbers: list[int] = []
        for argument in case.arguments:
            for value in argument.values:
                if argument.key == "cfg":
                    ids.append(int(value))
                elif argument.key == "cfgj":
                    is_joint = True
                    if value != "zero":
                        joint_ids.append(int(value))
                elif argument.key == "idx":
                    numbers.append(0 if value == "_" else int(value))
                elif argument.key == "votes":
                    numbers.append(_VOTES[value])
                else:
                    raise ValueError(f"unknown argument {argument.key}")
        order = list(dict.fromkeys([*ids, *joint_ids]))
        if len(order) != len(numbers):
            return (
                f"error: mismatched input (explicit or _) for voters "
                f"map[{' '.join(f'{voter}:{{}}' for voter in sorted(order))}]: "
                f"[{' '.join(map(str, numbers))}]"
            )
        known = {voter: number for voter, number in zip(order, numbers) if number}
        config = JointConfig(ids, joint_ids)
        if case.command == "committed":
            if is_joint:
                return self._joint_committed(config, known.get)
            return self._committed(config, known)
        if case.command == "vote":
            return self._vote(config, {voter: number != 1 for voter, number in known.items()})
        raise ValueError(f"unknown command: {case.command}")

    def _committed(self, config: JointConfig, known: dict[int, int]) -> str:
        voters = config.incoming
        index = majority_committed(voters, known.get)
        out = [describe.describe_acked(config, known.get)]
        alternatives = {
            "via alternative computation": dumb_committed(voters, known),
            "via zero-joint quorum": JointConfig(voters).committed(known.get),
            "via self-joint quorum": JointConfig(voters, voters).committed(known.get),
        }
        for name, other in alternatives.items():
            if other != index:
                out.append(f"{describe.describe_index(other)} <-- {name}\n")
        for voter in sorted(voters):
            # Whoever is already behind what is committed may be further behind.
            if 0 < known.get(voter, 0) < index:
                for lower in (known[voter] - 1, 0):
                    other = majority_committed(voters, {**known, voter: lower}.get)
                    if other != index:
                        out.append(f"{other} <-- overlaying {voter}->{lower}")
        return f"{''.join(out)}{describe.describe_index(index)}\n"

    def _joint_committed(self, config: JointConfig, acked: AckedIndex) -> str:
        index = config.committed(acked)
        out = [describe.describe_acked(config, acked)]
        mirrored = JointConfig(config.outgoing, config.incoming).committed(acked)
        if mirrored != index:
            out.append(f"{describe.describe_index(mirrored)} <-- via symmetry\n")
        return f"{''.join(out)}{describe.describe_index(index)}\n"

    def _vote(self, config: JointConfig, votes: dict[int, bool]) -> str:
        result = config.vote_result(votes)
        out = [f"{result}\n"]
        mirrored = JointConfig(config.outgoing, config.incoming).vote_result(votes)
        if mirrored != result:
            out.insert(0, f"{mirrored} <-- via symmetry\n")
        return "".join(out)


def dumb_committed(voters: set[int], known: dict[int, int]) -> int:
    """The committed index by counting, for each index, who has reached it."""
    if not voters:
        return EVERYTHING
    best = 0
    for index in known.values():
        reached = sum(1 for voter in voters if known.get(voter, 0) >= index)
        if 2 * reached > len(voters):
            best = max(best, index)
    return best


def _handler(path: Path) -> Callable[[ScriptCommand], str]:
    commands = {case.command for case in datadriven.parse(path.read_text(encoding="utf-8"))}
    if commands & {"simple", "enter-joint", "leave-joint"}:
        return ConfChangeScript().handle
    if commands & {"committed", "vote"}:
        return QuorumScript().handle
    return Environment().handle


def run_script(path: Path) -> list[str]:
    """What differs from the script's expected output; nothing is as it should be."""
    return datadriven.run(path, _handler(path))
