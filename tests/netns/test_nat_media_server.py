"""Media at another address than the one that signals, behind source NAT on a real kernel: as most providers have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.netns.live import rule
from tests.netns.net import CLIENT4, PEER4, PUBLIC4, Net, received
from tests.netns.test_nat_calls import SECOND4, Agent, hang_up, natted

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

SERVER4, STRANGER4 = "198.51.100.30", "198.51.100.31"
POLICY = rule("calls", "allow", "sip", "rtp", "rtcp", from_='["inside"]', service='"any"')
RTP = b"\x80\0\0\1\0\0\0\xa0\0\0\x12\x34"


def test_media_of_two_phones_comes_from_the_ports_that_were_told(bare: Net, tmp_path: Path) -> None:
    """Although both have the same ports, and the server, impatient, had sent before either did."""
    for address in (SERVER4, STRANGER4):
        bare.peer.run("ip", "addr", "add", f"{address}/24", "dev", "net")
    with natted(bare, tmp_path, POLICY):
        far, stranger = Agent(bare.peer, PEER4, 40000), bare.peer.udp(STRANGER4, 30000)
        phones: list[Agent] = []
        server = [bare.peer.udp(SERVER4, 30000 + part) for part in (0, 1)]
        for number, host in enumerate((CLIENT4, SECOND4)):
            phone, call = Agent(bare.client, host, 20000), f"call{number}"
            first, tags = "INVITE sip:b@y.example SIP/2.0", (";tag=a", f";tag={call}")
            phone.signalling.sendto(phone.message(first, "1 INVITE", call, (";tag=a", ""), phone.sdp()), (PEER4, 5060))
            far.hear()
            told = far.far()
            assert (told == (PUBLIC4, 20000)) == (number == 0)
            server[0].sendto(RTP + b"too early", told)
            ok = far.message("SIP/2.0 200 OK", "1 INVITE", call, tags, _named(far), far.field(r"^Via: (.*?)\r$"))
            far.signalling.sendto(ok, far.from_)
            assert "200 OK" in phone.hear()
            server[0].sendto(RTP + b"early", told)
            stranger.sendto(RTP + b"strange", told)
            for part in (0, 1):
                phone.media[part].sendto(RTP + b"out", (SERVER4, 30000 + part))
                data, source = server[part].recvfrom(2000)
                assert (data, source) == (RTP + b"out", (told[0], told[1] + part))
                server[part].sendto(RTP + b"back", (told[0], told[1] + part))
                stranger.sendto(RTP + b"strange", (told[0], told[1] + part))
                assert received(phone.media[part], 0.2, least=1) == [RTP + b"back"]
            phones.append(phone)
        for number, phone in enumerate(phones):
            hang_up(phone, far, f"call{number}")
        assert SERVER4 not in bare.gateway.run("nft", "list", "table", "inet", "appid-nat")


def _named(far: Agent) -> bytes:
    return far.sdp().replace(b"c=IN IP4 " + PEER4.encode(), b"c=IN IP4 " + SERVER4.encode()).replace(b"40000", b"30000")
