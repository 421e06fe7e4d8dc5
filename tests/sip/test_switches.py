"""On the wire: what the operator switches off is not done; what cannot be parsed passes as it was sent, counted."""

from __future__ import annotations

import zlib
from functools import partial
from pathlib import Path

import pytest

from tests.netns.live import ROOT, live, rule
from tests.netns.net import until
from tests.sip.attacks import Victim
from tests.sip.talk import Talk
from tests.sip.town import SIP_ONLY, Place, town

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
FUNCTIONS = ("expectations", "translation", "channel-bind")


def _without(place: str, off: tuple[str, ...], folder: Path) -> tuple[str, str]:
    """Policy and options of a gateway that does not do `off`; an application's file in `folder`."""
    on = [function for function in FUNCTIONS if function not in off]
    if place == "gateway":
        return SIP_ONLY, "[alg]\n" + "".join(f"{function.replace('-', '_')} = false\n" for function in off)
    if place == "rule":
        return rule("calls", "allow", "sip", service='["udp/5060-5062"]', alg=str(on)), ""
    text = (ROOT / "rules/apps/sip.toml").read_text()
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / "sip.toml").write_text(text.replace("\nwatch = true", f"\nwatch = true\nalg = {on}"))
    return SIP_ONLY, ""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("place", ["gateway", "application", "rule"])
def test_each_function_is_off_by_itself(tmp_path: Path, place: str) -> None:
    """Under NAT: without expectations no media passes; without translation the INVITE goes out as it was, so that
    media finds its way out alone; without both neither."""
    cases = (((), True, (True, True)), (("expectations",), True, (False, False)),
             (("translation",), False, (False, True)), (FUNCTIONS, False, (False, False)))  # fmt: skip
    with town("plain", True, tmp_path) as (where, _):
        for number, (off, translated, passes) in enumerate(cases):
            folder = tmp_path / str(number)
            folder.mkdir()
            with live(where, folder, *_of(_without(place, off, folder))) as gateway:
                talk = Talk(where, number)
                assert (talk.asked != talk.victim.invite()) == translated, off
                assert talk.passes() == passes, off
                opened = [p for p in gateway.ask("pinholes") if p["closed_at"] is None]
                assert bool(opened) == ("expectations" not in off), off
                talk.close()


def _of(made: tuple[str, str]) -> tuple[str, str, str]:
    policy, options = made
    return policy, "nft", options


def _broken(victim: Victim) -> dict[str, bytes]:
    """SIP that is none."""
    whole = victim.invite()
    body = whole.partition(b"\r\n\r\n")[2]
    return {
        "no end of the head": whole.partition(b"\r\n\r\n")[0][:-20],
        "two lengths": b"OPTIONS sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP 10.77.1.10\r\nl: 1\r\nl: 2\r\n\r\nx",
        "a longer body than there is": whole.replace(b"Content-Length: ", b"Content-Length: 9"),
        "hundreds of headers": whole.replace(b"Call-ID", b"X: y\r\n" * 300 + b"Call-ID"),
        "a body that does not inflate": whole.replace(body, b"\x78\x9c" + body).replace(
            b"Content-Type", b"Content-Encoding: deflate\r\nContent-Type"),
        "a body that inflates without end": victim.invite(zlib.compress(body + b"a=x\r\n" * 400_000),
                                                          "Content-Encoding: deflate"),
    }  # fmt: skip


@pytest.mark.timeout(60)
def test_what_cannot_be_parsed_passes_as_it_was_sent(tmp_path: Path) -> None:
    with town("ours", True, tmp_path) as (where, gateway):
        assert gateway is not None
        Talk(where, 0).close()  # the flow has a name
        victim = Victim(where, Place.numbered(0, False), 20000, "broken")
        mine, theirs = victim.udp(where.client, victim.phone), victim.udp(where.peer, victim.place.peer)

        def counted(wanted: int) -> bool:
            return (gateway.metric('appid_nat_translations_total{result="unparseable"}') or 0) >= wanted

        for number, (what, text) in enumerate(_broken(victim).items(), 1):
            asked, source = victim.heard(mine, theirs, text)
            assert asked == text, what
            theirs.sendto(text, source)
            assert mine.recvfrom(65535)[0] == text, what
            assert until(partial(counted, 2 * number)), what
        victim.close()
