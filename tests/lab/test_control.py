"""The lab by itself: session 1 completes through a plain NAT gateway with Apple's ports forwarded, and tshark reads it.

What tshark says is the oracle for the lab's own encoders: STUN, TURN, SIP inside ChannelData, inflated SDP, RTP.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.call import Actors, Call, Outcome
from tests.lab.capture import Capture
from tests.lab.gateway import forward_apple_ports
from tests.lab.net import Lab, run
from tests.lab.scenario import Scenario

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("control")]


async def _control_call(scenario: Scenario, capture: Path) -> Outcome:
    with Lab(scenario) as lab:
        forward_apple_ports(lab)
        async with Actors(lab, [scenario]), Capture(lab, "gw", "lan0", capture):
            return await Call(lab, scenario).run(seconds=4)


@dataclass
class Control:
    scenario: Scenario
    outcome: Outcome
    capture: Path

    def tshark(self, display_filter: str, *fields: str) -> list[list[str]]:
        """The wanted fields of the packets that match, as tshark prints them."""
        relay = f"udp.port=={self.scenario.relay_port},stun"
        argv = ["tshark", "-r", str(self.capture), "-d", relay]
        for heuristic in ("rtp_udp", "rtp_stun", "stun_turn"):
            argv += ["--enable-heuristic", heuristic]
        argv += ["-Y", display_filter, "-T", "fields", "-e", "frame.number"]
        for name in fields:
            argv += ["-e", name]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.fixture(scope="module", params=[None, 7], ids=["report", "seed7"])
def control(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Control:
    scenario = Scenario() if request.param is None else Scenario.from_seed(request.param)
    capture = tmp_path_factory.mktemp("control") / "lan0.pcap"
    return Control(scenario, asyncio.run(_control_call(scenario, capture)), capture)


def test_call_completes_in_the_reports_order(control: Control) -> None:
    assert control.outcome.failure is None
    assert control.outcome.direct
    assert control.outcome.journal.out_of_order() == []
    assert control.outcome.web_answer.endswith(b"\r\n\r\nAV was here!\n")


def test_no_media_packet_is_lost_on_either_path(control: Control) -> None:
    for ledger, lost in (
        (control.outcome.outward, control.outcome.lost_outward),
        (control.outcome.inward, control.outcome.lost_inward),
    ):
        assert lost == []
        assert ledger.by_path("relayed") > 50
        assert ledger.by_path("direct") > 200


def test_tshark_reads_the_allocate_request(control: Control) -> None:
    """Packet 60: both attributes in the request, LIFETIME 60, no USERNAME."""
    s = control.scenario
    first = control.tshark("stun.type == 0x0003", "stun.att.type", "stun.att.lifetime", "stun.att.token", "udp.srcport")
    _, kinds, lifetime, token, port = first[0]
    assert kinds.split(",") == ["0x000d", "0x0016", "0x0022"]
    assert (lifetime, token.replace(":", ""), port) == ("60", s.token.hex(), str(s.media_port))


def test_tshark_reads_checks_in_channel_data(control: Control) -> None:
    """Packet 122: sent before the ChannelBind is answered."""
    relayed = f"stun.type == 0x0001 && udp.dstport == {control.scenario.relay_port}"
    checks = control.tshark(relayed, "stun.att.type", "_ws.expert.message")
    bound = control.tshark("stun.type == 0x0109")
    assert checks[0][1].split(",") == ["0x0006", "0x8001", "0x8002", "0x8003", "0x802a"]
    assert "Unknown attribute 0x8009" in checks[0][2]
    assert int(checks[0][0]) < int(bound[0][0])


def test_tshark_reads_the_dialog_and_its_inflated_sdp(control: Control) -> None:
    s = control.scenario
    dialog = control.tshark("sip", "sip.Method", "sip.Status-Code", "sip.Call-ID", "stun.channel")
    assert [row[1] or row[2] for row in dialog] == ["INVITE", "100", "180", "200", "ACK", "BYE", "200"]
    assert {row[3] for row in dialog} == {s.call_id}
    assert {row[4] for row in dialog} == {f"0x{s.channel:04x}"}
    invite, answer = control.tshark("sdp", "sdp.owner", "sdp.media", "sdp.media_attr")
    assert invite[1] == f"GKVoiceChatService 0 0 IN IP4 {s.public}"
    assert invite[2].split(",")[0] == f"audio {s.media_port} RTP/AVP 104 105 106 9 0 124 122 121 119"
    assert f"rtcp:{s.media_port}" in invite[3]
    assert answer[1].endswith(s.peer_public)


def test_the_peers_direct_check_comes_first(control: Control) -> None:
    s = control.scenario
    rows = control.tshark(f"ip.addr == {s.peer_public}", "ip.src", "stun.type")
    assert rows[0][1:] == [s.peer_public, "0x0001"]
    assert rows[1][1:] == [s.client, "0x0101"]


def test_nothing_is_left(control: Control) -> None:
    assert control.outcome.failure is None
    assert f"appid-{os.getpid()}" not in run("ip", "netns", "list")
