"""What every test process needs before it starts others."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# No example is judged by how fast the machine was at that moment.
settings.register_profile("keyraft", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("keyraft")

# A run in the background of a shell inherits an ignored SIGINT and would pass it on to the tools
# that tests interrupt; a handler of our own is set back to the default in every process started.
signal.signal(signal.SIGINT, signal.default_int_handler)
