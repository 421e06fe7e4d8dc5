"""The ledger of one flow: what has been seen of it, bounded, and what only several packets together show.

In: the facts of each packet, with its direction. Out: the packet's facts with the derived ones added, and the
set of all facts of the flow so far (for signatures of flow scope).

Derived facts (one packet alone proves little, RFC 3550 appendix A.1: a source is valid after consecutive packets):
    rtp.run    packets of one SSRC in one direction whose sequence numbers followed on so far (from 1)
    rtcp.run   RTCP packets of one sender so far
    quic.run   short headers in one direction with the same eight bytes at the connection ID's place, whose first byte,
               protected in part, differed from the one before (RFC 9000 section 17.3.1), so far
    turn.run   ChannelData messages on one channel whose length was exact, so far
    relayframe.run  relayed frames in one direction that ended as their flags say, in RTP or with nothing, so far
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from appid.wire import Fact, FactValue

MAX_FACTS: Final = 512
"""Facts kept per flow; what comes later is matched with its own packet, and forgotten."""
MAX_RUNS: Final = 16
_COUNTED: Final = frozenset(
    {"rtp.ssrc", "rtp.sequence", "rtcp.ssrc", "turn.channel", "turn.exact", "quic.short_header", "relayframe.content"}
)
"""What runs are made of."""
SEQUENCE_WINDOW: Final = 64
"""RTP sequence numbers that may be missing between two packets of one run."""


class FactSet:
    """Facts by name; a name may have several values."""

    __slots__ = ("size", "values")

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self.values: dict[str, list[FactValue]] = {}
        self.size = 0
        self.add(facts)

    def add(self, facts: Iterable[Fact]) -> None:
        """Book facts; a value that its name has already is not kept twice."""
        table = self.values
        for fact in facts:
            values = table.get(fact.name)
            if values is None:
                table[fact.name] = [fact.value]
            elif fact.value not in values:
                values.append(fact.value)
            else:
                continue
            self.size += 1

    def get(self, name: str) -> list[FactValue] | None:
        return self.values.get(name)

    def first(self, name: str) -> FactValue | None:
        values = self.values.get(name)
        return values[0] if values else None


class Ledger:
    """What is known of one flow. `outward`: True for the direction of the flow's first packet;
    `keep`: names of the facts that signatures of flow scope ask for; the others are matched with their packet alone."""

    __slots__ = ("flow", "keep", "runs")

    def __init__(self, keep: frozenset[str] = frozenset()) -> None:
        self.flow = FactSet()
        self.keep = keep
        self.runs: dict[tuple[str, bool, FactValue], tuple[int, int]] = {}

    def add(self, facts: list[Fact], outward: bool) -> list[Fact]:
        """Book one packet's facts; returns them with the derived ones at the end."""
        derived = self._derive(facts, outward)
        if derived:
            facts = facts + derived
        if self.keep and self.flow.size < MAX_FACTS:
            keep = self.keep
            self.flow.add([fact for fact in facts if fact.name in keep])
        return facts

    def _derive(self, facts: list[Fact], outward: bool) -> list[Fact]:
        derived: list[Fact] = []
        ssrc: FactValue = None
        channel: FactValue = None
        for fact in facts:
            if fact.name not in _COUNTED:
                continue
            name, value = fact.name, fact.value
            if name == "rtp.ssrc":
                ssrc = value
            elif name == "rtp.sequence" and isinstance(value, int):
                derived.append(Fact("rtp.run", self._follow(("rtp.run", outward, ssrc), value)))
            elif name == "rtcp.ssrc":
                derived.append(Fact("rtcp.run", self._count(("rtcp.run", outward, value))))
            elif name == "turn.channel":
                channel = value
            elif name == "quic.short_header" and isinstance(value, bytes):
                derived.append(Fact("quic.run", self._short(("quic.run", outward, None), value)))
            elif name == "relayframe.content" and value != "control":
                derived.append(Fact("relayframe.run", self._count(("relayframe.run", outward, None))))
            elif name == "turn.exact" and value is True:
                derived.append(Fact("turn.run", self._count(("turn.run", True, channel))))
        return derived

    def _follow(self, run: tuple[str, bool, FactValue], sequence: int) -> int:
        last, length = self.runs.get(run, (-1, 0))
        step = (sequence - last) & 0xFFFF
        if length == 0 or 0 < step <= SEQUENCE_WINDOW or step > 0xFFFF - SEQUENCE_WINDOW:
            return self._keep(run, sequence, length + 1)
        return self._keep(run, sequence, 1)

    def _short(self, run: tuple[str, bool, FactValue], header: bytes) -> int:
        last, length = self.runs.get(run, (0, 0))
        now = int.from_bytes(header, "big")
        same_id = length > 0 and (last ^ now) & (1 << 64) - 1 == 0
        return self._keep(run, now, length + (last != now) if same_id else 1)

    def _count(self, run: tuple[str, bool, FactValue]) -> int:
        return self._keep(run, 0, self.runs.get(run, (0, 0))[1] + 1)

    def _keep(self, run: tuple[str, bool, FactValue], last: int, length: int) -> int:
        if run in self.runs or len(self.runs) < MAX_RUNS:
            self.runs[run] = (last, length)
        return length
