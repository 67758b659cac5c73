"""Flags, environment and file, to one frozen configuration, or the reason why there is none."""
