"""Netlink framing: bytes as linux/netlink.h has them, and garbage that must not run wild."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.edge.netlink import KernelError, Socket, attribute, attributes, messages, nested, request
from tests.netns.net import Namespace


def test_an_attribute_is_padded_and_its_length_is_not() -> None:
    assert attribute(2, b"abc\0\0") == bytes.fromhex("0900020061626300000000" + "00")
    assert nested(1, attribute(2, b"")) == bytes.fromhex("0800018004000200")


def test_a_request() -> None:
    data = request(1, 2, 4, 7, 10, attribute(1, b"\x11"), resource=5)
    assert data == bytes.fromhex("1c000000 0201 0500 07000000 00000000 0a000005 0500010011000000")
    assert [(kind, sequence, bytes(body)) for kind, sequence, body in messages(data)] == [
        (0x0102, 7, bytes.fromhex("0a0000050500010011000000"))
    ]


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_come_back(wanted: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(kind, value) for kind, value in wanted)
    assert [(kind, bytes(value)) for kind, value in attributes(memoryview(data))] == wanted


@given(st.binary(max_size=200))
def test_garbage_ends_the_reading(data: bytes) -> None:
    assert len(list(attributes(memoryview(data)))) <= len(data) // 4
    assert len(list(messages(data))) <= len(data) // 16


@pytest.mark.kernel
def test_the_kernels_errors_are_told(space: Namespace) -> None:
    def ask() -> int:
        return Socket().ask(6, 10, 0, 2, attribute(1, b"\6"), attribute(2, b"no-such-set\0"), nested(7))

    assert space.call(ask) in (errno.ENOENT, errno.EINVAL, 4097)
    with pytest.raises(KernelError, match="dump"):
        space.call(lambda: Socket().dump(9, 200, 0))
