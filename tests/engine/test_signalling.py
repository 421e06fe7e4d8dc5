"""What is heard of a call on its signalling flow: here a relay over TCP (RFC 8656 section 12.5), however it is cut."""

from __future__ import annotations

import pytest

from appid.engine import CallReport, FlowReport
from appid.wire import text
from tests.corpus import stun_bytes as stun
from tests.corpus.writer import ACK, PSH, SYN, End
from tests.engine.play import CLIENT, PEER, PUBLIC, Play, bodies, tcp

RELAY = End("203.0.113.9", 443)


class Stream:
    """The client's connection to its relay; `cut`: bytes in a segment."""

    def __init__(self, play: Play, cut: int, cookie: bytes) -> None:
        self.play, self.cut = play, cut
        self.transaction = stun.Transaction(cookie, bytes(range(12)))
        self.numbers = {True: 100, False: 900}
        for outward in (True, False):
            self.write(outward, SYN if outward else SYN | ACK, b"")
            self.numbers[outward] += 1

    def write(self, outward: bool, flags: int, data: bytes) -> None:
        ends = (CLIENT, RELAY) if outward else (RELAY, CLIENT)
        self.play.queue(tcp(*ends, self.numbers[outward], flags, data))

    def send(self, outward: bool, data: bytes) -> int:
        """The number of the packet with the last byte."""
        for at in range(0, len(data), self.cut):
            part = data[at : at + self.cut]
            self.write(outward, PSH | ACK, part)
            self.numbers[outward] += len(part)
        return self.play.number

    def relay(self, outward: bool, method: int, kind: int, *attributes: stun.Attribute) -> int:
        return self.send(outward, stun.message(method, kind, self.transaction, list(attributes)))

    def channel(self, outward: bool, *payloads: bytes) -> int:
        return self.send(outward, b"".join(stun.channel_data(0x5000, each, padded=True) for each in payloads))


@pytest.mark.parametrize("cut", [1400, 60])
@pytest.mark.parametrize("cookie", [stun.COOKIE, b"\x35\x01\x02\x03"], ids=["cookie", "classic"])
def test_a_call_over_tcp_is_heard_whole(cookie: bytes, cut: int) -> None:
    """Also on a channel beyond RFC 8656's own range, and where several messages share a segment."""
    play = Play()
    stream = Stream(play, cut, cookie)
    peer = stun.xor_address(stun.XOR_PEER_ADDRESS, *PEER, stream.transaction)
    relayed = stun.xor_address(stun.XOR_RELAYED_ADDRESS, RELAY.host, 3489, stream.transaction)
    allocate = (relayed, (stun.RESERVATION_TOKEN, bytes(8)), stun.u32(stun.LIFETIME, 60))
    told = stream.relay(True, stun.ALLOCATE, stun.REQUEST, *allocate)
    assert bodies(play.commands, FlowReport)[-1].identification.application == "facetime"
    assert bodies(play.commands, FlowReport)[-1].identified_at == told
    stream.relay(False, stun.ALLOCATE, stun.SUCCESS, relayed)
    stream.relay(True, stun.CHANNEL_BIND, stun.REQUEST, stun.channel_number(0x5000), peer)
    stream.relay(False, stun.CHANNEL_BIND, stun.SUCCESS)
    check = stun.message(stun.BINDING, stun.REQUEST, stream.transaction, [(stun.USERNAME, bytes(20))])
    stream.channel(True, check, check)
    dialog = play.call(shown=PUBLIC).dialog
    invited = stream.channel(True, dialog.invite())
    stream.channel(False, dialog.response(100, "Trying", to_tag=False), dialog.response(180, "Ringing"))
    answered = stream.channel(False, dialog.response(200, "OK", answer=True))
    stream.channel(True, dialog.ack())
    stream.channel(True, dialog.bye())
    ended = stream.channel(False, dialog.bye_answer())
    call = bodies(play.commands, CallReport)[-1]
    assert (call.started_at, call.answered_at, call.ended_at, call.end) == (invited, answered, ended, "bye")
    assert call.callee is not None
    assert text(call.callee) == PEER.host


def test_a_stream_that_began_otherwise_signals_nothing_in_channels() -> None:
    """NAT slipstreaming: a browser may post any body to any port, but not begin a connection with STUN."""
    play = Play()
    stream = Stream(play, 1400, stun.COOKIE)
    stream.send(True, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n" + bytes(20))
    peer = stun.xor_address(stun.XOR_PEER_ADDRESS, *PEER, stream.transaction)
    stream.relay(True, stun.CHANNEL_BIND, stun.REQUEST, stun.channel_number(0x5000), peer)
    stream.channel(True, play.call(shown=PUBLIC).dialog.invite())
    assert [call.call_id for call in bodies(play.commands, CallReport) if call.call_id is not None] == []
