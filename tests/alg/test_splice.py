"""A stream whose messages change their length: two ends that each see one unbroken connection, whatever the path does.

A small TCP stands at either end: bytes in, segments out, in the sender's numbers; the receiver acknowledges what it has
in order. Between them the splice. What arrives is compared with each message translated by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict, TypeAdapter

from appid.alg.framing import LONGEST
from appid.alg.splice import EDITS, PATIENCE, ROOM, UNACKNOWLEDGED, Position, Splice
from appid.alg.translate import translate_datagram
from tests.alg.natted import OUT, SDP, fields, lf, sip

WRITTEN = TypeAdapter(Position, config=ConfigDict(ser_json_bytes="hex", val_json_bytes="hex"))
BASE = 0xFFFFFF00  # the numbers wrap early
MESSAGES = [sip(lf(SDP)), sip(b"", "OPTIONS sip:b@198.51.100.20 SIP/2.0"), b"\r\n\r\n", sip(lf(SDP), "SIP/2.0 200 OK")]


def translated(messages: list[bytes]) -> bytes:
    out = b""
    for message in messages:
        found = translate_datagram(message, OUT)
        out += message if found is None else found.payload
    return out


@dataclass
class Path:
    """Sender, splice, receiver. `send` puts the bytes [start, end) of the sender's stream on the wire."""

    data: bytes
    splice: Splice = field(default_factory=lambda: Splice(BASE))
    got: bytearray = field(default_factory=bytearray)
    early: dict[int, bytes] = field(default_factory=dict)
    told: int = 0
    fin: bool = False
    held: list[tuple[int, int, bool]] = field(default_factory=list)

    def come_back(self) -> None:
        """What was put off is there again."""
        held, self.held = self.held, []
        for start, end, lost in held:
            self.send(start, end, lost=lost)

    def send(self, start: int, end: int, fin: bool = False, lost: bool = False) -> bytes:
        number = (BASE + start) % 2**32
        sent = self.splice.segment(number, memoryview(self.data[start:end]), fin, OUT)
        if sent.later:
            self.held.append((start, end, lost))
            return b""
        if sent.lost:
            return b""
        at = (sent.sequence - BASE + 2**31) % 2**32 - 2**31
        if not lost:
            self.early[at] = max(self.early.get(at, b""), sent.payload, key=len)
            self._take()
            if fin and sent.fin and at + len(sent.payload) == len(self.got):
                self.fin = True
        self.acknowledge()
        return sent.payload

    def _take(self) -> None:
        """What is in order; a byte that came before stays as it was."""
        moved = True
        while moved:
            moved = False
            for at, payload in list(self.early.items()):
                if at <= len(self.got) < at + len(payload):
                    self.got += payload[len(self.got) - at :]
                    moved = True
                if at + len(payload) <= len(self.got):
                    del self.early[at]

    def acknowledge(self) -> int:
        number = self.splice.acknowledge((BASE + len(self.got) + self.fin) % 2**32)
        told = (number - BASE + 2**31) % 2**32 - 2**31
        assert told >= self.told, "an acknowledgement never goes back"
        assert told <= len(self.data) + 1
        self.told = told
        return told

    def restart(self) -> None:
        """Another process goes on with what the first wrote down, as JSON writes it."""
        self.splice = Splice.at(WRITTEN.validate_json(WRITTEN.dump_json(self.splice.position)))

    def finish(self, turns: int = 200) -> None:
        """The sender goes on until everything is acknowledged, as it must (RFC 9293 section 3.8.1)."""
        for _ in range(turns):
            self.come_back()
            if self.told >= len(self.data):
                return
            self.send(self.told, min(self.told + 1000, len(self.data)))
        raise AssertionError("the connection stands still")


def test_a_message_a_segment() -> None:
    path, at = Path(b"".join(MESSAGES)), 0
    for message in MESSAGES:
        path.send(at, at + len(message))
        at += len(message)
        assert path.told == at, "acknowledged at once"
    assert path.got == translated(MESSAGES)
    assert path.splice.results == ["translated"] * 3


def test_several_messages_a_segment() -> None:
    path = Path(b"".join(MESSAGES[1:3] + MESSAGES[:1]))
    path.send(0, len(path.data))
    path.finish()
    assert path.got == translated(MESSAGES[1:3] + MESSAGES[:1])


@pytest.mark.parametrize("size", [1, 7, 40, 300])
def test_one_message_in_many_segments(size: int) -> None:
    """Each piece is acknowledged, or a sender that waits for that would never send the next."""
    message = MESSAGES[0]
    path = Path(message)
    for start in range(0, len(message), size):
        path.send(start, min(start + size, len(message)))
        if start + size < len(message):
            assert path.told == start + size
            assert path.got == b""
    path.finish()
    assert path.got == translated([message])


def test_the_last_byte_is_not_answered_for_before_the_receiver_has_it() -> None:
    message = MESSAGES[0]
    path = Path(message)
    path.send(0, 500)
    path.send(500, len(message), lost=True)
    assert path.told < len(message)
    path.send(500, len(message))
    assert path.got == translated([message])
    assert path.told == len(message)


def test_retransmissions_carry_what_was_lost() -> None:
    path, message = Path(MESSAGES[0] * 2), MESSAGES[0]
    path.send(0, len(message), lost=True)
    path.send(len(message), len(path.data))
    path.send(0, len(message))
    path.finish()
    assert path.got == translated([message, message])


def test_segments_out_of_order() -> None:
    message = MESSAGES[0]
    path = Path(message)
    path.send(300, len(message))
    assert path.told == 0
    path.send(0, 300)
    path.finish()
    assert path.got == translated([message])


def test_a_segment_without_room_leaves_the_rest_to_the_next() -> None:
    big = sip(lf(SDP + "a=x\n" * 600))
    path = Path(big)
    for start in range(0, len(big), 1100):
        payload = path.send(start, min(start + 1100, len(big)))
        assert len(payload) <= ROOM
    assert path.told < len(big)
    path.finish()
    assert path.got == translated([big])


@pytest.mark.parametrize("lines", range(900, 1200, 37))
def test_full_segments_wait_for_the_rest_and_carry_it(lines: int) -> None:
    """Nothing has to be sent again, though the message has grown, whatever is left for its last segment."""
    big = sip(lf(SDP + "a=x\n" * lines))
    path = Path(big)
    for start in range(0, len(big), 1400):
        path.send(start, min(start + 1400, len(big)))
    assert len(path.held) >= 3
    path.come_back()
    assert path.got == translated([big])
    assert len(path.got) > len(big)
    assert path.told == len(big)


def test_a_full_segment_that_waits_in_vain_is_answered_for() -> None:
    """Its sender may wait for that before it sends the rest."""
    big = sip(lf(SDP + "a=x\n" * 600))
    path = Path(big)
    path.send(0, 1300)
    assert path.told == 0
    path.come_back()
    assert path.told == 1300
    path.restart()
    path.send(1300, len(big))
    path.finish()
    assert path.got == translated([big])


def test_a_clock_never_goes_back() -> None:
    """RFC 7323 section 5: what was put off has an older one than what went out before it; it wraps."""
    splice = Splice(BASE)
    told = [splice.clock(each) for each in (2**32 - 2, 1, 2**32 - 1, None, 2)]
    assert told == [2**32 - 2, 1, 1, None, 2]


def test_a_bare_acknowledgement_of_the_sender_takes_what_is_left_along() -> None:
    big = sip(lf(SDP + "a=x\n" * 300))
    path = Path(big)
    path.send(0, len(big) - 100)
    path.come_back()
    left = len(translated([big]))
    path.splice._largest = ROOM  # what one segment took in this test is no measure of the path
    path.send(len(big) - 100, len(big))
    assert len(path.got) == ROOM
    while len(path.got) < left:
        before = len(path.got)
        path.send(len(big), len(big))
        assert len(path.got) > before
    assert path.got == translated([big])


def test_the_end_of_the_stream_comes_after_everything() -> None:
    message = MESSAGES[0]
    path = Path(message)
    path.send(0, len(message), fin=True)
    assert path.got == translated([message])
    assert path.fin
    assert path.acknowledge() == len(message) + 1


def test_an_end_before_its_time_is_held_back() -> None:
    message = MESSAGES[0]
    path = Path(message)
    path.send(300, len(message), fin=True)
    assert not path.fin
    path.send(0, 300)
    path.send(300, len(message), fin=True)
    path.finish()
    assert path.got == translated([message])
    assert path.fin


def test_a_message_that_never_ends_goes_out_with_the_streams_end() -> None:
    path = Path(MESSAGES[0][:-50])
    path.send(0, len(path.data))
    path.send(len(path.data), len(path.data), fin=True)
    assert path.got == MESSAGES[0][:-50]
    assert path.fin


def test_a_keep_alive_stays_one() -> None:
    """RFC 9293 section 3.8.4: one byte, or none, from before what is expected."""
    path = Path(MESSAGES[0])
    path.send(0, len(path.data))
    sent = path.splice.segment((BASE + len(path.data) - 1) % 2**32, memoryview(b""), False, OUT)
    assert (sent.sequence - BASE) % 2**32 == len(path.got) - 1
    assert sent.payload == b""


def test_the_byte_that_is_repeated_is_the_one_that_was_lost() -> None:
    path = Path(MESSAGES[2] + MESSAGES[0])
    path.send(0, 1, lost=True)
    path.send(0, 5)
    path.send(5, len(path.data))
    path.finish()
    assert path.got == translated([MESSAGES[2], MESSAGES[0]])


def test_a_message_that_is_half_there_survives_a_restart() -> None:
    message = MESSAGES[0]
    path = Path(message * 2)
    path.send(0, len(message) + 200)
    path.restart()
    path.send(len(message) + 200, len(path.data), lost=True)
    path.restart()
    path.send(len(message) + 200, len(path.data))
    path.finish()
    assert path.got == translated([message, message])


def test_no_splice_goes_on_where_none_was() -> None:
    path = Path(MESSAGES[0])
    path.send(0, len(path.data))
    good = path.splice.position
    for bad in (
        good._replace(sent=good.out_first + len(good.out) + 1), good._replace(out_first=good.sent + 1),
        good._replace(told=good.received + 1), good._replace(high=good.received - 1), good._replace(acked=-1),
        good._replace(waiting=bytes(good.received + 1)), good._replace(prefix=bytes(1 << 20)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="position"):
            Splice.at(bad)


def test_what_is_no_sip_goes_through_as_it_is() -> None:
    noise = b"\x16\x03\x01" + bytes(range(256)) * 8
    path = Path(MESSAGES[0] + noise)
    path.send(0, len(MESSAGES[0]))
    for start in range(len(MESSAGES[0]), len(path.data), 700):
        path.send(start, min(start + 700, len(path.data)))
    path.finish()
    assert path.got == translated(MESSAGES[:1]) + noise
    assert path.splice.results == ["translated", "unparseable"]


def test_what_has_gone_out_before_stays_what_it_was() -> None:
    """The first bytes of a line passed before anybody knew it for SIP."""
    message = MESSAGES[0]
    path = Path(message, Splice(BASE, message[:9]), bytearray(message[:9]))
    path.send(9, len(message))
    path.finish()
    assert path.got == translated([message])
    answer = sip(lf(SDP)).replace(b"INVITE sip:bob@198.51.100.20", b"INVITE sip:bob@10.1.3.33")
    path = Path(answer, Splice(BASE, answer[:24]), bytearray(answer[:24]))
    path.send(24, len(answer))
    path.finish()
    assert path.got == answer
    assert path.splice.results == ["partial"]


def test_selective_acknowledgements_are_the_senders_numbers() -> None:
    """RFC 2018 section 3: left and right edge of what came out of order."""
    first, second = len(MESSAGES[0]), len(translated(MESSAGES[:1]))
    path = Path(MESSAGES[0] * 3)
    path.send(0, first)
    path.send(first, 2 * first, lost=True)
    path.send(2 * first, 3 * first)
    block = path.splice.selected((BASE + 2 * second) % 2**32, (BASE + 3 * second) % 2**32)
    assert block == ((BASE + 2 * first) % 2**32, (BASE + 3 * first) % 2**32)
    assert path.splice.selected(BASE, (BASE + 5) % 2**32) is None, "below what is acknowledged"


@given(st.randoms(use_true_random=False), st.lists(st.sampled_from(range(4)), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_whatever_the_path_does_the_receiver_has_every_message_whole(random: Random, which: list[int]) -> None:
    messages = [MESSAGES[number] for number in which]
    path = Path(b"".join(messages))
    for _ in range(random.randrange(60)):
        start = random.randrange(len(path.data))
        if random.random() < 0.6:
            start = path.told if path.told < len(path.data) else start
        path.send(start, min(start + random.randrange(1, 1400), len(path.data)), lost=random.random() < 0.3)
        if random.random() < 0.2:
            path.restart()
        if random.random() < 0.3:
            path.come_back()
    path.finish()
    assert path.got == translated(messages)


@given(st.binary(max_size=3000), st.integers(1, 500))
@settings(max_examples=200, deadline=None)
def test_any_bytes_get_through(noise: bytes, size: int) -> None:
    path = Path(MESSAGES[0] + noise)
    for start in range(0, len(path.data), size):
        path.send(start, min(start + size, len(path.data)))
    path.send(len(path.data), len(path.data), fin=True)
    for _ in range(50):
        if path.told > len(path.data):
            break
        path.send(min(path.told, len(path.data)), len(path.data), fin=True)
    assert path.got.startswith(translated(MESSAGES[:1]))
    assert path.fin


NOTIFY = sip(b"", "NOTIFY sip:bob@198.51.100.20 SIP/2.0").replace(
    b"Content-Length: 0", b"Content-Type: application/pidf+xml\r\nContent-Length: 40000"
) + bytes(range(32, 127)) * 422  # fmt: skip


def test_much_that_never_waited_costs_the_next_message_nothing() -> None:
    bodies = NOTIFY[: NOTIFY.index(b"\r\n\r\n") + 4 + 40000] * 30 + MESSAGES[0]
    path = Path(bodies)
    for start in range(0, len(bodies), 1448):
        path.send(start, min(start + 1448, len(bodies)))
    path.finish()
    assert path.splice.results == ["translated"] * 31


def test_a_body_that_stays_as_it_is_waits_for_nothing() -> None:
    """However long: what is kept back of it is carried by what is sent again, and that is soon nothing."""
    whole = NOTIFY[: NOTIFY.index(b"\r\n\r\n") + 4 + 40000]
    path = Path(whole + MESSAGES[0])
    head = len(whole) - 40000
    for start in range(0, len(whole), 1448):
        path.send(start, min(start + 1448, len(whole)))
        if start > head:
            assert len(path.got) >= start, "the segment before has arrived"
            path.restart()
    path.send(len(whole), len(path.data))
    path.finish()
    assert path.got == translated([whole, MESSAGES[0]])
    assert path.splice.results == ["translated"]


@pytest.mark.parametrize("cut", [1448, 300])
def test_a_description_too_long_to_wait_for_stays_and_that_is_told(cut: int) -> None:
    big = sip(lf(SDP + "a=candidate:filler\n" * 1000))
    assert len(big) > LONGEST + 1448
    path = Path(big + MESSAGES[0])
    for start in range(0, len(path.data), cut):
        path.send(start, min(start + cut, len(path.data)))
        assert len(path.got) >= start - LONGEST
    path.finish()
    _, blank, body = bytes(path.got).partition(b"\r\n\r\n")
    assert fields(bytes(path.got))["Via"].startswith("SIP/2.0/UDP 203.0.113.77:6060;"), "answers find their way"
    assert body == big.partition(blank)[2] + translated(MESSAGES[:1])
    assert path.splice.results == ["too-long", "translated"]


def test_a_head_without_an_end_goes_on() -> None:
    endless = MESSAGES[0].partition(b"Content-Type")[0] + b"X: y\r\n" * 4000
    path = Path(endless)
    for start in range(0, len(path.data), 1448):
        path.send(start, min(start + 1448, len(path.data)))
    path.finish()
    assert path.got == endless
    assert path.splice.results == ["too-long"]


@pytest.mark.parametrize("waits", ["for its head", "for its description"])
def test_a_message_in_thousands_of_pieces_is_waited_for_no_more(waits: str) -> None:
    """What waits is written down with each of them (the journal): 15 kB had come to 200 MB."""
    big = (
        sip(lf(SDP + "a=x\n" * 2000)) if "description" in waits else sip(b"", "OPTIONS sip:b@h SIP/2.0", "X: y" * 2000)
    )
    path, written = Path(big), 0
    for start in range(len(big)):
        path.send(start, start + 1)
        written += len(path.splice.position.waiting)
    path.finish()
    assert path.got == big
    assert path.splice.results == ["too-long"]
    assert written < 2 * PATIENCE


SMALL, SEGMENT = MESSAGES[1], 1400
PLAIN = b"\x16\x03\x01" + bytes(range(256)) * 4


def flood(path: Path) -> None:
    """All of it at once; nothing arrives."""
    for start in range(0, len(path.data), SEGMENT):
        path.send(start, min(start + SEGMENT, len(path.data)), lost=True)
        path.come_back()


@pytest.mark.parametrize(("unit", "count"), [(SMALL, 3000), (PLAIN, 800)], ids=["messages", "no SIP"])
def test_a_sender_who_minds_no_window_is_held_back_and_loses_nothing(unit: bytes, count: int) -> None:
    """It had all been kept, and each further segment and acknowledgement had cost a walk through all of it."""
    path = Path(MESSAGES[0] + unit * count)
    assert len(path.data) > 2 * UNACKNOWLEDGED
    flood(path)
    kept = path.splice.position
    assert kept.received < len(path.data) / 2 + UNACKNOWLEDGED
    assert len(kept.out) < UNACKNOWLEDGED + 2 * SEGMENT
    assert len(kept.edits) < EDITS + SEGMENT // len(SMALL) + 1
    assert path.splice.held == len(kept.waiting) + len(kept.prefix) + len(kept.out)
    path.restart()
    path.finish(turns=2 * len(path.data) // 1000)
    whole = translated([MESSAGES[0]]) + (unit * count if unit is PLAIN else translated([unit]) * count)
    assert path.got == whole
    assert path.splice.position.out == b""


def test_what_is_sent_again_together_with_what_is_new_makes_room() -> None:
    """A sender may cut anew what it repeats: the part that was taken goes on, though the rest has no room."""
    path = Path(MESSAGES[0] + PLAIN * 400)
    flood(path)
    taken = path.splice.position.received
    assert path.send(path.told, taken + SEGMENT, fin=True)
    assert path.told > 0
    assert path.splice.position.received == taken
    assert not path.fin
    path.finish(turns=2 * len(path.data) // 1000)
    path.send(len(path.data), len(path.data), fin=True)
    assert path.got == translated([MESSAGES[0]]) + PLAIN * 400
    assert path.fin


def test_a_slow_reader_gets_everything() -> None:
    """The sender keeps more under way than is held here; the reader takes a segment now and then."""
    path, window, random = Path(MESSAGES[0] + SMALL * 4000), 3 * UNACKNOWLEDGED, Random(6)
    while path.told < len(path.data):
        before = path.told
        for start in range(path.told, min(path.told + window, len(path.data)), SEGMENT * 40):
            path.send(start, min(start + SEGMENT, len(path.data)), lost=True)
        for _ in range(random.randrange(1, 60)):
            path.come_back()
            path.send(path.told, min(path.told + SEGMENT, len(path.data)))
        assert path.told > before
    assert path.got == translated([MESSAGES[0]]) + translated([SMALL]) * 4000


def test_selective_acknowledgements_between_many_changed_messages() -> None:
    """RFC 2018 section 3, wherever the edge is: a message's first byte after translation is its first before."""
    path, count = Path(SMALL * 300), 300
    path.send(0, len(SMALL))
    for number in range(1, count):
        path.send(number * len(SMALL), (number + 1) * len(SMALL), lost=True)
    after = len(translated([SMALL]))
    assert after != len(SMALL)
    for left, right in ((2, 3), (57, 200), (299, 300)):
        block = path.splice.selected((BASE + left * after) % 2**32, (BASE + right * after) % 2**32)
        assert block == ((BASE + left * len(SMALL)) % 2**32, (BASE + right * len(SMALL)) % 2**32)
