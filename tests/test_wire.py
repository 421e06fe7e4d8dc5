"""The alphabet: a cursor that never reads past the end, addresses as text and back, flow keys both ways."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.wire import DecodeError, Endpoint, Fact, FlowKey, Reader, packed, text


@given(st.binary(max_size=40), st.lists(st.integers(0, 9), max_size=12))
def test_a_reader_gives_the_bytes_in_order_and_never_more(data: bytes, sizes: list[int]) -> None:
    reader, taken = Reader("x", data), b""
    for size in sizes:
        left = len(reader)
        if size > left:
            with pytest.raises(DecodeError) as told:
                reader.take(size)
            assert (told.value.protocol, told.value.offset, told.value.reason) == ("x", len(taken), "truncated")
            assert len(reader) == left, "a failed read moves nothing"
        else:
            taken += bytes(reader.take(size))
    assert data.startswith(taken)
    assert taken + bytes(reader.rest()) == data


def test_numbers_are_big_endian() -> None:
    reader = Reader("x", bytes(range(1, 11)))
    assert (reader.u8(), reader.u16(), reader.u24(), reader.u32()) == (1, 0x0203, 0x040506, 0x0708090A)
    with pytest.raises(DecodeError, match="truncated"):
        reader.u8()
    with pytest.raises(DecodeError):
        Reader("x", b"abc").take(-1)


@pytest.mark.parametrize("address", ["172.16.42.187", "0.0.0.0", "fd00:42::bb", "::", "2001:db8::1"])
def test_addresses_survive_both_ways(address: str) -> None:
    assert text(packed(address)) == address
    assert len(packed(address)) == (16 if ":" in address else 4)


def test_an_endpoint_is_written_as_people_write_it() -> None:
    assert str(Endpoint(packed("17.173.254.35"), 3478)) == "17.173.254.35:3478"
    assert str(Endpoint(packed("2620:149::1"), 3478)) == "[2620:149::1]:3478"


def test_a_key_reversed_twice_is_itself() -> None:
    key = FlowKey(17, packed("172.16.42.187"), 16402, packed("17.173.254.35"), 3478)
    assert key.reversed().reversed() == key
    assert key.reversed().source == key.destination == Endpoint(packed("17.173.254.35"), 3478)


def test_facts_are_equal_by_name_and_value_and_nothing_else() -> None:
    fact = Fact("stun.method", "allocate")
    assert fact == Fact("stun.method", "allocate")
    assert len({fact, Fact("stun.method", "allocate"), Fact("stun.method", "refresh")}) == 2
    assert fact not in (("stun.method", "allocate"), Fact("stun.class", "allocate"))
    assert pickle.loads(pickle.dumps(fact)) == fact
    assert repr(fact) == "Fact('stun.method', 'allocate')"
    name, value = fact
    assert (name, value) == ("stun.method", "allocate")
