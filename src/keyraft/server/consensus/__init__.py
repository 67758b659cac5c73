"""Driving Raft: proposals, Ready to disk and network, read index, leadership."""
