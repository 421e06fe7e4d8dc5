"""Packets: link layers of captures, IP packets and their flows, fragments put together."""

from __future__ import annotations

from appid.packet.fragment import Fragments
from appid.packet.ip import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Packet,
    flow_id,
    id_of,
    key_of,
    parse,
    reversed_id,
)
from appid.packet.link import ETHERNET, RAW, known, strip

__all__ = [
    "ACK",
    "ETHERNET",
    "FIN",
    "PSH",
    "RAW",
    "RST",
    "SYN",
    "Fragments",
    "Packet",
    "flow_id",
    "id_of",
    "key_of",
    "known",
    "parse",
    "reversed_id",
    "strip",
]
