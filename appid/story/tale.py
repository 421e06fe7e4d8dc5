"""One tale while it is told: steps in order, what repeats folded between them, RTP counted per stream.

Folded are media, and what has been said SAID_OFTEN times in the same words the same way. A message that
changes something is never folded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from appid.decode import sip
from appid.decode.sdp import Description as Sdp
from appid.story.exchange import Budget, Exchange
from appid.story.lanes import Cast
from appid.story.rtp import Counting, next_of_stream
from appid.story.step import Description, Effect, Fold, FoldLine, Step
from appid.story.words import Facts, Said
from appid.wire import Endpoint, Layer

SAID_OFTEN = 6
MAX_STEPS = 2000
MAX_FOLDS = 2000
MAX_LINES = 64
MAX_STREAMS = 256
MAX_DESCRIPTIONS = 16
MAX_TEXT = 32_768
FIRST_FRAMES = 8
RESUMES = 1_000_000_000
"""ns: media that comes back to a path after such a silence is worth a word."""

Path = tuple[int, Endpoint | None]


class Telling:
    """Collects the messages of one call (`number`; 0: of a flow)."""

    def __init__(self, inside: Callable[[bytes], bool], budget: Budget | None = None, number: int = 0) -> None:
        self.number = number
        self.budget = budget or Budget()
        self.items: list[Step | Fold] = []
        self.exchange = Exchange(self.budget)
        self.cast = Cast(inside)
        self.streams: dict[tuple[int, Endpoint, Endpoint | None, int], Counting] = {}
        self.descriptions: list[Description] = []
        self.clocks: dict[int, int] = {}
        self.kinds: dict[int, str] = {}
        self.untold = 0
        self.over = False
        self.inside = inside
        self._described_by: dict[tuple[bool, str], str] = {}
        """(whether by a response, text) -> role."""
        self._often: dict[tuple[object, ...], int] = {}
        self._fold: Fold | None = None
        self._ways: dict[bytes, tuple[Path, int]] = {}
        self._seen: dict[tuple[Path, bytes], int] = {}
        self._places: dict[tuple[bytes, int], Path] = {}
        self._last: dict[bytes, tuple[int, int, int]] = {}

    # -- steps and folds -----------------------------------------------------------------------------------------

    def add(self, step: Step, said: Said, often: int = SAID_OFTEN) -> None:
        """One message; its like is folded after `often` of them."""
        self.cast.add(step.src, step.dst, step.via)
        key = (step.flow, step.src, step.via, said.what)
        if not step.effects:
            times = self._often[key] = self._often.get(key, 0) + 1 if len(self._often) < MAX_STEPS else often + 1
            if said.media or times > often or len(self.items) > MAX_STEPS:
                self._folded(step, said)
                return
        self._fold = None
        if self.budget.take("items"):
            self.items.append(step)
        else:
            self.untold += 1

    def join(self, other: Telling) -> None:
        """What was another call is part of this one."""
        for item in other.items:
            if isinstance(item, Step):
                self.cast.add(item.src, item.dst, item.via)
        self.items += other.items
        self.streams |= other.streams
        self.descriptions += other.descriptions
        self.untold += other.untold

    def _folded(self, step: Step, said: Said) -> None:
        if self._fold is None:
            if len(self.items) > MAX_STEPS + MAX_FOLDS or not self.budget.take("items"):
                self.untold += 1
                return
            self._fold = Fold()
            self.items.append(self._fold)
        assert step.src is not None
        assert step.dst is not None
        key = (step.flow, step.src, step.via, said.kind if said.types else said.what)
        line = self._fold.lines.get(key)
        if line is None:
            if len(self._fold.lines) >= MAX_LINES:
                self.untold += 1
                return
            line = FoldLine(
                step.flow, step.src, step.dst, step.via, said.kind.upper() if said.types else said.what,
                step.frame, step.frame, step.time, step.time,
            )  # fmt: skip
            self._fold.lines[key] = line
        line.count += 1
        line.bytes += step.bytes
        line.last, line.last_time = step.frame, step.time
        if len(line.frames) < FIRST_FRAMES:
            line.frames.append(step.frame)
        if len(line.types) < 32:
            line.types.update(said.types)

    # -- media ---------------------------------------------------------------------------------------------------

    def media(self, step: Step, layer: Layer, relayed: bool = False) -> Effect | None:
        """An RTP packet; what it changes, if it takes another way than the one before it."""
        facts = {fact.name: fact.value for fact in layer.facts}
        kind, sequence = _int(facts.get("rtp.payload_type")), _int(facts.get("rtp.sequence"))
        ssrc, timestamp = _int(facts.get("rtp.ssrc")), _int(facts.get("rtp.timestamp"))
        assert step.src is not None
        assert step.dst is not None
        key = (step.flow, step.src, step.via, ssrc)
        stream = self.streams.get(key)
        if stream is None and len(self.streams) < MAX_STREAMS and self.budget.take("streams"):
            stream = self.streams[key] = Counting(step.flow, step.src, step.dst, step.via, ssrc)
        if stream is not None:
            source = (self._direction(step), ssrc)
            moved = self._places.get(source)
            self._places[source] = (step.flow, step.via)
            if moved != (step.flow, step.via) and stream.packets and step.time - stream.last_time > RESUMES:
                stream.resume(sequence, step.time)
            stream.add(step.frame, step.time, kind, sequence, timestamp, step.bytes, self.clocks)
        return self._way(step, ssrc, sequence, relayed)

    def _direction(self, step: Step) -> bytes:
        """The same for all ways that one end's media takes: what comes from outside comes by relays and peers."""
        assert step.src is not None
        assert step.dst is not None
        return b"" if self.inside(step.dst.address) and not self.inside(step.src.address) else step.src.address

    def known_rtp(self, flow: int, src: Endpoint, layers: tuple[Layer, ...], payload: memoryview) -> tuple[Layer, ...]:
        """What looks too little like RTP to be called so (rtp.py refuses what reads well as others'), but is the next
        packet of a stream that is counted here."""
        if layers and layers[0].name != "turn":
            return layers
        data = payload if not layers else layers[0].inner
        if data is None or len(data) < 12 or data[0] & 0xC0 != 0x80:
            return layers
        ssrc = int.from_bytes(data[8:12], "big")
        if (flow, src, self.exchange.peer(flow, layers), ssrc) not in self.streams:
            return layers
        return (*layers, next_of_stream(data))

    def _way(self, step: Step, ssrc: int, sequence: int, relayed: bool) -> Effect | None:
        """Which way the media goes: the first packet of a path, and the first after a silence, are told."""
        outward = self._direction(step)
        path: Path = (step.flow, step.via)
        before, seen = self._ways.get(outward), self._seen.get((path, outward))
        self._ways[outward] = (path, step.time)
        self._seen[path, outward] = step.time
        last = self._last.get(outward)
        self._last[outward] = (ssrc, sequence, step.frame)
        if (before is not None and before[0] == path) or (seen is not None and step.time - seen < RESUMES):
            return None
        where = "through the relay" if relayed else "directly"
        both = f"; the same sequence number {sequence} went the other way in {last[2]}" if last and last[:2] == (
            ssrc, sequence) else ""  # fmt: skip
        if before is None:
            return Effect("media", f"media begins, {where}{both}")
        return Effect("media", f"media goes {where} {'again' if seen is not None else 'from here on'}{both}")

    # -- descriptions --------------------------------------------------------------------------------------------

    def describe(self, frame: int, layers: Iterable[Layer]) -> str | None:
        """Keep a session description; "SDP offer" or "SDP answer" if this message has one."""
        message: sip.Message | None = None
        for layer in layers:
            if layer.name == "sip" and isinstance(layer.message, sip.Message):
                message = layer.message
            elif layer.name == "sdp" and message is not None and isinstance(layer.message, Sdp):
                return self._described(frame, message, layer.message)
        return None

    def _described(self, frame: int, message: sip.Message, found: Sdp) -> str:
        body = message.inflated[:MAX_TEXT].decode("utf-8", "replace")
        answers = message.method is None
        known = self._described_by.get((answers, body))
        if known is not None:  # sent again; the other side may well say the same words
            return f"SDP {known}"
        offered = [d for d in self.descriptions if d.role == "offer"]
        answered = [d for d in self.descriptions if d.role == "answer"]
        first_in_answer = answers and len(offered) == len(answered)
        replies = (answers and not first_in_answer) or message.method in ("ACK", "PRACK")
        role: Literal["offer", "answer"] = "answer" if replies else "offer"
        self._learn(found)
        if len(self.descriptions) < MAX_DESCRIPTIONS and self.budget.take("characters", len(body)):
            self.descriptions.append(Description(frame, role, message.encoding, body))
            self._described_by[answers, body] = role
        return f"SDP {role}"

    def _learn(self, found: Sdp) -> None:
        """Kinds and clock rates of payload types."""
        for media in found.media:
            for number in media.formats:
                if isinstance(number, int):
                    self.kinds.setdefault(number, media.kind)
            for name, value in media.attributes:
                if name == "rtpmap":
                    number, _, codec = value.partition(" ")
                    clock = codec.strip().split("/")[1:2]
                    if number.isdigit() and clock and clock[0].isdigit() and len(self.clocks) < 256:
                        self.clocks.setdefault(int(number[:4]), min(int(clock[0][:9]), 10**9))

    def mapped(self, layers: Iterable[Layer]) -> None:
        """By which address the world knows a client: a relay's or server's answer says it (RFC 8489 section 14.2)."""
        for layer in layers:
            if layer.name == "stun":
                facts = Facts(layer.facts)
                found = facts.one("stun.mapped_address")
                if isinstance(found, Endpoint) and facts.one("stun.method") == "allocate":
                    self.cast.mapped[found.address] = None

    def sorted(self) -> list[Step | Fold]:
        """In order of frames; early messages that were known to belong here only later come first."""
        return sorted(self.items, key=lambda item: item.frame)


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


__all__ = ["Telling"]
