"""The gRPC proxy's members by SRV records, as the gateway's."""

from __future__ import annotations

import asyncio

import pytest

from keyraft.base.log import NullLogger
from keyraft.net import SRVRecord
from keyraft.proxy.grpcproxy.options import OptionError
from keyraft.proxy.grpcproxy.run import discovered
from tests.support.names import FixedNames
from tests.support.proxies import options

NAMES = FixedNames({"_etcd-client-n._tcp.x": [SRVRecord("m1.x.", 2379), SRVRecord("m2.x.", 2379)]})


def endpoints(names: FixedNames, **flags: object) -> tuple[str, ...]:
    given = options(discovery_srv="x", endpoints=("given:1",), **flags)
    return asyncio.run(discovered(given, NullLogger(), names)).endpoints


def test_discovered_endpoints_take_the_place_of_the_given_ones() -> None:
    found = endpoints(NAMES, discovery_srv_name="n", insecure_discovery=True)
    assert found == ("http://m1.x.:2379", "http://m2.x.:2379")


def test_where_only_insecure_ones_are_found_the_given_ones_stay() -> None:
    assert endpoints(NAMES, discovery_srv_name="n") == ("given:1",)


def test_without_records_the_proxy_does_not_start() -> None:
    with pytest.raises(OptionError, match="dns lookup errors: lookup "):
        endpoints(NAMES)
