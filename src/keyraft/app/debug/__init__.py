"""What a running member tells of itself under /debug on its client port; loaded when asked for."""

from keyraft.app.debug.paths import DebugPaths, ProfilePaths
from keyraft.app.debug.variables import published

__all__ = ["DebugPaths", "ProfilePaths", "published"]
