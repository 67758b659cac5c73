"""docs/JSON.md names each way in which the gateway differs from 3.5's, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tests.differential.json_compare import KNOWN

PAGE = Path(__file__).resolve().parents[2] / "docs" / "JSON.md"


def test_the_page_names_every_difference() -> None:
    rows = re.findall(r"^\| (.+?) \|", PAGE.read_text(), re.M)
    assert [row.replace("`", "") for row in rows if row not in ("change", "---")] == [
        name.replace("`", "") for name in KNOWN
    ]
