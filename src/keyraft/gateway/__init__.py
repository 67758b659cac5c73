"""The services over HTTP/1.1: `/health`, `/version`, `/metrics`."""

from keyraft.gateway.metrics import Scrape
from keyraft.gateway.routes import Gateway

__all__ = ["Gateway", "Scrape"]
