"""The stage of a session: the capture being written, the legs through a relay, the ICE checks, and the truth so far."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.corpus import background
from tests.corpus import stun_bytes as stun
from tests.corpus.expected import CallTruth, Case, Expected, FlowTruth, PinholeTruth
from tests.corpus.media import Media
from tests.corpus.sip_bytes import Dialog, Party
from tests.corpus.variation import Variation
from tests.corpus.writer import TCP, UDP, Capture, End, FlowId, Tcp

START = 1_425_225_600.0
FACETIME = ("facetime",)


@dataclass
class Mark:
    applications: tuple[str, ...]
    by: int | None
    call: int | None


@dataclass
class Keeper:
    """Something a client repeats during the media, one frame each time."""

    interval: float
    due: float
    send: Callable[[], object]


class Scene:
    def __init__(self, session: int, variation: Variation) -> None:
        self.session, self.v, self.h = session, variation, variation.hosts
        self.rng = random.Random(f"{session}/{variation.seed}/{variation.v6}")
        self.cap = Capture(START + session * 3600)
        self.cap.inside(self.h.client, self.h.client2)
        self.back = background.Background(self.cap, variation, self.rng)
        self.marks: dict[FlowId, Mark] = {}
        self.keep: list[Keeper] = []
        self.pending: tuple[bytes, bytes] = (b"", b"")
        """Answers that a later act sends."""
        self.calls: list[CallTruth] = []
        self.pinholes: list[PinholeTruth] = []
        self.client = End(self.h.client, variation.media_port)
        self.client2 = End(self.h.client2, variation.media_port)
        self.peer = End(self.h.peer_public, variation.peer_port)
        self.peer_local = End(self.h.peer_local, variation.peer_port)
        self.public = End(self.h.own_public, variation.media_port)

    # -- time and filling ---------------------------------------------------------------------------------------

    def quiet(self, frame: int, seconds: float) -> None:
        """Background up to (not including) `frame`, which is due `seconds` from now."""
        gaps = frame - self.cap.next
        assert gaps >= 0, f"frame {frame} is past: next is {self.cap.next}"
        end = self.cap.now + seconds
        for left in range(gaps, 0, -1):
            self.cap.now += (end - self.cap.now) / (left + 1) * self.rng.uniform(0.6, 1.4)
            self.back.step()
        self.cap.now = end

    def play(self, media: Media, frame: int, out: Way, into: Way, also: float = 0.005) -> None:
        """Media up to `frame`, and a little background with probability `also`."""
        while self.cap.next < frame:
            keeper = next((k for k in self.keep if self.cap.now >= k.due), None)
            if keeper:
                keeper.due = self.cap.now + keeper.interval
                self.tick(0.0001)
                keeper.send()
                continue
            if self.rng.random() < also or self.cap.next + max(out.frames, into.frames) > frame:
                self.cap.now += 0.0002
                self.back.step()
                continue
            due = media.take()
            self.cap.now = max(due.time, self.cap.now + 0.00005)
            (out if due.outgoing else into)(due.data, due.kind)

    def at(self, frame: int) -> None:
        assert self.cap.next == frame, f"next frame is {self.cap.next}, the report says {frame}"

    def tick(self, seconds: float = 0.0004) -> None:
        self.cap.now += seconds

    # -- values -------------------------------------------------------------------------------------------------

    def transaction(self) -> stun.Transaction:
        return stun.Transaction(self.v.cookie, self.rng.randbytes(12))

    def fragment(self) -> bytes:
        """Half of a username: 10 bytes, none of them a colon."""
        return bytes(self.rng.choice([b for b in range(256) if b != 0x3A]) for _ in range(10))

    def dialog(self, offerer: End, answerer: End) -> Dialog:
        """`offerer` and `answerer` are the addresses as the SDP names them."""
        rtcp = self.v.rtcp_port
        a = Party(offerer.host, offerer.port, rtcp or offerer.port, "user", f"{self.rng.randrange(1 << 31)}")
        b = Party(answerer.host, answerer.port, rtcp or answerer.port, "user", f"{self.rng.randrange(1 << 31)}")
        r = self.rng.randbytes(16).hex()
        call_id = f"{r[:8]}-{r[8:12]}-{r[12:16]}-{r[16:20]}-{r[20:]}"
        return Dialog(
            a, b, call_id, self.rng.randbytes(8).hex(), 1, self.rng.randrange(1 << 31),
            self.v.encoding, self.v.encoding_header, self.v.user_agent,
        )  # fmt: skip

    # -- truth --------------------------------------------------------------------------------------------------

    def mark(
        self, proto: int, a: End, b: End, by: int | None, call: int | None = 0, names: tuple[str, ...] = FACETIME
    ) -> None:
        """The flow between a and b is FaceTime's (or `names`); it can be known by frame `by`. The first mark counts."""
        self.marks.setdefault(self.cap.flow(proto, a, b), Mark(names, by, call))

    def frame_at(self, seconds: float) -> int:
        """The last frame not later than `seconds`."""
        return sum(1 for when, _ in self.cap.frames if when <= seconds)

    def pinhole(
        self,
        inside: End,
        peer: str,
        opens: tuple[int, int],
        bye: int,
        answer: int | None,
        call: int = 0,
        required: bool = True,
    ) -> None:
        """Call it when the capture is complete; one per port that the SDP named."""
        last = self.cap.frames[answer - 1][0] + 5 if answer else self.cap.frames[bye - 1][0] + 32
        open_end = last > self.cap.frames[-1][0]
        ports = [inside.port] + ([self.v.rtcp_port] if self.v.rtcp_port is not None else [])
        for port in ports:
            truth = PinholeTruth(inside.host, port, peer, *opens, bye, self.frame_at(last), open_end, call, required)
            self.pinholes.append(truth)

    def case(self, name: str) -> Case:
        flows = tuple(self._truth(flow, tuple(frames)) for flow, frames in self.cap.flows.items())
        return Case(name, self.cap, Expected(flows, tuple(self.calls), tuple(self.pinholes)))

    def _truth(self, flow: FlowId, frames: tuple[int, ...]) -> FlowTruth:
        mark = self.marks.get(flow)
        if mark:
            return FlowTruth(flow, mark.applications, frames, mark.by, mark.call)
        names = {53: ("dns",), 5353: ("mdns", "dns"), 443: ("ssl",), self.v.snatmap_port: ("snatmap",)}
        if flow.dst.port == 5223:
            return FlowTruth(flow, ("apple-push",) if self.v.push_hello else ("apple-push", "ssl"), frames)
        known = names.get(flow.dst.port) or names[flow.src.port]
        return FlowTruth(flow, known, frames)

    # -- scenes that several sessions share -----------------------------------------------------------------------

    def snatmap(self) -> None:
        """Request and reply, two frames (field notes A5). IPv4 in any case: the probe knows nothing else."""
        local = End(self.v.v4_client, self.v.snatmap_port)
        server = End("17.173.255.222" if self.v.v6 else self.h.prober, 16384)
        mapped = End("71.15.163.132" if self.v.v6 else self.h.own_public, self.v.snatmap_port)
        nonce, pad = self.rng.randrange(1 << 31), self.v.snatmap_pad
        self.cap.udp(local, server, struct.pack("!II", 1, nonce) + _raw(local) + struct.pack("!H", pad))
        self.tick(0.041)
        inverted = bytes(b ^ 0xFF for b in _raw(mapped))
        self.cap.udp(server, local, struct.pack("!II", 2, nonce) + inverted + struct.pack("!H", pad))

    def web_probe(self, port: int) -> Tcp:
        return Tcp(self.cap, End(self.h.client, port), End(self.h.web_probe, 80), self.rng.randrange(1 << 31), 77)

    def invite(self, flow: tuple[End, End], payload: bytes, frame: int) -> None:
        """The INVITE's frame is `frame`; in fragments, that is the last one's, and the first takes the frame before."""
        if not self.split(payload):
            self.quiet(frame, 0.02)
            self.cap.udp(*flow, payload)
            return
        self.quiet(frame - 1, 0.02)
        self.cap.udp_fragments(*flow, payload, (len(payload) + 8) // 2 + 8)

    def split(self, payload: bytes) -> bool:
        return self.v.invite_fragments or len(payload) > 1440


class Way:
    """How one direction of the media travels: called with the packet and its kind (audio, video, rtcp, sip)."""

    frames = 1
    """How many frames one packet makes, where the capture sees it more than once."""

    def __call__(self, data: bytes, kind: str) -> None:
        raise NotImplementedError


@dataclass
class Direct(Way):
    scene: Scene
    src: End
    dst: End
    call: int = 0

    def __call__(self, data: bytes, kind: str) -> None:
        src, dst = self.src, self.dst
        port = self.scene.v.rtcp_port
        if kind == "rtcp" and port is not None:
            src, dst = src._replace(port=port), dst._replace(port=port)
        number = self.scene.cap.udp(src, dst, data)
        self.scene.mark(UDP, src, dst, number, self.call)


class Both(Way):
    """The same packet by each of two ways, one after the other."""

    def __init__(self, scene: Scene, first: Way, second: Way) -> None:
        self.scene, self.first, self.second = scene, first, second
        self.frames = first.frames + second.frames

    def __call__(self, data: bytes, kind: str) -> None:
        self.first(data, kind)
        self.scene.tick(0.0003)
        self.second(data, kind)


def _raw(end: End) -> bytes:
    return bytes(int(part) for part in end.host.split(".")) + struct.pack("!H", end.port)


__all__ = ["TCP", "UDP", "Both", "Dialog", "Direct", "Keeper", "Scene", "Way"]
