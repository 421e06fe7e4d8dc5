"""Limits: what the configuration's defaults promise is what an engine without a configuration does."""

from __future__ import annotations

from appid.edge.config import Config
from appid.engine.limits import Limits


def test_the_files_defaults_are_within_the_engines() -> None:
    config, limits = Config(), Limits()
    assert (config.max_flows, config.max_calls) == (limits.flows, limits.calls)
    assert (config.max_calls_per_host, config.max_calls_per_remote) == (limits.calls_per_host, limits.calls_per_remote)
    assert config.max_pinholes <= limits.pinholes, "the kernel's set has room for no more"
    assert config.max_pinholes_per_host == limits.pinholes_per_host
