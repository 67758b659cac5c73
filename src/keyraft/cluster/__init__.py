"""Members and versions. Pure."""
