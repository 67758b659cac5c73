"""A short run of the fuzzer; `python -m tests.grpc.fuzz` makes long ones."""

from __future__ import annotations

import pytest

from tests.grpc.fuzz import converse_with_client, converse_with_server, run


@pytest.mark.parametrize("seed", range(40))
def test_a_conversation_from_a_seed(seed: int) -> None:
    converse_with_server(seed)
    converse_with_client(seed)


@pytest.mark.soak
def test_two_minutes_of_random_conversations_break_nothing() -> None:
    conversations, _ = run(120, 7_000_000)
    assert conversations
