"""What nDPI's lines mean, by lines as ndpiReader 4.11 writes them."""

from __future__ import annotations

from pathlib import Path

from tests.accuracy import labels

LINES = """\
TLS\t12\t766\t1

\t1\tTCP 10.0.0.1:40000 <-> 192.0.2.1:443 [proto: 91.126/TLS.Google][IP: 126/Google][Encrypted][Confidence: DPI][DPI packets: 4][Goodput ratio: 69/72][0.1 sec]
\t2\tUDP [2001:db8:0:1::7]:53 -> [2a38:e156:8167:a333:face:b00c::24d9]:5353 [VLAN: 3][proto: 8/MDNS][IP: 0/Unknown][Confidence: DPI][Goodput ratio: 24/41]
\t3\tUDP [302e::3d00::8001]:9 <-> 10.0.0.9:7 [VLAN: 10][proto: GTP:30/DTLS][Confidence: DPI][Goodput ratio: 24/41]
\t4\tTCP 10.0.0.1:1 <-> 10.0.0.2:80 [proto: 7/HTTP][Confidence: Match by port][Goodput ratio: 0/0]
\t5\tICMP 10.0.0.1:0 -> 10.0.0.2:0 [proto: 81/ICMP][Confidence: DPI][Goodput ratio: 65/0]

Undetected flows:
\t1\tUDP 10.0.0.1:5 -> 10.0.0.2:6 [proto: 0/Unknown][IP: 0/Unknown][Confidence: Unknown][Goodput ratio: 88/0]
"""  # noqa: E501


def test_flow_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap.out"
    path.write_text(LINES)
    known = ("udp", "10.0.0.9 7", "302e:0:3d00::8001 9")
    found = dict(labels.read(path, {known}))
    assert {key: (label.text, label.base) for key, label in found.items()} == {
        ("tcp", "10.0.0.1 40000", "192.0.2.1 443"): ("TLS.Google", "TLS"),
        ("udp", "2001:db8:0:1::7 53", "2a38:e156:8167:a333:face:b00c:0:24d9 5353"): ("MDNS", "DNS"),
        known: ("DTLS", "DTLS"),
        ("tcp", "10.0.0.1 1", "10.0.0.2 80"): ("HTTP", "HTTP"),
        ("udp", "10.0.0.1 5", "10.0.0.2 6"): ("Unknown", None),
    }
    assert [label.tunnel for label in found.values()] == [None, None, "GTP", None, None]
    by_port = found["tcp", "10.0.0.1 1", "10.0.0.2 80"]
    assert (by_port.guessed, by_port.empty) == (True, True)
    assert sum(label.guessed for label in found.values()) == sum(label.empty for label in found.values()) == 1
