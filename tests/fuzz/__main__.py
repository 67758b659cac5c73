"""Runs harnesses under atheris, which looks for inputs that reach new code.

    PYTHONPATH=src:. python -m tests.fuzz                       every target for a minute
    PYTHONPATH=src:. python -m tests.fuzz wal --runs 1000000
    PYTHONPATH=src:. python -m tests.fuzz wal FILE              one input again

Inputs that reached new code are kept in `.fuzz/TARGET/corpus`; one that breaks something is
written to `.fuzz/TARGET/crash-...`. Needs the extra `fuzz`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

PLACE = Path(os.environ.get("FUZZ_PLACE", ".fuzz"))


def main() -> int:
    """The exit status: how many targets found something."""
    parser = argparse.ArgumentParser(prog="tests.fuzz")
    parser.add_argument("target", nargs="?")
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.target is None:
        return _all(given.seconds or 60)
    if given.file is not None:
        from .targets import all_targets

        all_targets()[given.target].once(given.file.read_bytes())
        return 0
    _one(given.target, given.runs, given.seconds, given.seed)
    return 0


def _all(seconds: int) -> int:
    """Each target in a process of its own."""
    from .targets import all_targets

    failed = 0
    for name in all_targets():
        command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True)
        told = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
        print(f"{name}: {told[-1] if told else 'FOUND SOMETHING'}", flush=True)
        if done.returncode:
            failed += 1
            print("\n".join(done.stderr.splitlines()[-40:]), flush=True)
    return failed


def _one(name: str, runs: int, seconds: int, seed: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["keyraft"], enable_loader_override=False):
        module = importlib.import_module("tests.fuzz.targets")
        target = module.all_targets()[name]
        seeds = list(target.seeds())
        for data in seeds:
            target.once(data)  # what is imported late is instrumented, too
    corpus = PLACE / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate([*seeds, *(data for _, data in target.kept())]):
        (corpus / f"seed-{number}").write_bytes(data)
    arguments = [
        "fuzz",
        str(corpus),
        f"-artifact_prefix={PLACE / name}/",
        f"-max_len={target.bytes_max}",
        "-rss_limit_mb=2048",
        "-timeout=20",
        "-print_final_stats=0",
    ]
    if target.words:
        book = PLACE / name / "words"
        book.write_text(
            "".join(
                '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words
            )
        )
        arguments.append(f"-dict={book}")
    if seed:
        arguments.append(f"-seed={seed}")
    if runs:
        arguments.append(f"-runs={runs}")
    if seconds or not runs:
        arguments.append(f"-max_total_time={seconds or 60}")
    once = target.once

    def run(data: bytes) -> None:
        begun = time.process_time()
        once(data)
        if time.process_time() - begun > target.seconds + target.seconds_per_byte * len(data):
            from .limits import within_time

            within_time(target, data)

    atheris.Setup(arguments, run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
