"""A call through a relay that is reached over TCP, behind source NAT: what the relay gets names the gateway alone."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace

import pytest

from appid.dataplane.command import Command, RelaxTcp, RewritePayload
from appid.engine import TranslationReport
from appid.wire import packed
from tests.corpus import stun_bytes as stun
from tests.engine.play import CLIENT, PEER, PUBLIC, Play, bodies, of, settings
from tests.engine.test_signalling import RELAY, Stream

NATTED = replace(settings(default="allow", outside=PUBLIC), masqueraded=((packed("172.16.42.0"), 24),))


class Wire(Stream):
    """What leaves towards the relay, put together by its numbers."""

    def __init__(self, play: Play, cut: int) -> None:
        self.left: dict[int, bytes] = {}
        self.commands: list[Command] = []
        super().__init__(play, cut, stun.COOKIE)

    def write(self, outward: bool, flags: int, data: bytes) -> None:
        before = len(self.play.commands)
        super().write(outward, flags, data)
        if not outward or not data:
            return
        changed = of(self.play.commands[before:], RewritePayload)
        at, payload = self.numbers[True], data
        if changed:
            assert changed[0].numbers is not None
            at, payload = changed[0].numbers.sequence, changed[0].payload
        self.left[at] = max(self.left.get(at, b""), payload, key=len)

    def stream(self) -> bytes:
        out, first = b"", min(self.left)
        for at, payload in sorted(self.left.items()):
            assert at - first <= len(out), "a hole"
            out = out[: at - first] + payload if at - first + len(payload) > len(out) else out
        return out


def messages(stream: bytes) -> list[bytes]:
    """RFC 8656 section 12.5: each framed by its length, padded to four bytes."""
    found = []
    while stream:
        channel, length = stream[0] & 0xC0 == 0x40, int.from_bytes(stream[2:4], "big")
        size = 4 + length if channel else 20 + length
        assert size <= len(stream)
        found.append(stream[4 if channel else 0 : size])
        stream = stream[size + (-size % 4 if channel else 0) :]
    return found


@pytest.mark.parametrize("cut", [1400, 60])
def test_what_goes_in_its_channels_is_translated_and_framed(cut: int) -> None:
    play = Play(NATTED)
    wire = Wire(play, cut)
    peer = stun.xor_address(stun.XOR_PEER_ADDRESS, *PEER, wire.transaction)
    relayed = stun.xor_address(stun.XOR_RELAYED_ADDRESS, RELAY.host, 3489, wire.transaction)
    wire.relay(True, stun.ALLOCATE, stun.REQUEST, relayed, (stun.RESERVATION_TOKEN, bytes(8)))
    wire.relay(False, stun.ALLOCATE, stun.SUCCESS, relayed)
    wire.relay(True, stun.CHANNEL_BIND, stun.REQUEST, stun.channel_number(0x5000), peer)
    wire.relay(False, stun.CHANNEL_BIND, stun.SUCCESS)
    dialog = play.call(shown=CLIENT.host).dialog
    media = b"\x80\x60" + bytes(101)
    wire.channel(True, media)
    wire.channel(True, dialog.invite())
    wire.channel(True, media, media)
    assert len(of(play.commands, RelaxTcp)) == 1
    sent = messages(wire.stream())
    told = next(each for each in sent if each.startswith(b"INVITE"))
    head, _, content = told.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^(?:content-length|l): *(\d+)", head)
    assert length is not None
    assert int(length[1]) == len(content)
    assert CLIENT.host.encode() not in head
    session = zlib.decompress(content) if content[:1] == b"\x78" else content
    assert PUBLIC.encode() in session
    assert CLIENT.host.encode() not in session
    assert sent.count(media) == 3, "what is no SIP goes as it came"
    results = [report.result for report in bodies(play.commands, TranslationReport)]
    assert "translated" in results
    assert "partial" not in results


def test_what_nobody_looks_for_sip_in_stays_the_kernels() -> None:
    """WebRTC through a relay over TCP: megabits a second that userspace need not see."""
    play = Play(NATTED)
    wire = Wire(play, 1400)
    peer = stun.xor_address(stun.XOR_PEER_ADDRESS, *PEER, wire.transaction)
    udp = (0x0019, bytes((17, 0, 0, 0)))  # REQUESTED-TRANSPORT, RFC 8656 section 18.7
    wire.relay(True, stun.ALLOCATE, stun.REQUEST, udp)
    wire.relay(False, stun.ALLOCATE, stun.SUCCESS)
    wire.relay(True, stun.CHANNEL_BIND, stun.REQUEST, stun.channel_number(0x4000), peer)
    wire.relay(False, stun.CHANNEL_BIND, stun.SUCCESS)
    for _ in range(20):
        wire.send(True, stun.channel_data(0x4000, b"\x80\x60" + bytes(101), padded=True))
    assert of(play.commands, RelaxTcp) == []
    assert of(play.commands, RewritePayload) == []
