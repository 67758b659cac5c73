"""Raft groups without members around them: scripted and random conversations."""
