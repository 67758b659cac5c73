"""Whole members in virtual time: clock, disk, network, faults, workloads and checkers.

Imported by tests only. A run is a function of its seed: every choice comes from one generator,
time moves only when nothing is left to do at the present moment, and no thread or socket exists.
"""
