"""The 16-byte SNATMAP probe (Apple's port list names UDP 5678 "SNATMAP"; seen from 16384-16403 to relay ports).

In: a datagram. Out: layer "snatmap". No RFC; by the FaceTime report of 2015 and captures of 2023 it is, big-endian:
type (4: 1 request, 2 reply), nonce (4, top bit 0), IPv4 address (4), port (2), padding (2: 0xFFFF in 2015, now 0xAAAA).
A request tells the sender's own address in clear, a reply the mapped one with its bits inverted.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from appid.wire import Endpoint, Fact, Layer

FIRST: Final = frozenset({0})
SIZE: Final = 16
PADDINGS: Final = frozenset({0xAAAA, 0xFFFF})
_PROBE: Final = Struct(">II4sHH")


def decode(data: memoryview) -> Layer | None:
    if len(data) != SIZE:
        return None
    type_, nonce, address, port, pad = _PROBE.unpack(data)
    if type_ not in (1, 2) or nonce & 0x80000000 or pad not in PADDINGS:
        return None
    if type_ == 2:
        address = bytes(byte ^ 0xFF for byte in address)
        port ^= 0xFFFF
    facts = (
        Fact("snatmap.type", type_),
        Fact("snatmap.nonce", nonce),
        Fact("snatmap.endpoint", Endpoint(address, port)),
        Fact("snatmap.pad", pad),
    )
    return Layer("snatmap", facts, SIZE)
