"""One response of a watch, cut into messages that its client accepts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keyraft.mvcc.watch_messages import FRAGMENT, fragments

HEAD = b"head"


@given(
    sizes=st.lists(st.integers(1, 30), max_size=60) | st.lists(st.just(9), max_size=60),
    bytes_max=st.integers(10, 80),
)
def test_each_message_takes_as_many_events_as_fit(sizes: list[int], bytes_max: int) -> None:
    events = [bytes((number,)) * size for number, size in enumerate(sizes)]
    room = bytes_max - len(HEAD) - len(FRAGMENT)
    wanted: list[list[bytes]] = [[]]
    if len(HEAD) + sum(sizes) < bytes_max:
        wanted = [events]
    else:
        for event in events:
            if wanted[-1] and sum(map(len, wanted[-1])) + len(event) >= room:
                wanted.append([])
            wanted[-1].append(event)
    messages = [HEAD + FRAGMENT + b"".join(part) for part in wanted]
    messages[-1] = HEAD + b"".join(wanted[-1])
    assert fragments(HEAD, events, bytes_max) == messages
