"""What every folder may use: identifiers, limits, the error table, waiters, histograms, clock and
chance protocols.

Import the modules: `from keyraft.base import errors`, `from keyraft.base.ids import Term`.
"""
