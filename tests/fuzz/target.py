"""What a harness is: bytes in, and nothing out but the parser's declared errors.

A harness swallows the errors that its parser declares. Whatever else comes out of it is a finding:
another exception, a check of an invariant that fails, an answer that contradicts another, time or
memory out of proportion to the input (`limits.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

KEPT = Path(__file__).parent / "kept"
"""A folder a target: inputs that once broke something. Each is run with every test run."""


@dataclass(frozen=True)
class Target:
    """A parser under test.

    `once` runs one input. `seeds` come from our own encoders, or are written by hand; `words` are
    spliced into inputs. `grown` are families of inputs of n units that ask whether the work grows
    with the input and not faster.
    """

    name: str
    once: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    bytes_max: int = 4096
    grown: Mapping[str, Callable[[int], bytes]] = field(default_factory=dict)
    held_bytes: int = 1 << 20  # the parser's own, whatever the input
    held_per_byte: int = 200
    seconds: float = 0.25  # for one input: the parser's own, and what a collection may add
    seconds_per_byte: float = 20e-6

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """Inputs of past findings, by file name."""
        folder = KEPT / self.name
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                yield path.name, path.read_bytes()


class Choices(random.Random):
    """Chance that is read from an input: a fuzzer that changes the bytes changes the choices.

    When the bytes are used up it always chooses zero, and `over` says so.
    """

    def __new__(cls, data: bytes) -> Choices:
        return super().__new__(cls)

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        return self._at >= len(self._data)

    def rest(self) -> bytes:
        """What was not chosen from yet, as it is."""
        rest, self._at = self._data[self._at :], len(self._data)
        return rest

    def take(self, size: int) -> bytes:
        """Bytes as they are; fewer at the end."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def getrandbits(self, k: int, /) -> int:
        size = (k + 7) // 8
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big") >> (8 * size - k)

    def random(self) -> float:
        return self.getrandbits(8) / 256


def mutate(chance: random.Random, data: bytes, words: tuple[bytes, ...], bytes_max: int) -> bytes:
    """A few bytes flipped, dropped, doubled, replaced by what breaks parsers, or by words."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(7)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del changed[at : at + chance.randrange(1, 9)]
        elif kind == 2:
            changed[at:at] = changed[at : at + chance.randrange(1, 40)]
        elif kind == 3 and words:
            changed[at:at] = chance.choice(words)
        elif kind == 4:
            odd = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"\xff" * 8, b"\0" * 8))
            changed[at : at + len(odd)] = odd
        elif kind == 5:
            changed[at:] = b""
        else:
            changed[at:at] = chance.randbytes(chance.randrange(1, 9))
    return bytes(changed[:bytes_max])


def inputs(target: Target, seed: int, count: int) -> Iterator[bytes]:
    """The seeds, then `count` inputs made of them; the same ones for the same seed."""
    seeds = list(target.seeds())
    yield from seeds
    chance = random.Random(seed)
    for _ in range(count):
        data = chance.choice(seeds) if seeds else b""
        if chance.random() < 0.1:
            cut, other = chance.randrange(len(data) + 1), chance.choice(seeds) if seeds else b""
            data = data[:cut] + other[chance.randrange(len(other) + 1) :]
        yield mutate(chance, data, target.words, target.bytes_max)
