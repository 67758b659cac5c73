"""What clients ask over plain HTTP: `/health`, `/version`, `/metrics`.

It knows the port (its router, its guard, its traffic). Of the member behind the port it knows only
`Health` and the sources of metrics.
"""

from keyraft.gateway.checks import Health, HealthCounts
from keyraft.gateway.exposition import COUNTER, GAUGE, HISTOGRAM, Family, Source, histograms, render
from keyraft.gateway.metrics import HandlingTime, PortMetrics, call_counters
from keyraft.gateway.process import ProcessFamilies
from keyraft.gateway.routes import Gateway, JsonTerms

__all__ = [
    "COUNTER",
    "GAUGE",
    "HISTOGRAM",
    "Family",
    "Gateway",
    "HandlingTime",
    "Health",
    "HealthCounts",
    "JsonTerms",
    "PortMetrics",
    "ProcessFamilies",
    "Source",
    "call_counters",
    "histograms",
    "render",
]
