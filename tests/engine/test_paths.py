"""The way of a dialog's signalling: asked of the kernel again and again while the dialog lives, and for nobody else."""

from __future__ import annotations

from dataclasses import dataclass

from appid.alg.dialog import Dialog
from appid.alg.dialogs import Dialogs
from appid.dataplane.command import KeepFlow, OpenPinhole
from appid.engine.paths import AGAIN, AT_ONCE, KEPT, SOON, Paths
from appid.flow.key import FlowKey
from appid.wire import TCP, UDP, Endpoint, packed
from tests.corpus import stun_bytes as stun
from tests.corpus.writer import End
from tests.engine.phones import PROVIDER, Phone
from tests.engine.play import CLIENT, Play, of, settings, udp
from tests.engine.test_calls import RELAY, bound

ALICE = End("172.16.42.187", 5060)
WAY = FlowKey(UDP, packed(ALICE.host), ALICE.port, packed(PROVIDER.host), PROVIDER.port)
STRANGER = End("198.51.100.66", 5060)


@dataclass
class Routed(Phone):
    @property
    def outside(self) -> Endpoint:
        return self.inside


def called() -> Routed:
    phone = Routed(Play(settings(default="none")), ALICE)
    phone.invite()
    phone.respond("200 OK")
    phone.out(phone.head("ACK sip:bob@198.51.100.20 SIP/2.0", "1 ACK", ";tag=314159", b""))
    return phone


def kept(play: Play, now: float) -> list[FlowKey]:
    asked = of(play.tick(now), KeepFlow)
    assert all(each.timeout == KEPT for each in asked)
    return [each.key for each in asked]


def test_it_is_kept_from_the_first_ring_until_the_bye_is_answered() -> None:
    phone = Routed(Play(settings(default="none")), ALICE)
    phone.invite()
    play = phone.play
    assert play.engine.deadline is not None
    assert play.engine.deadline <= SOON
    assert kept(play, SOON) == [WAY]
    assert kept(play, SOON + 1) == []
    play.now = 20.0
    phone.respond("200 OK")  # the kernel counts its own time again
    assert kept(play, 20.0 + SOON) == [WAY]
    assert kept(play, 20.0 + SOON + AGAIN) == [WAY]
    phone.out(phone.head("BYE sip:bob@198.51.100.20 SIP/2.0", "2 BYE", ";tag=314159", b""))
    phone.respond("200 OK", "2 BYE", port=0)
    assert kept(play, 500.0) == []
    assert play.engine.calls.paths.next() is None


def test_a_call_on_hold_that_has_fallen_silent_keeps_it() -> None:
    phone = called()
    for now in range(5, 600, 5):
        phone.play.tick(float(now))
    assert not phone.play.engine.calls.calls.open, "lost by silence; its dialog sleeps"
    last = [each.key for each in of(phone.play.commands, KeepFlow)]
    assert last == [WAY] * len(last)
    assert len(last) >= 600 / AGAIN - 2


def test_who_only_knows_the_call_id_has_no_way() -> None:
    phone = called()
    theirs = phone.head("BYE sip:alice@atlanta.example SIP/2.0", "7 BYE", ";tag=314159", b"")
    phone.play.queue(udp(STRANGER, ALICE, theirs))
    phone.play.queue(udp(STRANGER, ALICE, theirs.replace(b"7 BYE", b"7 INVITE").replace(b"BYE sip", b"INVITE sip")))
    assert kept(phone.play, SOON) == [WAY]


def test_a_stream_needs_no_keeping() -> None:
    dialogs = Dialogs()
    dialogs.put(Dialog("one", ALICE.host.encode(), b"", True, "a", {("INVITE", True): 1}))
    (dialog,) = dialogs.views("one")
    stream = WAY._replace(proto=TCP)
    dialogs.carry(dialog, stream)
    paths = Paths(dialogs)
    paths.heard(stream, 0.0)
    assert paths.next() is None


def test_a_crowd_is_spread_over_ticks() -> None:
    dialogs, paths = Dialogs(), Paths(Dialogs())
    paths = Paths(dialogs)
    for number in range(4 * AT_ONCE):
        dialogs.put(Dialog(f"{number}", b"host", b"", True, "a", {("INVITE", True): 1}))
        dialogs.carry(dialogs.views(f"{number}")[0], WAY._replace(sport=number))
        paths.heard(WAY._replace(sport=number), 0.0)
    told = [len(list(paths.tick(SOON + second))) for second in range(4)]
    assert told == [AT_ONCE] * 4


def test_one_flow_of_many_dialogs_is_kept_until_the_last_has_ended() -> None:
    dialogs = Dialogs()
    for number in range(3):
        dialogs.put(Dialog(f"{number}", b"host", b"", True, "a", {("INVITE", True): 1}))
        dialogs.carry(dialogs.views(f"{number}")[0], WAY)
    for number in range(3):
        assert dialogs.carries(WAY)
        dialogs.forget(f"{number}", 0, 0.0)
    assert not dialogs.carries(WAY)


def test_media_needs_none() -> None:
    phone = called()
    (opened, *_) = of(phone.play.commands, OpenPinhole)
    media = FlowKey(UDP, packed(PROVIDER.host), 30000, opened.expectation.inside, opened.expectation.port)
    assert not phone.play.engine.calls.dialogs.carries(media)


def test_the_way_to_a_relay_is_kept_while_its_call_lives() -> None:
    """Media went direct, the relay is silent; the BYE may come by it (facetime-2015: it is sent on both)."""
    play = Play()
    bound(play)
    dialog = play.call().dialog
    for outward, message in (
        (True, dialog.invite()), (False, dialog.response(200, "OK", answer=True)), (True, dialog.ack()),
    ):  # fmt: skip
        ends = (CLIENT, RELAY) if outward else (RELAY, CLIENT)
        play.queue(udp(*ends, stun.channel_data(0x4000, message)))
    way = FlowKey(UDP, packed(CLIENT.host), CLIENT.port, packed(RELAY.host), RELAY.port)
    for now in (SOON, SOON + AGAIN):
        assert kept(play, now) == [way]
    play.queue(udp(CLIENT, RELAY, stun.channel_data(0x4000, dialog.bye())))
    play.queue(udp(RELAY, CLIENT, stun.channel_data(0x4000, dialog.bye_answer())))
    assert kept(play, 500.0) == []
