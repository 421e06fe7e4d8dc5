"""The 16-byte probe: the pair of the captures (facts, section A5) and what only resembles it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appid.decode import snatmap
from appid.wire import Endpoint, packed


def facts(text: str) -> dict[str, object] | None:
    layer = snatmap.decode(memoryview(bytes.fromhex(text)))
    return None if layer is None else {fact.name: fact.value for fact in layer.facts}


def test_request_and_reply() -> None:
    # from 10.127.22.118:16402; the reply says 166.198.24.114:46256, inverted
    assert facts("000000012f3173750a7f16764012aaaa") == {
        "snatmap.type": 1,
        "snatmap.nonce": 0x2F317375,
        "snatmap.endpoint": Endpoint(packed("10.127.22.118"), 16402),
        "snatmap.pad": 0xAAAA,
    }
    reply = facts("000000022f3173755939e78d4b4faaaa")
    assert reply is not None
    assert reply["snatmap.endpoint"] == Endpoint(packed("166.198.24.114"), 46256)


def test_padding_of_2015() -> None:
    found = facts("0000000100000001ac102abb4013ffff")
    assert found is not None
    assert found["snatmap.endpoint"] == Endpoint(packed("172.16.42.187"), 16403)


def test_others() -> None:
    for text in (
        "000000032f3173750a7f16764012aaaa",
        "00000001af3173750a7f16764012aaaa",
        "000000012f3173750a7f167640120000",
        "000000012f3173750a7f16764012aaaa00",
        "000000012f3173750a7f16764012aa",
    ):
        assert facts(text) is None


@given(st.binary(max_size=20))
def test_any_bytes(payload: bytes) -> None:
    layer = snatmap.decode(memoryview(payload))
    assert layer is None or len(payload) == 16
