"""The look-alikes are what they claim to be: tshark finds their protocol, right checksums, and nothing malformed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus import tshark
from tests.corpus.lookalikes import LOOKALIKES, Lookalike

SHOWN = {
    "stun": "STUN", "webrtc": "STUN", "turn": "STUN", "sip": "SIP", "ichat": "SIP", "http": "HTTP", "tls": "TLS",
    "rtp": "RTP", "quic": "QUIC", "ipv6": "IPv6", "game": "TLS", "whatsapp": "STUN", "meta": "STUN",
    "messenger": "STUN", "signal": "STUN", "teams": "STUN", "google": "STUN", "gtp": "GTP", "airplay": "RTP",
}  # fmt: skip
"""First word of the name -> a protocol that tshark names in the capture (as it begins); noise has none."""


@pytest.mark.parametrize("lookalike", LOOKALIKES, ids=lambda one: one.name)
def test_tshark_sees_the_protocol_and_no_fault(lookalike: Lookalike, tmp_path: Path) -> None:
    case = lookalike.case()
    path = tmp_path / "lookalike.pcap"
    case.capture.save(path)
    count = len(case.capture.frames)
    sums = ("ip.checksum.status", "udp.checksum.status", "tcp.checksum.status")
    found = tshark.read(path, sums, set(range(1, count + 1)))
    assert not [n for n, seen in found.items() if seen["malformed"] or any("0" in seen[name] for name in sums)]
    shown = {seen["protocol"][0] for seen in found.values()}
    wanted = SHOWN.get(lookalike.name.partition("-")[0])
    if wanted:
        assert any(protocol.startswith(wanted) for protocol in shown), shown
    else:
        assert shown <= {"UDP", "TCP"}


def test_names_are_unique_and_no_truth_names_facetime() -> None:
    assert len({one.name for one in LOOKALIKES}) == len(LOOKALIKES)
    for one in LOOKALIKES:
        assert "facetime" in one.never
        assert not set(one.applications) & set(one.never)
