"""Fuzz harnesses for every parser of foreign bytes; README.md says how to run and to add one."""
