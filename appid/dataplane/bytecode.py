"""Classic BPF for xt_bpf. Out: the text that `-m bpf --bytecode` takes, and the same decision in Python for the model.

Both start from the transport payload or the IP header as the kernel's socket filter sees it (offset 0 = IP header).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from appid.wire import Buffer

WATCH: Final = (
    "11,32 0 0 4294963252,21 8 0 0,7 0 0 0,80 0 0 0,37 5 0 127,37 0 3 63,"
    "80 0 0 4,84 0 0 192,21 1 0 128,6 0 0 65535,6 0 0 0"
)
"""Signalling of a watched flow: payload offset (SKF_AD_PAY_OFFSET), then the first byte. 0x00-0x3f is STUN (RFC 7983
section 7) and 0x40-0x7f ChannelData or SIP, unless the fifth byte, the first inside ChannelData, is RTP's 0x80-0xbf."""

LEAST_SAID: Final = 128
"""Bytes of an IP packet below which a message ends no call: a keep-alive (RFC 5626 section 4.4), not a BYE."""
SAID: Final = "13,128 0 0 0,53 0 10 {},{}".format(LEAST_SAID, WATCH.split(",", 1)[1])
"""What WATCH matches, in packets that long."""

_GOLDEN: Final = 0x9E3779B1
SOURCE4, DESTINATION4, SOURCE6, DESTINATION6 = 12, 16, 20, 36
"""Offsets of the low 32 address bits in the IPv4 and IPv6 header."""


def watched(payload: Buffer) -> bool:
    """What WATCH matches. A read beyond the end is no match, as in the kernel."""
    size = len(payload)
    if not size:
        return False
    first = payload[0]
    if first <= 0x3F:
        return True
    return first <= 0x7F and size > 4 and payload[4] & 0xC0 != 0x80


def queue_of(address: bytes, queues: int) -> int:
    """Index of the queue that serves an inside host (4 or 16 packed bytes)."""
    return ((_low(address) * _GOLDEN & 0xFFFFFFFF) >> 16) % queues


def _low(address: bytes) -> int:
    return int.from_bytes(address[-4:], "big")


def chooser(hosts: Iterable[bytes]) -> bytes:
    """Of inside hosts that talk with one another, the one whose queue serves all flows between them: the lowest by its
    low 32 bits, whichever side begins."""
    return min(hosts, key=_low)


def queue_bytecode(offset: int, queues: int, index: int) -> str:
    """Bytecode that matches if the address at `offset` hashes to queue `index` of `queues`."""
    return f"7,32 0 0 {offset},{_hashed(queues, index)}"


def between_bytecode(source: int, destination: int, queues: int, index: int) -> str:
    """The same for the lower of the two addresses."""
    lower = f"32 0 0 {source},7 0 0 0,32 0 0 {destination},45 0 1 0,135 0 0 0"  # X = source; A > X: A = X
    return f"11,{lower},{_hashed(queues, index)}"


def _hashed(queues: int, index: int) -> str:
    return f"36 0 0 {_GOLDEN},116 0 0 16,148 0 0 {queues},21 0 1 {index},6 0 0 65535,6 0 0 0"
