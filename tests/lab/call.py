"""One call: both sides, both directions' ledgers, and what came of it.

In: a Lab, a Scenario, seconds of media. Out: an Outcome. `Actors` are the servers that calls need.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tests.lab.client import Client
from tests.lab.courier import Courier
from tests.lab.media import Ledger
from tests.lab.net import Lab
from tests.lab.peer import Peer
from tests.lab.relay import Relay, Snatmap
from tests.lab.scenario import Scenario
from tests.lab.story import CallFailedError, Journal
from tests.lab.turn_server import start_turn_server
from tests.lab.web import start_web


class Actors:
    """The servers outside, on one event loop, and nginx and coturn beside it."""

    def __init__(self, lab: Lab, scenarios: list[Scenario]) -> None:
        self.lab = lab
        self.scenarios = scenarios
        self.courier = Courier(lab)
        self.relays: list[Relay] = []

    async def __aenter__(self) -> Actors:
        await self.courier.start()
        seen: set[str] = set()
        for scenario in self.scenarios:
            if scenario.relay not in seen:
                seen.add(scenario.relay)
                self.relays.append(Relay(self.lab, scenario))
        self.snatmap = Snatmap(self.lab)
        start_web(self.lab)
        start_turn_server(self.lab)
        await asyncio.gather(
            _answering(self.lab, "apple", self.lab.scenario.web, 80),
            _answering(self.lab, "world", self.lab.scenario.coturn, 3478),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.courier.close()
        self.snatmap.close()
        for relay in self.relays:
            relay.close()


async def _answering(lab: Lab, place: str, address: str, port: int) -> None:
    """Wait until something listens on TCP there; tried from its own namespace."""
    for _ in range(100):
        with lab.open_socket(place, 1, 10 if ":" in address else 2) as sock:
            try:
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return
    raise RuntimeError(f"nothing listens on {address}:{port}; see {lab.directory}")


@dataclass
class Outcome:
    """`failure` is None for a call that went to its end; losses: (time, path) of packets sent while both sides sent."""

    journal: Journal
    outward: Ledger
    inward: Ledger
    failure: CallFailedError | None = None
    web_answer: bytes = b""
    lost_outward: list[tuple[float, str]] = field(default_factory=list)
    lost_inward: list[tuple[float, str]] = field(default_factory=list)

    @property
    def direct(self) -> bool:
        return self.journal.has("direct")


class Call:
    """Client and Peer of one Scenario. `far` is the peer's place: behind its router, or among many on the internet."""

    def __init__(self, lab: Lab, scenario: Scenario, far: str = "peer") -> None:
        self.journal = Journal()
        self.outcome = Outcome(self.journal, Ledger(), Ledger())
        out, into = self.outcome.outward, self.outcome.inward
        own = (scenario.client, scenario.media_port)
        self.client = Client(lab, "client", scenario, own, self.journal, out, into)
        own = (scenario.peer, scenario.peer_media_port)
        self.peer = Peer(lab, far, scenario, own, self.journal, into, out)
        if scenario.peer == scenario.peer_public:  # no router of its own: tell a private address all the same
            self.peer.local = (lab.scenario.peer, scenario.peer_media_port)

    async def run(self, seconds: float, ring: float = 0.3, relayed: float = 1.0) -> Outcome:
        """Never raises CallFailedError: it is in the outcome."""
        self.peer.ring, self.peer.relayed = ring, relayed
        try:
            await self.peer.listen()
            await self.client.call(seconds)
        except CallFailedError as failure:
            self.outcome.failure = failure
        finally:
            await asyncio.sleep(0.1)
            self.client.close()
            self.peer.close()
        self.outcome.web_answer = self.client.web_answer
        end = self.journal.times.get("bye", float("inf")) - 0.05
        self.outcome.lost_outward = [loss for loss in self.outcome.outward.lost() if loss[0] < end]
        self.outcome.lost_inward = [loss for loss in self.outcome.inward.lost() if loss[0] < end]
        return self.outcome
