"""Messages of a reflector: a relay that knows its two peers by a tag of 16 bytes, as libtgvoip's do.

In: a datagram. Out: layer "reflector". By libtgvoip (public domain): peer tag (16), twelve bytes 0xFF, then a word,
little endian: -2 in a ping (VoIPController::SendUdpPing, an identifier of 8 bytes follows), a constructor's number in
what the reflector answers (PrivateDefines.h: TLID_UDP_REFLECTOR_*).
"""

from __future__ import annotations

from typing import Final

from appid.wire import Fact, Layer

TAG: Final = 16
ONES: Final = b"\xff" * 12
HEADER: Final = TAG + len(ONES) + 4
PING_SIZE: Final = HEADER + 8
KINDS: Final = {
    0xFFFFFFFE: "ping",
    0xC01572C7: "self-info",
    0x27D9371C: "peer-info",
    0x83FC73B1: "peer-info-ipv6",
}


def decode(data: memoryview) -> Layer | None:
    end = len(data)
    if end < HEADER or bytes(data[TAG : TAG + len(ONES)]) != ONES:
        return None
    kind = KINDS.get(int.from_bytes(data[HEADER - 4 : HEADER], "little"))
    if kind is None or (kind == "ping" and end != PING_SIZE):
        return None
    return Layer("reflector", (Fact("reflector.kind", kind),), end)
