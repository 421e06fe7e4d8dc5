"""Calls of others on real captures: each is named for what it is, and for nothing else."""

from __future__ import annotations

import pytest

from tests.accuracy import labels, ours, truth
from tests.accuracy.confidence import OTHERS, THEIRS
from tests.accuracy.labels import Label, Tuple

NDPI = truth.CAPTURES / "ndpi"
CALLS = (frozenset(THEIRS) - OTHERS) | {"facetime", "webrtc"}
pytestmark = pytest.mark.skipif(not NDPI.is_dir(), reason="the shared captures are not here")

# capture, nDPI's name, ours, how many of its flows at least: those that show evidence of their own. The others of
# Signal's are requests that nobody answered and a public STUN server's; Meet's is DTLS without a check before it.
ROWS = (
    ("discord.pcap", "Discord", "discord", 34),
    ("discord_mid_flow.pcap", "Discord", "discord", 1),
    ("riotgames.pcap", "Discord", "discord", 2),
    ("wa_voice.pcap", "WhatsAppCall", "whatsapp-call", 7),
    ("whatsapp_login_call.pcap", "WhatsAppCall", "whatsapp-call", 20),
    ("zoom.pcap", "Zoom", "zoom", 14),
    ("zoom2.pcap", "Zoom", "zoom", 4),
    ("skype-conference-call.pcap", "Skype_TeamsCall", "microsoft-teams", 1),
    ("stun.pcap", "Skype_TeamsCall", "microsoft-teams", 1),
    ("stun.pcap", "FacebookVoip", "facebook-messenger-call", 1),
    ("stun_google_meet.pcapng", "GoogleCall", "google-meet", 5),
    ("stun_dtls_rtp.pcapng", "GoogleCall", "google-meet", 2),
    ("google_meet.pcapng", "GoogleMeet", "google-meet", 2),
    ("stun_signal.pcapng", "SignalVoip", "signal-call", 9),
)


def told(capture: str) -> dict[Tuple, tuple[list[str], Label]]:
    """Each flow that nDPI labels outside tunnels: our names, its label."""
    run = ours.run(NDPI / capture)
    listed = labels.read(truth.CAPTURES / "ndpi_labels" / f"{capture}.out", run.flows)
    return {key: (run.flows[key].applications, label) for key, label in listed if key in run.flows}


@pytest.mark.parametrize(("capture", "theirs", "name", "least"), ROWS, ids=lambda value: str(value))
def test_a_call_is_named_for_what_it_is(capture: str, theirs: str, name: str, least: int) -> None:
    mine = [names for names, label in told(capture).values() if theirs in label.text.replace("/", ".").split(".")]
    assert sum(name in names for names in mine) >= least
    wrong = [names for names in mine if set(names) & CALLS - {name, "webrtc"}]
    assert not wrong


@pytest.mark.parametrize("name", ["messenger_case0_receiver", "messenger_case7_caller", "messenger_case7_receiver"])
def test_messengers_calls_by_phones_are_its_own_or_metas(name: str) -> None:
    """They have Apple's push connection and ChannelData, and are not FaceTime."""
    run = ours.run(truth.CAPTURES / "rtc-measurement" / f"{name}.pcapng")
    names = {one for flow in run.flows.values() for one in flow.applications} & CALLS
    assert "facebook-messenger-call" in names
    assert names <= {"facebook-messenger-call", "meta-call", "webrtc"}


def test_discord_on_a_phone() -> None:
    run = ours.run(truth.CAPTURES / "rtc-measurement" / "discord_iphone_app_caller.pcapng")
    names = [one for flow in run.flows.values() for one in flow.applications if one in CALLS]
    assert set(names) == {"discord"}
