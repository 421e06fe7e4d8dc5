"""Control messages between the two ends of a link: keep-alive, candidates, interface, close.

In: the DATA of a Data indication, or the control part of a relayed frame. Out: layer "linkcontrol". No RFC; by captures
of 2023 (facetime_wifi_2023_caller frames 1137 to 2037) they are, big-endian: command (2, its top bit set in the
acknowledgement), length of the elements (2), 16 zero bytes, then elements of type (2), length (2) and value; the last
is a code of 20 bytes under type 9.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from appid.wire import Fact, Layer

FIRST: Final = frozenset({0x00, 0x80})
COMMANDS: Final = range(1, 0x20)
ACKNOWLEDGES: Final = 0x8000
ZEROS: Final = bytes(16)
HEADER: Final = 4 + len(ZEROS)
CODE: Final = b"\x00\x09\x00\x14"
CODE_SIZE: Final = 20
_two: Final[Callable[[memoryview], tuple[int, int]]] = Struct(">HH").unpack_from


def decode(data: memoryview) -> Layer | None:
    end = len(data)
    last = end - CODE_SIZE - len(CODE)
    if last < HEADER or bytes(data[4:HEADER]) != ZEROS or bytes(data[last : last + len(CODE)]) != CODE:
        return None
    word, length = _two(data)
    command = word & ~ACKNOWLEDGES
    if command not in COMMANDS or not 0 < length <= end:
        return None
    facts = (Fact("linkcontrol.command", command), Fact("linkcontrol.acknowledges", bool(word & ACKNOWLEDGES)))
    return Layer("linkcontrol", facts, end)
