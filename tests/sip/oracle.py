"""tshark reads what left the gateway: no packet is malformed, and the translated values are where they belong.

In: a capture from outside the NAT, the gateway's public address. Out: faults. That the descriptions fit the media
is told by tshark too: it follows them, and knows a packet as RTP `set up by SDP` only if it goes where one said.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.corpus.tshark import BROKEN, OPTIONS

_ADDRESSES = (
    "sip.Via.sent-by.address", "sip.r-uri.host", "sip.from.host", "sip.to.host", "sip.contact.host",
    "sdp.owner.address", "sdp.connection_info.address",
)  # fmt: skip


def _rows(capture: Path, wanted: str, *fields: str) -> list[list[set[str]]]:
    command = ["tshark", "-r", str(capture), *OPTIONS, "-d", "udp.port==5062,sip", "-Y", wanted, "-T", "fields",
               "-E", "aggregator=;"]  # fmt: skip
    for field in fields:
        command += ["-e", field]
    text = subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8", "replace")
    return [[set(filter(None, column.split(";"))) for column in line.split("\t")] for line in text.split("\n")[:-1]]


def broken(capture: Path) -> list[str]:
    """What tshark takes for malformed, and wrong checksums."""
    rows = _rows(capture, BROKEN, "frame.number", "_ws.expert.message")
    return [f"frame {number} is broken: {reason or 'checksum'}" for number, reason in rows]


def faults(capture: Path, public: str, inside: tuple[str, ...]) -> list[str]:
    """`inside`: what addresses begin with that nobody outside may be told."""
    ip = "ipv6" if ":" in public else "ip"
    found = broken(capture)
    told = _rows(capture, f"sip && !icmp && !icmpv6 && {ip}.src == {public}", "frame.number", *_ADDRESSES)
    if not told:
        found.append("no SIP of the gateway's")
    for number, *values in told:
        for name, shown in zip(_ADDRESSES, values, strict=True):
            found += [f"frame {number}: {name} {value}" for value in shown if value.strip("[]").startswith(inside)]
    described = f"{ip}.dst == {public} && udp.dstport >= 1024 && udp.dstport != 5060 && udp.dstport != 5062"
    heard = _rows(capture, f'rtp && {described} && rtp.payload contains ";---"', "frame.number", "rtp.setup-method")
    found += [f"frame {number}: RTP where no description said" for number, method in heard if method != {"SDP"}]
    if not heard:
        found.append("no media")
    return found
