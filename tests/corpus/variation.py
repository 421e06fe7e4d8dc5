"""What may differ between two re-enactments of one session. Default: the report's own numbers; `from_seed`: others."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from tests.corpus.sip_bytes import Encoding
from tests.corpus.stun_bytes import COOKIE


@dataclass(frozen=True)
class Hosts:
    """Addresses of the play. Inside: client, client2, router. own_public: what the NAT shows of them."""

    client: str = "172.16.42.187"
    client2: str = "172.16.42.185"
    router: str = "172.16.42.1"
    own_public: str = "71.15.163.132"
    peer_public: str = "71.230.89.52"
    peer_local: str = "192.168.42.25"
    relay: str = "17.173.254.35"
    relay2: str = "17.173.254.36"
    courier: str = "17.149.36.124"
    prober: str = "17.173.255.222"
    web_probe: str = "23.62.98.35"
    web_site: str = "93.184.216.34"


V6_HOSTS = Hosts(
    client="fd00:42::bb", client2="fd00:42::b9", router="fd00:42::1", own_public="2001:db8:15:a384::1",
    peer_public="2001:db8:e659::34", peer_local="fd00:a8:2a::19", relay="2620:149:a0c::35", relay2="2620:149:a0c::36",
    courier="2620:149:a44:300::24", prober="2620:149:a0c::de", web_probe="2600:1409:a::35", web_site="2606:2800:22::34",
)  # fmt: skip


@dataclass(frozen=True)
class Variation:
    """`seed` feeds every byte that is noise. All else is named. Frame numbers never depend on it."""

    seed: int = 0
    v6: bool = False
    hosts: Hosts = field(default_factory=Hosts)
    v4_client: str = "172.16.42.187"
    """For the SNATMAP probe, which knows IPv4 only."""
    media_port: int = 16402
    peer_port: int = 16402
    rtcp_port: int | None = None
    """Where RTCP goes if not to the media port; both sides alike."""
    relay_port: int = 3478
    turn_port: int = 3489
    nat_port: int = 1024
    """The NAT's other mapping, where the preserved port is taken (session 3, frame 252)."""
    channel: int = 0x4000
    cookie: bytes = COOKIE
    reverse: Literal["halves", "bytes"] = "halves"
    private: tuple[tuple[int, int], ...] = (
        (0x8001, 4),
        (0x8002, 4),
        (0x8003, 4),
        (0x8004, 4),
        (0x8005, 4),
        (0x8009, 4),
    )
    """Apple's own STUN attributes and the lengths of their values."""
    requested_transport: bool = True
    encoding: Encoding = "zlib"
    encoding_header: bool = True
    user_agent: str | None = "Viceroy 1.4.1"
    snatmap_pad: int = 0xFFFF
    snatmap_port: int = 16403
    invite_fragments: bool = False
    bye_direct: bool = False
    """BYE and its answer take the direct path; else the relay, as the INVITE did."""
    push_hello: bool = False
    """The push connection begins inside the capture, with a ClientHello; else it is joined mid-stream."""

    @classmethod
    def from_seed(cls, seed: int, v6: bool = False) -> Variation:
        """Seed 0 is the report's own call; every other seed draws all that may differ."""
        start = replace(cls(v6=v6), hosts=V6_HOSTS if v6 else Hosts())
        if seed == 0:
            return start
        rng = random.Random(seed)
        cookie = COOKIE if rng.random() < 0.6 else b"\x35" + rng.randbytes(3)
        media, peer = rng.randint(16393, 16402), rng.randint(16393, 16402)
        port = rng.choice([None, rng.choice([p for p in range(16393, 16403) if p not in (media, peer)])])
        lengths = tuple((number, rng.choice((4, 8, 12))) for number, _ in cls.private)
        hosts = _hosts6(rng) if v6 else _hosts4(rng)
        v4_client = f"172.16.42.{rng.randint(2, 250)}" if v6 else hosts.client
        return replace(
            start, seed=seed, hosts=hosts, v4_client=v4_client, media_port=media, peer_port=peer,
            rtcp_port=port, relay_port=rng.randint(3478, 3488), turn_port=rng.randint(3489, 3497),
            nat_port=rng.randint(1024, 9999), channel=rng.randint(0x4000, 0x40FF), cookie=cookie,
            reverse=rng.choice(("halves", "bytes")), private=lengths, requested_transport=rng.random() < 0.5,
            encoding=rng.choice(("zlib", "raw", "gzip", "identity")), encoding_header=rng.random() < 0.7,
            user_agent=rng.choice((None, "Viceroy 1.5", "Viceroy 1.7.0/GK")), snatmap_pad=rng.choice((0xFFFF, 0xAAAA)),
            invite_fragments=rng.random() < 0.4, push_hello=rng.random() < 0.5,
            bye_direct=rng.random() < 0.5,
        )  # fmt: skip


def _hosts4(rng: random.Random) -> Hosts:
    def apple() -> str:
        return f"17.{rng.randint(100, 250)}.{rng.randint(1, 250)}.{rng.randint(1, 250)}"

    def public() -> str:
        return f"{rng.choice((24, 68, 71, 84, 203))}.{rng.randint(1, 250)}.{rng.randint(1, 250)}.{rng.randint(1, 250)}"

    inside = rng.choice(("192.168.7", "10.11.12", "172.20.1"))
    one, two = rng.sample(range(2, 250), 2)
    local = f"192.168.{rng.randint(50, 99)}.{rng.randint(2, 250)}"
    return _fill(Hosts(client=f"{inside}.{one}", client2=f"{inside}.{two}", router=f"{inside}.1"), public, apple, local)


def _hosts6(rng: random.Random) -> Hosts:
    def apple() -> str:
        return f"2620:149:a{rng.randint(0, 15):x}c::{rng.randint(2, 65000):x}"

    def public() -> str:
        return f"2001:db8:{rng.randint(1, 65000):x}:{rng.randint(1, 65000):x}::{rng.randint(1, 65000):x}"

    one, two = rng.sample(range(2, 65000), 2)
    inside, local = f"fd{rng.randint(1, 255):02x}:17:", f"fd00:77::{rng.randint(2, 65000):x}"
    return _fill(
        Hosts(client=f"{inside}:{one:x}", client2=f"{inside}:{two:x}", router=f"{inside}:1"), public, apple, local
    )


def _fill(hosts: Hosts, public: Callable[[], str], apple: Callable[[], str], local: str) -> Hosts:
    return replace(
        hosts, own_public=public(), peer_public=public(), peer_local=local, relay=apple(), relay2=apple(),
        courier=apple(), prober=apple(), web_probe=public(), web_site=public(),
    )  # fmt: skip
