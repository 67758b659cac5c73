"""Huffman coding of header strings (RFC 7541 §5.2), four bits at a step.

Decoding walks the code's tree. A table gives, for each inner node and each half byte, the node
where the walk ends and the symbol it passed; no half byte passes two, because the shortest code
has five bits. A string may end only on the path of ones, at most seven deep: that is the padding.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from .constants import HUFFMAN_LENGTHS_BITS
from .errors import HpackError

EOS: Final = 256


def _codes() -> list[int]:
    """The canonical code of every symbol."""
    codes = [0] * len(HUFFMAN_LENGTHS_BITS)
    code = previous = 0
    for length, symbol in sorted((length, s) for s, length in enumerate(HUFFMAN_LENGTHS_BITS)):
        code <<= length - previous
        previous = length
        codes[symbol] = code
        code += 1
    return codes


CODES: Final = _codes()


def _tree() -> list[list[int]]:
    """Inner nodes, the root first; a child >= 0 is a node, below zero it is -1 - symbol."""
    nodes: list[list[int]] = [[0, 0]]
    for symbol, (code, length) in enumerate(zip(CODES, HUFFMAN_LENGTHS_BITS)):
        node = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if nodes[node][bit] == 0:
                nodes.append([0, 0])
                nodes[node][bit] = len(nodes) - 1
            node = nodes[node][bit]
        nodes[node][code & 1] = -1 - symbol
    return nodes


def _steps(nodes: list[list[int]]) -> list[tuple[int, int]]:
    """Element node * 16 + half byte: (the next node * 16 or -1 for EOS, the symbol or -1)."""
    steps = []
    for start in range(len(nodes)):
        for nibble in range(16):
            node, symbol = start, -1
            for shift in (3, 2, 1, 0):
                child = nodes[node][nibble >> shift & 1]
                if child < 0:
                    symbol = -1 - child
                    if symbol == EOS:
                        break
                    child = 0
                node = child
            steps.append((-1, -1) if symbol == EOS else (node << 4, symbol))
    return steps


def _accepting(nodes: list[list[int]]) -> frozenset[int]:
    """Nodes (times 16) where a string may end: the root and up to seven ones below it."""
    accepting, node = {0}, 0
    for _ in range(7):
        node = nodes[node][1]
        accepting.add(node << 4)
    return frozenset(accepting)


@cache
def _tables() -> tuple[list[tuple[int, int]], frozenset[int]]:
    """Half-byte steps and where a string may end; made when first needed, as a program that only
    imports a client should not wait for them."""
    nodes = _tree()
    return _steps(nodes), _accepting(nodes)


# Element node << 4 | byte -> (the next node * 16 or -1, the symbols), made from two half-byte steps
# when first needed; at most 65,792 of them.
_BYTE_STEPS: Final[dict[int, tuple[int, bytes]]] = {}


def _byte_step(node: int, byte: int) -> tuple[int, bytes]:
    steps = _tables()[0]
    symbols = bytearray()
    following = node
    for nibble in (byte >> 4, byte & 15):
        following, symbol = steps[following | nibble]
        if following < 0:
            break
        if symbol >= 0:
            symbols.append(symbol)
    step = _BYTE_STEPS[node << 4 | byte] = (following, bytes(symbols))
    return step


def decode(data: bytes) -> bytes:
    """The string that `data` codes; raises HpackError on EOS inside or on wrong padding."""
    steps = _BYTE_STEPS
    out = b""
    node = 0
    for byte in data:
        step = steps.get(node << 4 | byte)
        if step is None:
            step = _byte_step(node, byte)
        node, symbols = step
        if node < 0:
            raise HpackError("the Huffman code's end-of-string symbol inside a string")
        out += symbols
    if node and node not in _tables()[1]:
        raise HpackError("a Huffman-coded string ends within a symbol")
    return out


def encoded_size(text: bytes) -> int:
    """Bytes that `encode` would give."""
    lengths = HUFFMAN_LENGTHS_BITS
    return (sum([lengths[byte] for byte in text]) + 7) >> 3


def encode(text: bytes) -> bytes:
    """`text` in the Huffman code, padded with ones."""
    bits = size = 0
    for byte in text:
        length = HUFFMAN_LENGTHS_BITS[byte]
        bits = bits << length | CODES[byte]
        size += length
    padding = -size % 8
    bits = bits << padding | (1 << padding) - 1
    return bits.to_bytes((size + padding) >> 3, "big")
