"""Fixtures of the kernel tests: a net for each test, removed whatever happens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appid.dataplane.ruleset import Variant
from tests.netns.net import Net, net
from tests.netns.playbook import install


@pytest.fixture(params=["nft", "legacy"])
def variant(request: pytest.FixtureRequest) -> Variant:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def bare() -> Iterator[Net]:
    """Three namespaces without any rule."""
    with net() as made:
        yield made


@pytest.fixture
def ruled(bare: Net, variant: Variant) -> Net:
    """With the chain set of `variant` applied."""
    install(bare, variant)
    return bare
