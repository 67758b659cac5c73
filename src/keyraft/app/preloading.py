"""Loads modules that a start does not need once the member serves, so that no request waits for
them.

A thread does so, one module at a time, with a rest after each. It holds the interpreter for at most
SWITCH_INTERVAL_S before the loop gets its turn (`app.member`).
"""

from __future__ import annotations

import importlib
import threading
import time
from typing import Final

QUIET_S: Final = 1.0  # from ready to the first module: clients reconnect in this time
REST_S: Final = 0.02  # between two modules
LATER: Final = (
    "bcrypt",
    "decimal",
    "orjson",
    "wsproto.connection",
    "keyraft.app.slow_traces",
    "keyraft.gateway.json",
    "keyraft.storage.transfer.exporting",
    "keyraft.storage.transfer.importing",
)


def preload_later() -> None:
    """Starts the thread; the process does not wait for it to end."""
    threading.Thread(target=_preload, name="keyraft-preload", daemon=True).start()


def _preload() -> None:
    time.sleep(QUIET_S)
    for name in LATER:
        importlib.import_module(name)
        time.sleep(REST_S)
