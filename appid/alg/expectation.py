"""An Expectation: media that a validated dialog announced. It is called a pinhole only once the kernel has it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Expectation:
    """Wanted: `proto` between the inside host's `port` and any port of `peer`, until `expires` (seconds), for `call`.

    outside_port  the port by which the peer knows the inside host (its SDP's) behind source NAT; else = port
    outside       the packed address by which the peer knows it; None without NAT
    reason        sdp-offer | sdp-answer | channel-bind
    checked_at    the packet at which the client's own check had opened it, before a dialog announced it; else None
    announced     the port at which the peer says it will be; it may send from elsewhere
    kind          the medium (audio, video, ...); "shared" where several go by this port, or nobody said
    """

    proto: int
    inside: bytes
    port: int
    peer: bytes
    peer_port: int | None
    outside: bytes | None
    outside_port: int
    application: str
    call: int
    reason: str
    opened_at: int
    expires: float
    kind: str = "shared"
    announced: int = 0
    checked_at: int | None = None
