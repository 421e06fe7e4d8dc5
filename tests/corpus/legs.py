"""What a client does on a relay and between candidates: TURN without authentication, ICE older than RFC 5245."""

from __future__ import annotations

from dataclasses import dataclass

from tests.corpus import stun_bytes as stun
from tests.corpus.scene import Scene, Way
from tests.corpus.writer import UDP, End


@dataclass
class Leg(Way):
    """One client's flow to its relay. Each method writes one frame and returns its number."""

    scene: Scene
    client: End
    relay: End
    peer: End
    """Where the channel leads: the peer's public address."""
    mapped: End
    """The client as the relay sees it."""
    channel: int
    call: int = 0
    outgoing: bool = True
    """As a Way: from the client to the relay?"""

    @property
    def relayed(self) -> End:
        return End(self.relay.host, self.scene.v.turn_port)

    def back(self) -> Leg:
        """The same leg as a way from the relay to the client."""
        return Leg(self.scene, self.client, self.relay, self.peer, self.mapped, self.channel, self.call, False)

    def __call__(self, data: bytes, kind: str) -> None:
        (self.out if self.outgoing else self.into)(data)

    def allocate(self, transaction: stun.Transaction) -> int:
        """Frame 60 of session 1: a request with XOR-RELAYED-ADDRESS and RESERVATION-TOKEN, no USERNAME."""
        rng, v = self.scene.rng, self.scene.v
        attributes = [stun.xor_address(stun.XOR_RELAYED_ADDRESS, *self.relayed, transaction)]
        attributes += [(stun.RESERVATION_TOKEN, rng.randbytes(8)), stun.u32(stun.LIFETIME, 60)]
        if v.requested_transport:
            attributes.insert(0, (stun.REQUESTED_TRANSPORT, b"\x11\0\0\0"))
        number = self._send(stun.ALLOCATE, stun.REQUEST, transaction, attributes)
        self.scene.mark(UDP, self.client, self.relay, number, self.call)
        return number

    def allocated(self, transaction: stun.Transaction) -> int:
        attributes = [stun.xor_address(stun.XOR_RELAYED_ADDRESS, *self.relayed, transaction)]
        attributes += [
            stun.xor_address(stun.XOR_MAPPED_ADDRESS, *self.mapped, transaction),
            stun.u32(stun.LIFETIME, 60),
        ]
        return self._send(stun.ALLOCATE, stun.SUCCESS, transaction, attributes)

    def bind(self, transaction: stun.Transaction, lifetime: int | None = None) -> int:
        attributes = [stun.channel_number(self.channel)]
        attributes.append(stun.xor_address(stun.XOR_PEER_ADDRESS, *self.peer, transaction))
        if lifetime is not None:
            attributes.append(stun.u32(stun.LIFETIME, lifetime))
        return self._send(stun.CHANNEL_BIND, stun.REQUEST, transaction, attributes)

    def bound(self, transaction: stun.Transaction) -> int:
        return self._send(stun.CHANNEL_BIND, stun.SUCCESS, transaction, [])

    def mismatch(self, transaction: stun.Transaction) -> int:
        """RFC 8656 section 16: 437."""
        return self._send(stun.CHANNEL_BIND, stun.ERROR, transaction, [stun.error(437, "Allocation Mismatch")])

    def refresh(self, transaction: stun.Transaction, lifetime: int) -> int:
        return self._send(stun.REFRESH, stun.REQUEST, transaction, [stun.u32(stun.LIFETIME, lifetime)])

    def refreshed(self, transaction: stun.Transaction, lifetime: int) -> int:
        return self._send(stun.REFRESH, stun.SUCCESS, transaction, [stun.u32(stun.LIFETIME, lifetime)])

    def out(self, payload: bytes) -> int:
        return self.scene.cap.udp(self.client, self.relay, self.wrap(payload))

    def into(self, payload: bytes) -> int:
        return self.scene.cap.udp(self.relay, self.client, self.wrap(payload))

    def wrap(self, payload: bytes) -> bytes:
        return stun.channel_data(self.channel, payload)

    def _send(self, method: int, kind: int, transaction: stun.Transaction, attributes: list[stun.Attribute]) -> int:
        data = stun.message(method, kind, transaction, attributes)
        if kind == stun.REQUEST:
            return self.scene.cap.udp(self.client, self.relay, data)
        return self.scene.cap.udp(self.relay, self.client, data)


@dataclass
class Pair:
    """A candidate pair: its two username fragments (they differ per candidate, frame 161) and who controls."""

    scene: Scene
    controlling: bool
    local: bytes = b""
    remote: bytes = b""

    def __post_init__(self) -> None:
        self.local, self.remote = self.scene.fragment(), self.scene.fragment()

    @property
    def username(self) -> bytes:
        """Of a check that we send."""
        return self.remote + self.local

    @property
    def reversed(self) -> bytes:
        """Frame 160: the same username "reversed": by halves, or byte by byte."""
        return self.local + self.remote if self.scene.v.reverse == "halves" else self.username[::-1]

    def check(self, transaction: stun.Transaction, ours: bool = True, nominate: bool = False) -> bytes:
        """Frames 122, 162, 164 of session 1. `ours`: sent by the side whose `controlling` this is."""
        role = stun.ICE_CONTROLLING if self.controlling is ours else stun.ICE_CONTROLLED
        attributes = [(stun.USERNAME, self.username if ours else self.reversed)]
        attributes += [*self._private(32769, 32770, 32771, 32777), (role, self.scene.rng.randbytes(8))]
        if nominate:
            attributes.append((stun.USE_CANDIDATE, b""))
        return stun.message(stun.BINDING, stun.REQUEST, transaction, attributes)

    def answer(self, transaction: stun.Transaction, mapped: End, ours: bool = False) -> bytes:
        """Frame 160 of session 1. `ours`: we answer the other side's check."""
        attributes = [(stun.USERNAME, self.username if ours else self.reversed)]
        attributes += [stun.address(stun.MAPPED_ADDRESS, *mapped)]
        attributes += self._private(0x8001, 0x8003, 0x8004, 0x8005, 0x8009)
        return stun.message(stun.BINDING, stun.SUCCESS, transaction, attributes)

    def _private(self, *numbers: int) -> list[stun.Attribute]:
        lengths = dict(self.scene.v.private)
        noise = {number: self.scene.rng.randbytes(lengths[number]) for number in numbers}
        if (
            0x8002 in noise
        ):  # RFC 8489 gave this number to PASSWORD-ALGORITHMS later: words of (value, length 0) suit both
            noise[0x8002] = b"".join(noise[0x8002][at : at + 2] + b"\0\0" for at in range(0, lengths[0x8002], 4))
        return list(noise.items())
