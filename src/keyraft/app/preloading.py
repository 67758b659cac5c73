"""What a start does without is loaded once the member serves, so that no request waits for it.

A thread of its own does it, one module at a time with a rest between: it holds the interpreter for
SWITCH_INTERVAL_S at most before the loop has its turn (`app.member`).
"""

from __future__ import annotations

import importlib
import threading
import time
from typing import Final

QUIET_S: Final = 1.0  # from ready to the first module: clients come back then
REST_S: Final = 0.02  # between two modules
LATER: Final = (
    "bcrypt",
    "decimal",
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
