"""A spliced connection that outlives its engine: the next one numbers its bytes as the first did."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from appid.alg.host import Host
from appid.dataplane.command import BindNat, Command, RewritePayload, SetMark
from appid.dataplane.rewrite import Numbers
from appid.engine import Kept, Restored, RulesLoaded
from appid.engine.kept_stream import MAX_BYTES, KeptStream, kept_stream
from appid.wire import TCP, Endpoint, FlowKey, packed
from tests.corpus.writer import End, ip_packet, tcp_segment
from tests.engine.phones import GATE, PROVIDER, body, gateway
from tests.engine.play import Play, of, verdict

PHONE = End("172.16.42.187", 40001)
HERE, THERE = 1000, 9000
KEY = FlowKey(TCP, packed(PHONE.host), PHONE.port, packed(PROVIDER.host), PROVIDER.port)
SYN, ACK, PUSH = 2, 16, 24


def message(first: str, number: int, content: bytes = b"") -> bytes:
    lines = [first, f"Via: SIP/2.0/TCP {PHONE.host}:{PHONE.port};branch=z9hG4bK{number}", "From: <sip:a@x>;tag=a",
             "To: <sip:b@y>", "Call-ID: c", f"CSeq: {number} {first.split()[0]}",
             f"Contact: <sip:a@{PHONE.host}:5060;transport=tcp>"]  # fmt: skip
    lines += ["Content-Type: application/sdp"] if content else []
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


INVITE = message("INVITE sip:b@198.51.100.20 SIP/2.0", 1, body(PHONE.host, 16402))
REGISTER = message("REGISTER sip:198.51.100.20 SIP/2.0", 2)


@dataclass
class Connection(Host):
    """Both ends, in their own numbers: what each has sent, and what of it has come to the other."""

    play: Play = field(default_factory=gateway)
    sent: int = HERE + 1
    came: int = HERE + 1

    def mapped(self, key: FlowKey) -> Endpoint | None:
        return Endpoint(packed(GATE), 40001)

    def segment(self, src: End, dst: End, seq: int, ack: int, flags: int, payload: bytes = b"") -> list[Command]:
        raw = ip_packet(src.host, dst.host, TCP, tcp_segment(src, dst, seq, ack, flags, payload), 1, 64)
        return self.play.queue(raw, self)

    def open(self) -> None:
        self.segment(PHONE, PROVIDER, HERE, 0, SYN)
        self.segment(PROVIDER, PHONE, THERE, HERE + 1, SYN | ACK)
        self.segment(PHONE, PROVIDER, HERE + 1, THERE + 1, ACK)

    def say(self, data: bytes) -> tuple[int, bytes]:
        """From the phone: the number and bytes that the far end gets."""
        commands = self.segment(PHONE, PROVIDER, self.sent, THERE + 1, PUSH, data)
        self.sent += len(data)
        changed = of(commands, RewritePayload)
        got = (changed[0].numbers, changed[0].payload) if changed else (Numbers(self.sent - len(data), 0), data)
        assert got[0] is not None
        return got[0].sequence, got[1]

    def confirm(self) -> int:
        """The far end has all; what the phone hears of it."""
        commands = self.segment(PROVIDER, PHONE, THERE + 1, self.came, ACK)
        changed = of(commands, RewritePayload)
        if not changed:
            return self.came
        assert changed[0].numbers is not None
        return changed[0].numbers.acknowledgement

    def kept(self) -> KeptStream:
        (record,) = self.play.engine.flows.values()
        found = kept_stream(self.play.engine, record)
        assert found is not None
        return found


def after(kept: KeptStream) -> Connection:
    """The same connection through another engine, which knows what was kept."""
    made = Connection(gateway(), HERE + 1 + len(INVITE))
    made.play.commands += made.play.engine.handle(Restored((), (kept,)), 1000.0)
    return made


def begun() -> Connection:
    made = Connection()
    made.open()
    at, payload = made.say(INVITE)
    assert at == HERE + 1
    assert len(payload) > len(INVITE) or payload != INVITE
    made.came += len(payload)
    return made


def test_the_next_engine_numbers_as_the_first_did() -> None:
    first = begun()
    second = after(first.kept())
    second.came = first.came
    at, payload = second.say(REGISTER)
    assert at == first.came, "where the first one's bytes ended"
    assert GATE.encode() in payload
    assert PHONE.host.encode() not in payload
    second.came += len(payload)
    assert second.confirm() == second.sent, "the phone hears of its own bytes"


def test_a_message_in_its_middle_is_put_together_by_the_next() -> None:
    first = begun()
    first.say(REGISTER[:100])
    second = after(first.kept())
    second.sent, second.came = first.sent, first.came
    at, payload = second.say(REGISTER[100:])
    assert at == first.came
    assert payload.startswith(b"REGISTER ")
    assert f"SIP/2.0/TCP {GATE}:40001".encode() in payload


def test_what_it_had_bound_is_bound_again() -> None:
    first = begun()
    second = after(first.kept())
    contact = [(bound.port, bound.outside_port) for bound in of(second.play.commands, BindNat)]
    assert contact == [(bound.port, bound.outside_port) for bound in first.kept().bindings]


def test_it_is_written_down_before_the_verdict_on_each_of_its_packets() -> None:
    first = begun()
    touched = first.play.engine.streams.touched
    assert list(touched) == [1]
    before = first.kept()
    touched.clear()
    first.confirm()
    assert list(touched) == [1]
    assert first.kept() != before
    touched.clear()
    record = next(iter(first.play.engine.flows.values()))
    first.segment(PHONE, PROVIDER, 77, 0, SYN)
    assert list(touched) == [1], "the 5-tuple has begun anew"
    assert kept_stream(first.play.engine, record) is None


def test_one_in_which_much_waits_is_not_kept_meanwhile() -> None:
    first = begun()
    long = message("OPTIONS sip:b@y SIP/2.0", 3, b"x" * 2 * MAX_BYTES)
    for start in range(0, 2 * MAX_BYTES, 1400):
        first.say(long[start : start + 1400])
    (record,) = first.play.engine.flows.values()
    assert kept_stream(first.play.engine, record) is None


def torn(play: Play) -> list[SetMark]:
    marks = play.settings.marks
    flow = Kept(KEY, marks.encode("allow", 4, watch=True) | marks.passing)
    return of(play.engine.handle(RulesLoaded(play.settings, (flow,), restarted=True), 1000.0), SetMark)


def test_one_that_nobody_remembers_is_reset() -> None:
    (refused,) = torn(gateway())
    assert gateway().settings.marks.decode(refused.mark).action == "deny"
    assert refused.key == KEY
    assert torn(after(begun().kept()).play) == [], "this one is"


@pytest.mark.parametrize("change", ["v4", "outside", "position", "udp"])
def test_what_cannot_be_one_of_this_engine_is_passed_over(change: str) -> None:
    kept = begun().kept()
    flow = kept.flow
    bad = {
        "v4": replace(kept, outside=Endpoint(b"abc", 1)),
        "outside": replace(kept, flow=replace(flow, key=flow.key.reversed())),
        "position": replace(kept, there=kept.there._replace(told=1 << 40)),
        "udp": replace(kept, flow=replace(flow, key=flow.key._replace(proto=17))),
    }[change]
    made = after(bad)
    assert made.play.engine.flows == {}
    assert verdict(made.segment(PHONE, PROVIDER, 5, 5, PUSH, REGISTER)).verdict in ("repeat", "drop")
