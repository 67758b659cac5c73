"""The consensus core. Pure."""
