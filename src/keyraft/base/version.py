"""The etcd version that Keyraft reports, and what the version commands print beside it."""

from __future__ import annotations

import sys
from typing import Final

VERSION: Final = "3.7.1"
"""The etcd version whose behaviour this is."""
MIN_CLUSTER_VERSION: Final = "3.0.0"
GIT_SHA: Final = "keyraft"


def runtime_version() -> str:
    """The Python version, where the original prints its Go version."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"


def platform_name() -> str:
    """Operating system and architecture as Go spells them: "linux/amd64"."""
    import platform  # not needed at a start

    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{platform.system().lower()}/{machine}"
