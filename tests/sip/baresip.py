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
from tests.sip.sipp import host_port
from tests.sip.town import PLACES, Place, Town
from tests.sip.witness import Seen

MODULES = Path("/usr/lib/baresip/modules")
PORTS = range(16400, 16500)
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
    def changed(self) -> int:
        return sum(self.arrived[key] != payload for key, payload in self.sent.items() if key in self.arrived)


def _sound(path: Path, seconds: int) -> Path:
    """Noise, so that no packet is like another."""
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(Random(str(path)).randbytes(16000 * seconds))
    return path


def _start(space: Namespace, folder: Path, user: str, own: str, *flags: str) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True)
    sound = _sound(folder / "noise.wav", 15)
    (folder / "config").write_text(
        _CONFIG.format(listen=host_port(own, 5060), sound=sound, first=PORTS.start, last=PORTS.stop - 1,
                       v6="yes" if ":" in own else "no", modules=MODULES)
    )  # fmt: skip
    account = f"<sip:{user}@{host_port(own, 5060)}>;regint=0;catchall=yes;answermode=auto;audio_codecs=PCMU/8000/1\n"
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


def call(where: Town, folder: Path, v6: bool, tcp: bool, seconds: int) -> tuple[Heard, Heard]:
    """The one inside calls, both speak; the one outside hangs up, or the one inside where it is TCP: baresip would
    send its BYE to the Contact by UDP. Out: audio outward, audio inward."""
    last = Place.numbered(PLACES - 1, True)
    inside, outside = (last.phones[1], last.peer) if v6 else (CLIENT4, PEER4)  # what baresip takes for its own
    to = f"sip:bob@{host_port(outside, 5060)}" + (";transport=tcp" if tcp else "")
    wires = where.witnesses[where.client], where.witnesses[where.peer]
    starts = [len(wire.seen) for wire in wires]
    with ExitStack() as stack:

        def begin(space: Namespace, user: str, own: str, *flags: str) -> subprocess.Popen[bytes]:
            child = _start(space, folder / user, user, own, *flags)
            stack.callback(child.wait)
            stack.callback(child.kill)
            return child

        callee = begin(where.peer, "bob", outside)
        assert until(lambda: "baresip is ready" in (folder / "bob/log").read_text(errors="replace"), 10)
        caller = begin(where.client, "alice", inside, "-e", f"/dial {to}")
        up = until(lambda: any(s.payload.startswith(b"ACK ") for s in wires[1].seen[starts[1] :]), 10)
        assert up, "the call does not come up"
        time.sleep(seconds)
        for child in (caller, callee) if tcp else (callee, caller):  # the first says BYE
            child.terminate()
            child.wait(10)
    time.sleep(0.2)
    inner, outer = (wire.seen[start:] for wire, start in zip(wires, starts, strict=True))
    end = min((seen.at for seen in (*inner, *outer) if seen.payload.startswith(b"BYE ")), default=0.0) - 0.02
    assert end > 0, "nobody hung up"
    said = [[seen for seen in wire if seen.at < end] for wire in (inner, outer)]  # what crosses the BYE may be cut
    return Heard(audio(said[0], False), audio(outer, True)), Heard(audio(said[1], False), audio(inner, True))
