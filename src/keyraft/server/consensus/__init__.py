"""Raft carried out: proposals in, Ready to disk and network, reads agreed on, leadership."""
