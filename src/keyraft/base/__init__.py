"""What every folder may use: identifiers, limits, the error table, waiters, histograms, protocols
for clock and random.

Import the modules: `from keyraft.base import errors`, `from keyraft.base.ids import Term`.
"""
