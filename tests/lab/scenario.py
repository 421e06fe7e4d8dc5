"""Every number of a run: addresses, ports, names, tokens, SSRCs.

In: nothing (the report's numbers) or a seed. Out: a Scenario.

Nothing else in the lab may hard-code any of them. Addresses are text here, since `ip` and sockets want text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from random import Random
from typing import TypedDict

MEDIA_PORTS = range(16393, 16403)
"""Client-local ports (field.md A1)."""
RELAY_PORTS = range(3478, 3498)
APPLE_PORTS = range(16384, 16403)
"""What Apple's page asks admins to open, and what the probes try."""


def _bytes(rng: Random, size: int) -> bytes:
    return bytes(rng.randrange(256) for _ in range(size))


def _fragment(rng: Random) -> bytes:
    """Ten binary bytes without a colon: half of a USERNAME (report, packet 122)."""
    return bytes(rng.choice([b for b in range(256) if b != 0x3A]) for _ in range(10))


def _ssrc(rng: Random) -> int:
    return rng.randrange(1, 1 << 32)


@dataclass(frozen=True)
class Identity:
    """What one side of the call draws for itself."""

    fragments: tuple[bytes, bytes, bytes]
    audio_ssrc: int
    video_ssrc: int
    user: str
    tag: str

    @staticmethod
    def draw(rng: Random) -> Identity:
        return Identity(
            (_fragment(rng), _fragment(rng), _fragment(rng)),
            _ssrc(rng),
            _ssrc(rng),
            f"user{rng.randrange(10**9)}",
            str(rng.randrange(10**9, 2 * 10**9)),
        )


RELAYED, LOCAL, PUBLIC = range(3)
"""Candidates, in the order of Identity.fragments: username fragments differ per candidate (report, packet 161)."""


@dataclass(frozen=True)
class Scenario:
    """The report's numbers where it gives any (facetime-2015.md, session 1); the rest is made up in its spirit. `nat`:
    whether the client's router translates, or the world has a route to what is behind it."""

    seed: int | None = None
    client: str = "172.16.42.187"
    gateway: str = "172.16.42.1"
    public: str = "71.15.163.132"
    peer: str = "192.168.42.25"
    peer_gateway: str = "192.168.42.1"
    peer_public: str = "71.230.89.52"
    stranger: str = "93.184.220.66"
    relay: str = "17.173.254.35"
    relay_port: int = 3478
    relayed_port: int = 3489
    courier: str = "17.149.36.136"
    snatmap: str = "17.173.254.222"
    web: str = "17.171.4.33"
    coturn: str = "80.68.93.14"
    world: str = "64.233.161.20"
    media_port: int = 16402
    peer_media_port: int = 16402
    echo_port: int = 47113
    turn_user: str = "alice"
    turn_password: str = "correct horse"
    turn_realm: str = "turn.example.net"
    token: bytes = bytes.fromhex("0b7e6c1a9d30f254")
    call_id: str = "5f2c0b76-a3d1-11e4-8b0e-1f9a8cd06a5a"
    branch: str = "z9hG4bK1f9a8cd06a5a3d11"
    caller: Identity = field(default_factory=lambda: Identity.draw(Random("caller")))
    callee: Identity = field(default_factory=lambda: Identity.draw(Random("callee")))
    channel: int = 0x4000
    swap_halves: bool = True
    nat: bool = True

    @property
    def v6(self) -> bool:
        return ":" in self.client

    @staticmethod
    def with_v6(nat: bool) -> Scenario:
        """The same in IPv6; Apple's prefixes are those of field.md A1."""
        return Scenario(
            client="fd16:42::187" if nat else "2001:db8:42::187",
            gateway="fd16:42::1" if nat else "2001:db8:42::1",
            public="2001:db8:71:15:163::132",
            peer="fd19:42::25",
            peer_gateway="fd19:42::1",
            peer_public="2001:db8:71:230:89::52",
            stranger="2001:db8:93::66",
            relay="2620:149:a44::35",
            courier="2620:149:a44::36",
            snatmap="2620:149:a44::222",
            web="2620:149:a44::33",
            coturn="2001:db8:80::14",
            world="2001:db8:64::20",
            nat=nat,
        )

    def addresses(self) -> list[str]:
        return [
            self.client, self.gateway, self.public, self.peer, self.peer_gateway, self.peer_public, self.stranger,
            self.relay, self.courier, self.snatmap, self.web, self.coturn, self.world,
        ]  # fmt: skip

    def reversed_username(self, username: bytes) -> bytes:
        """How the answer turns the request's USERNAME round; both readings of the report are in the world."""
        half = len(username) // 2
        return username[half:] + username[:half] if self.swap_halves else username[::-1]

    def numbered(self, index: int) -> Scenario:
        """Call `index` of a scale run: inside host, peer, media port, secrets of its own; relay of its ten."""
        rng = Random(f"{self.seed}/{index}")
        base = ip_address(self.gateway)
        peer = str(ip_address(self.peer_public) + 1 + index)
        port = MEDIA_PORTS[index % len(MEDIA_PORTS)]
        return replace(
            self,
            client=str(base + 99 + index),
            peer=peer,
            peer_public=peer,
            relay=str(ip_address(self.relay) + index // len(MEDIA_PORTS)),
            media_port=port,
            peer_media_port=port,
            **_secrets(rng),
        )

    @staticmethod
    def from_seed(seed: int) -> Scenario:
        """All of it drawn; addresses never collide, the media ports stay in Apple's client range."""
        rng = Random(seed)
        private = [
            f"10.{rng.randrange(256)}.{rng.randrange(256)}",
            f"172.{rng.randrange(16, 32)}.7",
            f"192.168.{rng.randrange(256)}",
        ]
        inside, far = rng.sample(private, 2)
        world = _public(rng, 5)
        apple = [f"17.{rng.randrange(1, 255)}.{net}.{rng.randrange(1, 100)}" for net in rng.sample(range(256), 4)]
        relay_port, relayed_port = rng.sample(RELAY_PORTS, 2)
        return Scenario(
            seed=seed,
            client=f"{inside}.{rng.randrange(2, 99)}",
            gateway=f"{inside}.1",
            public=world[0],
            peer=f"{far}.{rng.randrange(2, 255)}",
            peer_gateway=f"{far}.1",
            peer_public=world[1],
            stranger=world[2],
            coturn=world[3],
            world=world[4],
            relay=rng.choice([apple[0], _public(rng, 1, avoid=world)[0]]),
            relay_port=relay_port,
            relayed_port=relayed_port,
            courier=apple[1],
            snatmap=apple[2],
            web=apple[3],
            media_port=rng.choice(MEDIA_PORTS),
            peer_media_port=rng.choice(MEDIA_PORTS),
            echo_port=rng.randrange(20000, 60000),
            turn_user=f"u{rng.randrange(10**6)}",
            turn_password=_bytes(rng, 8).hex(),
            turn_realm=f"r{rng.randrange(10**6)}.example.net",
            channel=rng.randrange(0x4000, 0x4100),
            swap_halves=rng.random() < 0.5,
            **_secrets(rng),
        )


class _Secrets(TypedDict):
    token: bytes
    call_id: str
    branch: str
    caller: Identity
    callee: Identity


def _secrets(rng: Random) -> _Secrets:
    return {
        "token": _bytes(rng, 8),
        "call_id": f"{_bytes(rng, 4).hex()}-{_bytes(rng, 2).hex()}-11e4-{_bytes(rng, 2).hex()}-{_bytes(rng, 6).hex()}",
        "branch": f"z9hG4bK{_bytes(rng, 9).hex()}",
        "caller": Identity.draw(rng),
        "callee": Identity.draw(rng),
    }


def _public(rng: Random, count: int, avoid: list[str] | None = None) -> list[str]:
    """Globally routed addresses, one per /8, none of Apple's."""
    taken = {int(address.split(".")[0]) for address in avoid or []}
    firsts = [a for a in range(20, 224) if a not in {100, 127, 169, 172, 192, 198, 203, *taken}]
    return [f"{a}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 100)}" for a in rng.sample(firsts, count)]
