"""Revisions, key index, store, watch groups. Pure."""
