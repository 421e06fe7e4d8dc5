"""The observer: what it keeps of which flows, what it says of timers, couriers and translations."""

from __future__ import annotations

from pathlib import Path

from appid.cli import check
from appid.dataplane.command import BindNat, Report, RewritePayload, UnbindNat
from appid.dataplane.model import Kernel
from appid.edge.replay import Replay
from appid.engine import Engine, PacketQueued, TranslationReport
from appid.story.step import Step
from appid.story.teller import PENDING, Storyteller, _translated
from appid.wire import UDP, packed
from tests.corpus import sessions
from tests.corpus.variation import Variation
from tests.corpus.writer import Capture, End
from tests.engine.play import PUBLIC, settings
from tests.story import tell


def test_the_courier_s_word_before_the_call_is_told() -> None:
    """Session 2: the push message of 1119 bytes at frame 50 comes before the first packet of the call, 72."""
    first = next(item for item in tell.session(2).tales[0].items)
    assert isinstance(first, Step)
    assert (first.frame, first.what, first.details) == (50, "TLS application data", ("1,119 bytes",))


def test_keep_alives_of_the_courier_are_no_part_of_a_call() -> None:
    whats = {item.what for item in tell.session(4).tales[0].items if isinstance(item, Step)}
    assert not any(what.startswith("TLS") for what in whats)


def test_what_time_did_is_told_at_its_time(tmp_path: Path) -> None:
    """Cut after the last BYE of session 5's first call: 32 s later (RFC 3261 timer F) its pinhole goes. Background goes
    on, so there is a frame after that."""
    case = sessions.build(5)
    late = case.capture.frames[9633 - 1][0] + 40
    capture = Capture(late)
    capture.frames = [f for n, f in enumerate(case.capture.frames, 1) if n <= 9599]
    capture.udp(End("172.16.42.187", 5353), End("224.0.0.251", 5353), b"\0" * 12)
    path = tmp_path / "cut.pcap"
    capture.save(path)
    (tale,) = tell.of_file(path).tales
    last = tale.items[-1]
    assert isinstance(last, Step)
    assert (last.frame, last.what) == (9599, "time passed")
    assert any(effect.text.startswith("pinhole 1 closed") for effect in last.effects)


def test_translations_are_told(tmp_path: Path) -> None:
    """With the gateway's outside address known, what the client's own check opens at 162 is bound before it opens."""
    path = tmp_path / "session1.pcap"
    sessions.build(1, Variation.from_seed(0)).capture.save(path)
    (tale,) = tell.of_file(path, known=settings(default="none", outside=PUBLIC)).tales
    step = next(item for item in tale.items if isinstance(item, Step) and item.frame == 162)
    texts = [effect.text for effect in step.effects if effect.kind == "translated"]
    assert texts == ["NAT binding: 71.15.163.132:16402 is 172.16.42.187:16402 for 71.230.89.52"]


def test_each_translation_has_words() -> None:
    ends = (UDP, packed("172.16.42.187"), 16402, packed("71.15.163.132"), 16402, packed("71.230.89.52"))
    assert "NAT binding: " in _translated(BindNat(*ends, 300)).text
    assert "NAT binding removed: " in _translated(UnbindNat(*ends)).text
    assert "5 bytes" in _translated(RewritePayload(1, b"12345")).text


def test_little_is_kept_of_flows_that_serve_no_call(tmp_path: Path) -> None:
    """A thousand flows of a few unreadable packets: undecided ones keep at most PENDING, decided ones nothing."""
    capture = Capture(1_700_000_000.0)
    for number in range(1000):
        for _ in range(3):
            capture.now += 0.001
            capture.udp(End("10.0.0.2", 10_000 + number), End("198.51.100.9", 9), b"\xff" * 30)
    path = tmp_path / "many.pcap"
    capture.save(path)
    known = tell.settings()
    engine = Engine(known)
    teller = Storyteller(engine)
    replayed = Replay(engine, Kernel(known.marks, "pass"), observer=teller).run(path)
    assert sum(len(note.pending or ()) for note in teller.notes.values()) <= 3 * 1000
    assert PENDING < 100
    assert teller.calls == {}
    assert len(list(check.lines(replayed, False))) == 1002


def test_one_flow_signals_for_many_calls(tmp_path: Path) -> None:
    """A telephone and its proxy: three INVITEs on one 5-tuple, each with its own story; what registers between
    them has none."""
    capture = Capture(1_700_000_000.0)
    phone, proxy = End("10.0.0.2", 5060), End("198.51.100.9", 5060)
    for number in range(1, 4):
        head = f"v: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK{number}\r\nf: <sip:a@b>;tag=1\r\ni: call-{number}\r\n"
        ack = f"ACK sip:c@d SIP/2.0\r\n{head}CSeq: 1 ACK\r\nt: <sip:c@d>;tag=2\r\n\r\n"
        head += "CSeq: 1 INVITE\r\n"
        capture.udp(phone, proxy, f"INVITE sip:c@d SIP/2.0\r\n{head}t: <sip:c@d>\r\n\r\n".encode())
        capture.udp(proxy, phone, f"SIP/2.0 486 Busy Here\r\n{head}t: <sip:c@d>;tag=2\r\n\r\n".encode())
        capture.udp(phone, proxy, ack.encode())
        register = f"REGISTER sip:d SIP/2.0\r\n{head}t: <sip:a@d>\r\n\r\n".replace(f"call-{number}", "registration")
        capture.udp(phone, proxy, register.encode())
        capture.now += 5
    path = tmp_path / "phone.pcap"
    capture.save(path)
    story = tell.of_file(path)
    frames = [[item.frame for item in tale.items] for tale in story.tales]
    assert frames == [[1, 2, 3], [5, 6, 7], [9, 10, 11]]
    for tale in story.tales:
        texts = [e.text for item in tale.items if isinstance(item, Step) for e in item.effects if e.kind == "call"]
        assert texts[-1] == f"call {tale.told['id']} ends: refused"


def test_what_could_not_be_translated_is_told() -> None:
    teller = Storyteller(Engine(tell.settings()))
    for result in ("translated", "unchanged", "integrity"):
        report = Report("translation", TranslationReport(1, 5, result))
        teller.commands(PacketQueued(5, memoryview(b"")), 0.0, [report], 5)
    assert [effect.text for _, effect in teller._effects] == ["not translated: a MESSAGE-INTEGRITY covers it"]


def test_a_flow_asked_for_is_told_alone() -> None:
    """Session 1's direct flow: the courier is no part of it."""
    (tale,) = tell.session(1, flow=10).tales
    assert [party.role for party in tale.parties] == ["client", "peer"]
    assert {item.flow for item in tale.items if isinstance(item, Step)} == {10}
