"""Header blocks written by other encoders: each must decode to the headers it stands for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from keyraft.grpc.http2.hpack import HpackDecoder, HpackEncoder

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "hpack"
FOLDER = Path(os.environ.get("HPACK_TESTDATA") or _BESIDE)
STORIES = sorted(FOLDER.glob("*/story_*.json")) or sorted(FOLDER.glob("story_*.json"))

pytestmark = pytest.mark.skipif(not STORIES, reason=f"no HPACK stories under {FOLDER}")


@pytest.mark.parametrize("story", STORIES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_story_decodes_to_its_headers(story: Path) -> None:
    cases = json.loads(story.read_text())["cases"]
    decoder, encoder, again = (
        HpackDecoder(1 << 24),
        HpackEncoder(frozenset((b"user-agent",))),
        HpackDecoder(1 << 24),
    )
    for case in cases:
        if "header_table_size" in case:
            decoder.allowed_bytes = case["header_table_size"]
        expected = [
            (name.encode(), value.encode())
            for item in case["headers"]
            for name, value in item.items()
        ]
        assert decoder.decode(bytes.fromhex(case["wire"])) == expected, case["seqno"]
        decoder.table.check()
        assert again.decode(encoder.encode(expected)) == expected
        assert again.table.entries == encoder.table.entries
