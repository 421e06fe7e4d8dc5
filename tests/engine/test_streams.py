"""Connections that carry SIP out of a translated network: taken in hand from their first byte on, or not at all."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

from appid.alg.splice import UNACKNOWLEDGED
from appid.dataplane.command import RelaxTcp, RewritePayload
from appid.engine.kept_stream import MAX_BYTES, kept_stream
from appid.packet import ACK, SYN
from appid.wire import TCP
from tests.corpus.writer import End, ip_packet, tcp_segment
from tests.engine.phones import GATE, PROVIDER, SIP, Phone, gateway
from tests.engine.play import Play, of, settings, tcp, verdict

HERE = End("172.16.42.187", 40000)
TLS = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"


def opened(play: Play, to: End = PROVIDER) -> bytes:
    """The handshake; and a message that the phone will send."""
    play.queue(tcp(HERE, to, 1000, SYN))
    play.queue(tcp(to, HERE, 7000, SYN | ACK))
    return Phone(play, HERE).head("OPTIONS sip:bob@198.51.100.20 SIP/2.0", "1 OPTIONS", "", b"").replace(b"UDP", b"TCP")


def test_a_stream_of_sip_is_taken_in_hand_with_its_first_message() -> None:
    play = gateway()
    message = opened(play)
    commands = play.queue(tcp(HERE, PROVIDER, 1001, ACK, message))
    assert len(of(commands, RelaxTcp)) == 1
    (changed,) = of(commands, RewritePayload)
    assert f"SIP/2.0/TCP {GATE}:40000;".encode() in changed.payload
    again = play.queue(tcp(HERE, PROVIDER, 1001 + len(message), ACK, message.replace(b"1 OPT", b"2 OPT")))
    assert of(again, RelaxTcp) == []
    assert of(again, RewritePayload)[0].numbers is not None


def test_what_comes_before_the_streams_beginning_must_come_again() -> None:
    """Passed on untouched it could not be made right once the beginning is there."""
    play = gateway()
    message = opened(play)
    assert verdict(play.queue(tcp(HERE, PROVIDER, 1101, ACK, message[100:]))).verdict == "drop"
    assert of(play.queue(tcp(HERE, PROVIDER, 1001, ACK, message[:100])), RelaxTcp)


def test_data_in_the_syn_comes_again_behind_the_handshake() -> None:
    """RFC 7413: as from a server that does not take it. Then nothing has gone out that could not be made right."""
    play = gateway()
    message = opened(gateway())
    for _ in range(2):
        (bare,) = of(play.queue(tcp(HERE, PROVIDER, 1000, SYN, message)), RewritePayload)
        assert (bare.payload, bare.numbers) == (b"", None)
    play.queue(tcp(PROVIDER, HERE, 7000, SYN | ACK))
    for number in range(2):
        (sent,) = of(play.queue(tcp(HERE, PROVIDER, 1001 + number * len(message), ACK, message)), RewritePayload)
        assert f"SIP/2.0/TCP {GATE}:40000;".encode() in sent.payload
        assert sent.numbers is not None
        assert sent.numbers.sequence == 1001 + number * len(sent.payload)


def test_data_in_another_streams_syn_goes_as_it_is() -> None:
    for play, to in (
        (gateway(), PROVIDER._replace(port=443)),
        (Play(settings(SIP)), PROVIDER),
        (Play(replace(gateway().settings, monitor=True)), PROVIDER),
    ):
        message = opened(gateway())
        for sequence, flags in ((1000, SYN), (1001 + len(message), ACK), (1001 + 2 * len(message), ACK)):
            commands = play.queue(tcp(HERE, to, sequence, flags, message))
            assert not of(commands, RelaxTcp)
            assert not of(commands, RewritePayload)


def test_other_streams_are_left_alone() -> None:
    for play, to, data in (
        (gateway(), PROVIDER, TLS),
        (gateway(), PROVIDER._replace(port=443), TLS),
        (Play(settings(SIP)), PROVIDER, None),
    ):
        message = opened(play, to)
        commands = play.queue(tcp(HERE, to, 1001, ACK, data or message))
        assert not of(commands, RelaxTcp)
        assert not of(commands, RewritePayload)


def test_what_the_far_end_does_not_acknowledge_is_bounded_and_the_rest_comes_again() -> None:
    """A host that minds no window had filled its worker's memory; each of its packets had cost all that was held."""
    play = gateway()
    message = opened(play)
    many, sent = message * 5, 1001
    play.queue(tcp(HERE, PROVIDER, sent, ACK, message))
    sent += len(message)
    (record,) = play.engine.flows.values()
    assert record.spliced is not None
    while verdict(answer := play.queue(tcp(HERE, PROVIDER, sent, ACK, many))).verdict != "drop":
        sent += len(many)
        assert sent < 4 * UNACKNOWLEDGED, "taken without end"
    assert of(answer, RewritePayload) == []
    held = record.spliced[0].held
    assert held > 2 * MAX_BYTES
    tracemalloc.start()
    assert kept_stream(play.engine, record) is None
    assert tracemalloc.get_traced_memory()[1] < MAX_BYTES, "nothing is copied of what is not written down"
    tracemalloc.stop()
    arrives = 1001 + held
    all_of_it = tcp_segment(PROVIDER, HERE, 7001, arrives, ACK, b"")
    (told,) = of(play.queue(ip_packet(PROVIDER.host, HERE.host, TCP, all_of_it, 1, 64)), RewritePayload)
    assert told.numbers is not None
    assert told.numbers.acknowledgement == sent, "all that was taken"
    again = play.queue(tcp(HERE, PROVIDER, sent, ACK, many))
    assert verdict(again).verdict == "repeat"
    (changed,) = of(again, RewritePayload)
    assert changed.numbers is not None
    assert changed.numbers.sequence == arrives
    assert kept_stream(play.engine, record) is not None
