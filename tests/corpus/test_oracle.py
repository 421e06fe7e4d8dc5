"""tshark, not our decoders, reads every row of the report at its frame number (facts_table.py).

Where the magic cookie is absent tshark 4.0 knows only RFC 3489's messages and none inside ChannelData; such a seed's
rows are read from a twin that differs in the cookie alone, and the capture itself by message types.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.corpus import facts_table, sessions, tshark
from tests.corpus.expected import Case
from tests.corpus.facts_table import MEDIA_TYPES, Check, Row
from tests.corpus.stun_bytes import COOKIE
from tests.corpus.tshark import Values
from tests.corpus.variation import Variation

SEEDS = (0, 1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow))
FAMILY = ("ip.src", "ip.dst", "stun.att.ipv4", "icmp.type"), ("ipv6.src", "ipv6.dst", "stun.att.ipv6", "icmpv6.type")
ALIASES = ("src", "dst", "stun.att.addr", "icmp.unreachable")
NAMES = {"_ws.expert.message"} | {check[0] for row in facts_table.ROWS for check in row.checks} - set(ALIASES)
FIELDS = (*FAMILY[0], *FAMILY[1], *sorted(NAMES), "udp.payload")


def save(case: Case, folder: Path) -> Path:
    path = folder / f"{case.name}.pcap"
    case.capture.save(path)
    return path


def rows_of(session: int) -> list[Row]:
    return [row for row in facts_table.ROWS if row.session == session]


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("session", sorted(sessions.BUILDERS))
def test_every_row_at_its_frame(session: int, seed: int, v6: bool, tmp_path: Path) -> None:
    v = replace(Variation.from_seed(seed, v6=v6), cookie=COOKIE)
    path = save(sessions.build(session, v), tmp_path)
    rows = rows_of(session)
    found = tshark.read(path, FIELDS, {row.frame for row in rows})
    wrong = [f"frame {row.frame} ({row.what}): {fault}" for row in rows for fault in faults(row, found, v)]
    assert not wrong, "\n".join(wrong)
    listed = {row.frame for row in rows}
    broken = [n for n, seen in found.items() if (seen["malformed"] or n not in listed) and not excused(seen, v)]
    assert not broken, f"malformed, or wrong checksums: {broken}"


def excused(seen: Values, v: Variation) -> bool:
    """tshark calls `a=fmtp:AAC` of the SDP answer malformed, and so it is (the report says so); and it cannot know a
    body's encoding where the header is missing."""
    has_body = seen["sip.Method"] == ["INVITE"] or seen["sip.Status-Code"] == ["200"]
    return has_body and ("Invalid media format" in seen["_ws.expert.message"] or not v.encoding_header)


def faults(row: Row, found: dict[int, Values], v: Variation) -> list[str]:
    """What tshark shows otherwise than the row says; empty if nothing."""
    if row.sdp and not (v.encoding_header or v.encoding == "identity"):
        return []
    seen = dict(found[row.frame])
    for alias, name in zip(ALIASES, FAMILY[v.v6], strict=True):
        seen[alias] = seen[name]
    bye = "peer_public" if v.bye_direct else "relay"
    ends: list[Check] = []
    for side, name in (("src", row.src), ("dst", row.dst)):
        if name:
            ends.append((side, "has", getattr(v.hosts, name.format(bye=bye))))
    return [fault for check in (*ends, *row.checks) if (fault := compare(check, seen, found, v))]


def compare(check: Check, seen: Values, found: dict[int, Values], v: Variation) -> str | None:
    name, relation, template = check
    shown = seen[name]
    if template == "media":
        return None if shown and shown[0] in MEDIA_TYPES else f"{name} is {shown}"
    if template == "as in 508":
        return None if shown == found[508][name] else f"{name} is {shown}"
    wanted = template.format(
        h=v.hosts, v=v, ip="IP6" if v.v6 else "IP4", rtcp=v.rtcp_port or v.media_port, unreachable=1 if v.v6 else 3,
        channel=f"0x{v.channel:04x}", channel2=f"0x{v.channel + 1:04x}",
    )  # fmt: skip
    right = {"has": wanted in shown, "lacks": wanted not in shown, "all": set(shown) == {wanted}}[relation]
    return None if right else f"{name} {relation} {wanted}: {shown}"


def test_the_capture_without_magic_cookie_has_the_same_messages(tmp_path: Path) -> None:
    """What tshark reads of RFC 3489 framing: Allocate and Binding outside channels; SIP and RTP as ever."""
    path = save(sessions.build(1, replace(Variation(), cookie=b"\x35abc")), tmp_path)
    frames = {60: "0x0003", 82: "0x0103", 161: "0x0001", 280: "0x0001", 281: "0x0101", 283: "0x0001", 299: "0x0101"}
    found = tshark.read(path, ("classicstun.type", "sip.Method", "rtp.p_type"), {*frames, 169, 175, 5786})
    assert {n: found[n]["classicstun.type"] for n in frames} == {n: [kind] for n, kind in frames.items()}
    assert found[169]["sip.Method"] == ["INVITE"]
    assert found[175]["rtp.p_type"] == ["104"]
    assert found[5786]["sip.Method"] == ["BYE"]


@pytest.mark.parametrize("reverse", ["halves", "bytes"])
def test_username_is_20_binary_bytes_and_comes_back_reversed(reverse: str, tmp_path: Path) -> None:
    """Frames 122 and 160; 161 is another candidate and has other fragments."""
    v = replace(Variation(), reverse="halves" if reverse == "halves" else "bytes")
    found = tshark.read(save(sessions.build(1, v), tmp_path), ("udp.payload",), {122, 160, 161}, last=200)
    names = {n: username(bytes.fromhex(found[n]["udp.payload"][0])) for n in (122, 160, 161)}
    assert {len(name) for name in names.values()} == {20}
    assert not any(b":" in name for name in names.values())
    turned = names[122][10:] + names[122][:10] if reverse == "halves" else names[122][::-1]
    assert names[160] == turned
    assert names[161] not in (names[122], names[160])


def username(payload: bytes) -> bytes:
    """The value of the attribute 0x0006 that stands first (RFC 8489 14.3)."""
    at = payload.index(b"\x00\x06\x00\x14")
    return payload[at + 4 : at + 24]


def test_probes_on_16403_are_padded_with_ff_and_precede_the_call(tmp_path: Path) -> None:
    found = tshark.read(save(sessions.build(1), tmp_path), ("udp.srcport", "udp.payload"), {20, 21}, last=59)
    request, reply = (bytes.fromhex(found[n]["udp.payload"][0]) for n in (20, 21))
    assert found[20]["udp.srcport"] == ["16403"]
    assert len(request) == len(reply) == 16
    assert request[:4] == b"\0\0\0\1"
    assert reply[:4] == b"\0\0\0\2"
    assert request[4:8] == reply[4:8]
    assert request[8:14] == bytes([172, 16, 42, 187]) + (16403).to_bytes(2, "big")
    assert request[14:] == reply[14:] == b"\xff\xff"


def test_times_of_session_5() -> None:
    """The report's seconds after the cut at 6216: 3 to the relay, 16 to the signalling, 18 to the BYE."""
    frames = sessions.build(5).capture.frames
    after = {n: frames[n - 1][0] - frames[6216 - 1][0] for n in (6893, 9252, 9598)}
    assert after[6893] == pytest.approx(3, abs=0.3)
    assert after[9252] == pytest.approx(16, abs=0.5)
    assert after[9598] == pytest.approx(18, abs=0.5)
