"""tshark's verdict: which base protocols a flow's packets carry.

In: a capture and 5-tuples. Out: per 5-tuple the protocols, with the frames that show them. A protocol counts only by a
field that its own header gives (a port alone makes tshark say `tls` or `http` of anything); RTP, which tshark's
heuristic over-counts, only by a run of one source (RFC 3550 appendix A.1).
"""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.accuracy.labels import Tuple, tuple_of

HEURISTICS = ("rtp_udp", "rtp_stun", "stun_turn")
EVIDENCE = {
    "stun.type": "STUN", "stun.channel": "STUN", "classicstun.type": "STUN",
    "sip.Method": "SIP", "sip.Status-Code": "SIP",
    "rtcp.pt": "RTP",
    "xmpp.xmlns": "XMPP", "xmpp.stream": "XMPP", "xmpp.iq": "XMPP", "xmpp.message": "XMPP", "xmpp.presence": "XMPP",
    "http.request.method": "HTTP", "http.response.code": "HTTP", "http2.type": "HTTP",
    "tls.record.content_type": "TLS", "tls.record.opaque_type": "TLS", "tls.handshake.type": "TLS",
    "quic.version": "QUIC", "gquic.version": "QUIC", "gquic.tag": "QUIC",
    "dtls.record.content_type": "DTLS", "dtls.handshake.type": "DTLS",
    "dns.flags": "DNS",
}  # fmt: skip
"""Field -> what it proves."""
RUN = 4
"""Consecutive RTP packets of one source that make it RTP."""
FRAMES = 3
"""Frames named as evidence."""
ADDRESSES = ("ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "udp.srcport", "udp.dstport", "tcp.srcport", "tcp.dstport")
COLUMNS = ("frame.number", "frame.protocols", "_ws.malformed", *ADDRESSES, "rtp.ssrc", "rtp.seq", *EVIDENCE)

Verdict = dict[str, list[int]]
"""Protocol -> the first frames that show it."""
SEPARATOR = "\x1f"


def verdicts(path: Path, wanted: Iterable[Tuple]) -> dict[Tuple, Verdict]:
    """One tshark run; each tuple of `wanted` is in the answer, with no protocols where tshark finds none."""
    found: dict[Tuple, dict[str, list[int]]] = {key: defaultdict(list) for key in wanted}
    runs: dict[tuple[Tuple, str, str], tuple[int, list[int]]] = {}
    for key, source, row in _rows(path):
        verdict = found.get(key)
        if verdict is None:
            continue
        frame = int(row["frame.number"])
        for field, protocol in EVIDENCE.items():
            if row[field] and not (protocol == "DNS" and row["_ws.malformed"]):
                verdict[protocol].append(frame)
        if row["rtp.ssrc"] and row["rtp.seq"]:
            frames = _follow(runs, (key, source, row["rtp.ssrc"].split(SEPARATOR)[0]), row, frame)
            if len(frames) >= RUN:
                verdict["RTP"].extend(frames)
    return {
        key: {protocol: sorted(set(frames))[:FRAMES] for protocol, frames in sorted(verdict.items())}
        for key, verdict in found.items()
    }


def _follow(
    runs: dict[tuple[Tuple, str, str], tuple[int, list[int]]],
    run: tuple[Tuple, str, str],
    row: dict[str, str],
    frame: int,
) -> list[int]:
    sequence = int(row["rtp.seq"].split(SEPARATOR)[0])
    last, frames = runs.get(run, (sequence - 1, []))
    frames = [*frames[-RUN:], frame] if 0 < (sequence - last) & 0xFFFF <= 16 else [frame]
    runs[run] = (sequence, frames)
    return frames


def _rows(path: Path) -> Iterator[tuple[Tuple, str, dict[str, str]]]:
    """Frame by frame: its 5-tuple, its source, its fields. Packets quoted in ICMP errors and tunnels are no rows."""
    command = ["tshark", "-n", "-r", str(path)]
    for heuristic in HEURISTICS:
        command += ["--enable-heuristic", heuristic]
    command += ["-T", "fields", "-E", f"aggregator={SEPARATOR}"]
    for column in COLUMNS:
        command += ["-e", column]
    text = subprocess.run(command, capture_output=True, check=False).stdout.decode("utf-8", "replace")
    for line in text.split("\n")[:-1]:
        values = line.split("\t")
        if len(values) != len(COLUMNS):
            continue
        row = dict(zip(COLUMNS, values, strict=True))
        layers = row["frame.protocols"].split(":")
        if "icmp" in layers or "icmpv6" in layers or layers.count("ip") + layers.count("ipv6") != 1:
            continue
        first = {name: row[name].split(SEPARATOR)[0] for name in ADDRESSES}
        proto = "udp" if first["udp.srcport"] else "tcp"
        sport, dport = first[f"{proto}.srcport"], first[f"{proto}.dstport"]
        src, dst = first["ip.src"] or first["ipv6.src"], first["ip.dst"] or first["ipv6.dst"]
        if sport and src:
            yield tuple_of(proto, src, sport, dst, dport), f"{src} {sport}", row
