"""Two baresip endpoints in a call with G.711 audio, one inside, one outside.

In: a Town, a family, a transport. Out: what each wire saw of the audio, by RTP source and sequence number (RFC 3550).
"""

from __future__ import annotations

import struct
import subprocess
import time
import wave
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.netns.net import CLIENT4, PEER4, Namespace, until
from tests.sip.proxy import proxy
from tests.sip.sipp import SIP, host_port
from tests.sip.town import INSIDE4, INSIDE6, OTHER4, PLACES, PROXY4, PROXY6, Place, Town
from tests.sip.witness import Seen

MODULES = Path("/usr/lib/baresip/modules")
PORTS = range(16400, 16500)
_OK = b"SIP/2.0 200"
_SIGNALLING = {SIP, SIP + 2}
Audio = dict[tuple[int, int], bytes]
"""(SSRC, sequence number) -> payload."""

_CONFIG = """\
poll_method epoll
sip_listen {listen}
audio_player aubridge,sink
audio_source aufile,{sound}
audio_alert aubridge,sink
jitter_buffer_delay 5-10
rtp_ports {first}-{last}
prefer_ipv6 {v6}
module_path {modules}
module g711.so
module aufile.so
module aubridge.so
module_tmp account.so
module_app menu.so
"""


@dataclass(frozen=True)
class Heard:
    """Audio of one direction as its sender's wire and as its receiver's wire saw it."""

    sent: Audio
    arrived: Audio

    @property
    def lost(self) -> int:
        return len(self.sent.keys() - self.arrived.keys())

    @property
    def which(self) -> str:
        """The lost ones by their place in the order of sending."""
        return ", ".join(str(n) for n, key in enumerate(self.sent) if key not in self.arrived)

    @property
    def changed(self) -> int:
        return sum(self.arrived[key] != payload for key, payload in self.sent.items() if key in self.arrived)


def _sound(path: Path, seconds: int) -> Path:
    """Noise, so that no packet is like another."""
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(Random(str(path)).randbytes(16000 * seconds))
    return path


def _start(
    space: Namespace, folder: Path, user: str, own: str, *flags: str, port: int = SIP, registrar: str = ""
) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True)
    sound = _sound(folder / "noise.wav", 15)
    (folder / "config").write_text(
        _CONFIG.format(listen=host_port(own, port), sound=sound, first=PORTS.start, last=PORTS.stop - 1,
                       v6="yes" if ":" in own else "no", modules=MODULES)
    )  # fmt: skip
    known = f"{host_port(registrar, SIP)}>;regint=60" if registrar else f"{host_port(own, port)}>;regint=0"
    account = f"<sip:{user}@{known};catchall=yes;answermode=auto;audio_codecs=PCMU/8000/1\n"
    (folder / "accounts").write_text(account)
    with (folder / "log").open("wb") as log:
        command = [
            "ip",
            "netns",
            "exec",
            space.name,
            "baresip",
            "-6" if ":" in own else "-4",
            "-f",
            str(folder),
            *flags,
        ]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def audio(seen: list[Seen], arriving: bool) -> Audio:
    """PCMU packets of one direction."""
    found: Audio = {}
    for each in seen:
        data = each.payload
        if each.arriving == arriving and each.proto == "udp" and len(data) > 12 and data[:1] == b"\x80":
            kind, sequence, _, source = struct.unpack_from(">BHII", data, 1)
            if kind & 0x7F == 0:
                found[source, sequence] = data[12:]
    return found


class _Call:
    """Two of them as they run, alice inside, bob outside or, `within`, behind the second wire; what the wires saw since
    it was made."""

    def __init__(self, where: Town, folder: Path, v6: bool, within: bool = False) -> None:
        last = Place.numbered(PLACES - 1, True)
        far = (last.other, OTHER4) if within else (last.peer, PEER4)
        self.own = {"alice": last.phones[1] if v6 else CLIENT4, "bob": far[not v6]}  # what they take for theirs
        self.spaces = {"alice": where.client, "bob": where.other if within else where.peer}
        self.where, self.folder = where, folder
        self.wires = {space: where.witnesses[space] for space in (where.client, where.peer, where.other)}
        self.starts = {space: len(wire.seen) for space, wire in self.wires.items()}
        self.stack = ExitStack()

    def __enter__(self) -> _Call:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def begin(self, user: str, *flags: str, port: int = SIP, registrar: str = "") -> subprocess.Popen[bytes]:
        space, own = self.spaces[user], self.own[user]
        child = _start(space, self.folder / user, user, own, *flags, port=port, registrar=registrar)
        self.stack.callback(child.wait)
        self.stack.callback(child.kill)
        return child

    def seen(self, space: Namespace) -> list[Seen]:
        return self.wires[space].seen[self.starts[space] :]

    def hears(self, user: str, begins: bytes) -> bool:
        """Waits for a message on his wire, either way."""
        return until(lambda: any(s.payload.startswith(begins) for s in self.seen(self.spaces[user])), 10)

    def says(self, user: str, what: str) -> bool:
        return until(lambda: what in (self.folder / user / "log").read_text(errors="replace"), 10)

    def heard(self, hanging_up: list[subprocess.Popen[bytes]], seconds: int) -> tuple[Heard, Heard]:
        """After so much talk; the first to end says BYE. Out: audio outward, audio inward, from the 200's arrival on
        (over TCP baresip speaks some ms before it answers: what nobody foresaw is refused) to what crosses the BYE."""
        assert self.hears("bob", b"ACK "), "the call does not come up"
        time.sleep(seconds)
        for child in hanging_up:
            child.terminate()
            child.wait(10)
        time.sleep(0.2)
        inner, outer = (self.seen(self.spaces[user]) for user in ("alice", "bob"))
        end = min((seen.at for seen in (*inner, *outer) if seen.payload.startswith(b"BYE ")), default=0.0) - 0.02
        assert end > 0, "nobody hung up"
        told = [s.payload for s in self.seen(self.where.peer) if s.arriving and {s.sport, s.dport} & _SIGNALLING]
        inside = [one.encode() for one in (*INSIDE4, *INSIDE6)]
        lines = [line for text in told for line in text.split(b"\r\n") if not line.startswith(b"a=ssrc:")]
        leaks = [line for line in lines if any(one in line for one in inside)]  # but for a CNAME: RFC 5576, no address
        assert not (self.where.nat and leaks), leaks
        begun = max(_answered(inner), _answered(outer))
        said = [[seen for seen in wire if begun < seen.at < end] for wire in (inner, outer)]
        return Heard(audio(said[0], False), audio(outer, True)), Heard(audio(said[1], False), audio(inner, True))


def _answered(wire: list[Seen]) -> float:
    """When the INVITE's 200 was first on this wire."""
    return next((s.at for s in wire if s.payload.startswith(_OK) and b" INVITE\r\n" in s.payload), 0.0)


def call(where: Town, folder: Path, v6: bool, tcp: bool, seconds: int) -> tuple[Heard, Heard]:
    """The one inside calls, both speak; the one outside hangs up, or the one inside where it is TCP: baresip would
    send its BYE to the Contact by UDP."""
    with _Call(where, folder, v6) as made:
        callee = made.begin("bob")
        assert made.says("bob", "baresip is ready")
        to = f"sip:bob@{host_port(made.own['bob'], SIP)}" + (";transport=tcp" if tcp else "")
        caller = made.begin("alice", "-e", f"/dial {to}")
        return made.heard([caller, callee] if tcp else [callee, caller], seconds)


def called(where: Town, folder: Path, v6: bool, seconds: int, by_callee: bool = False) -> tuple[Heard, Heard]:
    """The one inside has registered outside, and is called where it said (RFC 3261 section 10.2.1); the registrar and
    the caller are at one address. `by_callee`: the one inside hangs up."""
    with _Call(where, folder, v6) as made, proxy(where, folder / "proxy", at=(made.own["bob"],)):
        callee = made.begin("alice", registrar=made.own["bob"])
        assert made.hears("alice", b"SIP/2.0 200"), "not registered"
        caller = made.begin("bob", "-e", f"/dial sip:alice@{host_port(made.own['bob'], SIP)}", port=SIP + 2)
        return made.heard([callee, caller] if by_callee else [caller, callee], seconds)


def both_inside(where: Town, folder: Path, v6: bool, seconds: int, stays: bool) -> tuple[Heard, Heard]:
    """Both have registered at a proxy outside. Unless it `stays` in the path, ACK and BYE go straight."""
    at = PROXY6 if v6 else PROXY4
    with _Call(where, folder, v6, within=True) as made, proxy(where, folder / "proxy", stays):
        callee = made.begin("bob", registrar=at)
        assert made.hears("bob", b"SIP/2.0 200"), "not registered"
        caller = made.begin("alice", "-e", f"/dial sip:bob@{host_port(at, SIP)}", registrar=at)
        return made.heard([callee, caller], seconds)
