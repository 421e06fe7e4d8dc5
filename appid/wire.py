"""The alphabet that every room shares: a bounds-checked cursor, facts, layers and the sender's errors.

Addresses are packed bytes (4 or 16, network order) everywhere below `edge`; `text` and `packed` turn
them into what people write. Ports are ints. Times are float seconds and always arguments.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, ClassVar, Final, NamedTuple, final

Buffer = bytes | memoryview

UDP: Final = 17
TCP: Final = 6
ICMP: Final = 1
ICMPV6: Final = 58


class Endpoint(NamedTuple):
    """A transport address: packed IP address and port."""

    address: bytes
    port: int

    def __str__(self) -> str:
        host = text(self.address)
        return f"[{host}]:{self.port}" if len(self.address) == 16 else f"{host}:{self.port}"


class FlowKey(NamedTuple):
    """One direction of a flow. `src`/`dst` are packed addresses; ports are 0 for protocols without them.

    A NamedTuple, not a dataclass: it is hashed for each packet that userspace sees (docs/decisions/0001).
    """

    proto: int
    src: bytes
    sport: int
    dst: bytes
    dport: int

    def reversed(self) -> FlowKey:
        return tuple.__new__(FlowKey, (self.proto, self.dst, self.dport, self.src, self.sport))

    @property
    def source(self) -> Endpoint:
        return Endpoint(self.src, self.sport)

    @property
    def destination(self) -> Endpoint:
        return Endpoint(self.dst, self.dport)


LONGEST_ADDRESS = 45
"""Characters of an IPv6 address with an IPv4 one at its end, without a scope."""


@lru_cache(maxsize=16384)
def text(address: bytes) -> str:
    """Packed address (4 or 16 bytes) -> its usual text."""
    return ".".join(map(str, address)) if len(address) == 4 else str(ip_address(address))


def packed(address: str) -> bytes:
    """Text of an address -> 4 or 16 packed bytes; ValueError if it is none."""
    return _packed(address) if len(address) <= LONGEST_ADDRESS else ip_address(address).packed


@lru_cache(maxsize=4096)
def _packed(address: str) -> bytes:
    """A message names the same few addresses in each of its headers."""
    return ip_address(address).packed


class DecodeError(Exception):
    """The sender's fault: `protocol` was recognised, and breaks its format at `offset`. Never leaves the peel loop."""

    def __init__(self, protocol: str, offset: int, reason: str) -> None:
        super().__init__(protocol, offset, reason)
        self.protocol = protocol
        self.offset = offset
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.protocol}: {self.reason} at byte {self.offset}"


class Reader:
    """A cursor over one protocol's bytes; reading past the end raises DecodeError(protocol, offset, "truncated")."""

    __slots__ = ("data", "end", "offset", "protocol")

    def __init__(self, protocol: str, data: Buffer, offset: int = 0) -> None:
        self.protocol = protocol
        self.data = memoryview(data)
        self.offset = offset
        self.end = len(self.data)

    def __len__(self) -> int:
        """Bytes left."""
        return self.end - self.offset

    def error(self, reason: str) -> DecodeError:
        return DecodeError(self.protocol, self.offset, reason)

    def take(self, size: int) -> memoryview:
        start = self.offset
        if size < 0 or start + size > self.end:
            raise self.error("truncated")
        self.offset = start + size
        return self.data[start : start + size]

    def skip(self, size: int) -> None:
        self.take(size)

    def uint(self, size: int) -> int:
        """A big-endian unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def u8(self) -> int:
        return self.uint(1)

    def u16(self) -> int:
        return self.uint(2)

    def u24(self) -> int:
        return self.uint(3)

    def u32(self) -> int:
        return self.uint(4)

    def rest(self) -> memoryview:
        return self.take(self.end - self.offset)


FactValue = Hashable
"""int, str, bytes, bool, Endpoint or a tuple of these: hashable, so that signatures find it by index."""


class Value:
    """What is made for each packet: equal, hashed, shown and matched by its fields. A plain class with slots costs less
    to make than a named tuple, above all where it is compiled (docs/decisions/0001)."""

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def fields(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Value) and self.fields() == other.fields()

    def __hash__(self) -> int:
        return hash(self.fields())

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.fields()!r}"

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), self.fields()


@final
class Fact(Value):
    """One named value of a packet, e.g. Fact("stun.method", "allocate"). Names are dotted, `<decoder>.<field>`."""

    __slots__ = ("name", "value")
    __match_args__ = ("name", "value")

    def __init__(self, name: str, value: FactValue) -> None:
        self.name: Final = name
        self.value: Final = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fact) and self.name == other.name and self.value == other.value

    def __hash__(self) -> int:
        return hash((self.name, self.value))

    def __iter__(self) -> Iterator[Any]:
        return iter((self.name, self.value))


class Layer(NamedTuple):
    """What one decoder made of the bytes it was given.

    facts    in wire order; a repeated field is a repeated Fact.
    inner    bytes that another protocol may live in (ChannelData payload, SIP body after inflation), or None.
    consumed how many bytes of the payload this message took; the rest of a stream or datagram is peeled again.
             0 = recognised, but incomplete: more bytes of the stream will tell more.
    message  the decoder's own structured form, for the ALG only.
    """

    name: str
    facts: tuple[Fact, ...]
    consumed: int
    inner: memoryview | None = None
    message: object | None = None
