"""The story of each session is the report's, row by row (facts_table.py): what, between whom, with what particulars."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.corpus import facts_table
from tests.corpus.facts_table import Check, Row
from tests.corpus.variation import Variation
from tests.story.tell import Line, told

STUN = {
    "0x0001": "STUN Binding request", "0x0101": "STUN Binding success", "0x0003": "TURN Allocate request",
    "0x0103": "TURN Allocate success", "0x0004": "TURN Refresh request", "0x0009": "TURN ChannelBind request",
    "0x0109": "TURN ChannelBind success", "0x0119": "TURN ChannelBind error",
}  # fmt: skip
ATTRIBUTES = {
    "0x0006": "USERNAME of 20 binary bytes, no colon", "0x0016": "XOR-RELAYED-ADDRESS", "0x0022": "RESERVATION-TOKEN",
    "0x0020": "MAPPED-ADDRESS", "0x0001": "MAPPED-ADDRESS", "0x0025": "USE-CANDIDATE", "0x8029": "ICE-CONTROLLED",
    "0x802a": "ICE-CONTROLLING",
}  # fmt: skip
SDP = {"sdp.owner": "o=", "sdp.session_name": "s=", "sdp.connection_info": "c=", "sdp.media": "m=",
       "sdp.media_attr": "a=", "sdp.bandwidth": "b="}  # fmt: skip
RTCP = {"200": "SR", "202": "SDES"}


class Told:
    """The lines of one session, by frame."""

    def __init__(self, session: int, seed: int, v6: bool) -> None:
        self.v = Variation.from_seed(seed, v6=v6)
        self.lines = told(session, seed, v6)
        self.steps: dict[int, Line] = {line["packet"]: line for line in self.lines if line["type"] == "step"}
        self.folds = [line for line in self.lines if line["type"] == "fold"]
        self.addresses = {
            (line["call"], line["name"]): line["addresses"] for line in self.lines if line["type"] == "party"
        }

    def at(self, frame: int, kind: str = "") -> Iterator[Line]:
        """What is told of that frame: its step, or the lines of the fold that covers it."""
        step = self.steps.get(frame)
        if step is not None:
            yield step
        for fold in self.folds:
            for line in fold["lines"]:
                if line["first_packet"] <= frame <= line["last_packet"] and line["what"].startswith(kind):
                    yield {**line, "call": fold["call"], "details": line["types"], "effects": []}

    def words(self, line: Line) -> str:
        """All that is said of a message; of one sent again, what was said the first time."""
        said = " | ".join([line["what"], *line["details"], *(effect["text"] for effect in line["effects"])])
        again = re.search(r"sent again, same transaction as (\d+)", said)
        return said + " | " + self.words(self.steps[int(again[1])]) if again else said

    def is_at(self, line: Line, name: str, end: str) -> bool:
        """Whether the party at that end of the packet has this address; the relay stands where it passes on."""
        address = getattr(self.v.hosts, end.format(bye="peer_public" if self.v.bye_direct else "relay"))
        names = [line[name], line["through"]]
        known = [a for n in names if n for a in self.addresses[line["call"], n]]
        return any(a == address or a.startswith((f"{address}:", f"[{address}]:")) for a in known)


def faults(row: Row, story: Told) -> list[str]:
    """What the story says otherwise than the report; empty if nothing."""
    media = row.what.endswith(("RTP", "copy", "packet"))
    found = list(story.at(row.frame, "RTCP" if "SR" in row.what else "RTP" if media else ""))
    if not found:
        return ["not told"]
    for line in found:
        wrong = [f"{name} is {line[name]}" for name, end in (("from", row.src), ("to", row.dst))
                 if end and not story.is_at(line, name, end)]  # fmt: skip
        wrong += [fault for check in row.checks if (fault := compare(check, line, story, row))]
        if not wrong:
            return []
    return wrong


def compare(check: Check, line: Line, story: Told, row: Row) -> str | None:
    field, relation, template = check
    v, said = story.v, story.words(line)
    value = template if template in ("media", "as in 508") else template.format(
        h=v.hosts, v=v, ip="IP6" if v.v6 else "IP4", rtcp=v.rtcp_port or v.media_port, unreachable="",
        channel=f"0x{v.channel:04x}", channel2=f"0x{v.channel + 1:04x}",
    )  # fmt: skip
    match field:
        case "stun.type":
            right = line["what"].startswith(STUN[value])
        case "stun.att.type" if relation == "lacks":
            right = "no USERNAME" in said
        case "stun.att.type" | "_ws.expert.message":
            number = value.rpartition(" ")[2]
            right = ATTRIBUTES.get(number, number) in said
        case "stun.att.lifetime":
            right = f"LIFETIME {value}" in said
        case "stun.channel":
            right = (line["through"] is not None) is (relation != "lacks")
        case "stun.att.port":
            right = f":{value}" in said
        case "stun.att.addr":
            right = value in said
        case "stun.att.error":
            right = line["what"].endswith(f" 4{value}")
        case "stun.response-to":
            right = f"answers {value}" in said
        case "stun.id":
            right = "508" in said or row.frame == 508
        case "sip.Method":
            right = line["what"].startswith(f"SIP {value}")
        case "sip.Status-Code":
            right = line["what"].startswith(f"SIP {value} ")
        case "sip.CSeq.method":
            right = (f"to {value}" in line["what"]) is (value != "INVITE")
        case _ if field in SDP:
            texts = [
                each["text"] for each in story.lines if each["type"] == "description" and each["packet"] == row.frame
            ]
            right = (
                bool(texts) and re.search(rf"^{re.escape(SDP[field] + value)}\s*$", texts[0], re.MULTILINE) is not None
            )
        case "tls.record.content_type":
            right = line["what"].startswith("TLS application data") and "courier" in (line["from"], line["to"])
        case "icmp.unreachable":
            right = "destination unreachable" in line["what"]
        case "rtp.p_type":
            right = line["what"].startswith("RTP") and any(kind in said for kind in facts_table.MEDIA_TYPES)
        case "udp.port":
            right = (line["through"] is not None) is (value == str(v.relay_port))
        case "rtcp.pt":
            right = RTCP[value] in said
        case "rtp.seq":
            right = row.frame == 6892 or f"sequence {value}" in said
        case "http.content_length_header":
            right = f"body of {value} bytes" in said
        case _:
            right = value in said
    return None if right else f"{field} {relation} {value}: {said}"


CASES = [(session, 0, False) for session in range(1, 6)] + [(1, 3, True), (4, 1, False), (5, 2, True)]


@pytest.mark.parametrize(("session", "seed", "v6"), CASES)
def test_the_report_s_story_row_by_row(session: int, seed: int, v6: bool) -> None:
    story = Told(session, seed, v6)
    rows = [row for row in facts_table.ROWS if row.session == session]
    assert len(rows) >= 9
    wrong = [f"frame {row.frame} ({row.what}): {fault}" for row in rows for fault in faults(row, story)]
    assert wrong == [], "\n".join(wrong)


def test_another_row_would_be_missed() -> None:
    """The comparison can fail: an answer where the report has a request, another relay's channel, a wrong attribute."""
    story = Told(1, 0, False)
    good = next(row for row in facts_table.ROWS if row[:2] == (1, 122))
    assert faults(good, story) == []
    assert faults(good._replace(frame=60), story)
    assert faults(good._replace(checks=(facts_table.DIRECT,)), story)
    assert faults(good._replace(checks=(facts_table.CONTROLLED,)), story)
    assert faults(good._replace(dst="courier"), story)
    assert faults(good._replace(frame=50), story) == ["not told"]


def test_what_changed_stands_at_its_frame() -> None:
    """Session 1: the name at 60, the pinhole at the peer's check 162, the call at 169, its answer at 172, its end."""
    effects = {
        (line["packet"], effect["kind"], effect["text"])
        for line in told(1)
        if line["type"] == "step"
        for effect in line["effects"]
    }
    assert {
        (60, "named", "facetime, conclusive (stun > turn > facetime)"),
        (60, "call", "call 1 of facetime is set up"),
        (169, "call", "call 1 of facetime begins: 172.16.42.187 calls 71.230.89.52"),
        (172, "call", "call 1 answered"),
        (162, "pinhole", "pinhole 1 opened: 172.16.42.187 port 16402 from 71.230.89.52 (channel-bind)"),
        (172, "pinhole", "pinhole 1 held on: 172.16.42.187 port 16402 from 71.230.89.52 (sdp-answer)"),
        (175, "media", "media begins, through the relay"),
        (300, "media", "media goes directly from here on"),
        (5786, "call", "call 1 ends: bye"),
        (5790, "pinhole", "pinhole 1 closed: 172.16.42.187 port 16402 from 71.230.89.52 (sdp-answer)"),
    } <= effects


def test_the_fact_that_counted_is_named() -> None:
    """The report's first telling fact: an Allocate request with XOR-RELAYED-ADDRESS and RESERVATION-TOKEN."""
    step = next(line for line in told(1) if line["type"] == "step" and line["packet"] == 60)
    because = step["effects"][0]["because"]
    assert [reason["signature"] for reason in because] == ["allocate-with-relayed-address"]
    assert "stun.relayed_address 17.173.254.35:3489, stun.reservation_token" in because[0]["facts"]


def test_what_was_done_before_its_time() -> None:
    """122 uses the channel before 158 answers 121; 160's USERNAME is 122's, reversed; 161's is another."""
    details = {line["packet"]: " | ".join(line["details"]) for line in told(1) if line["type"] == "step"}
    assert "before ChannelBind 121 is answered" in details[122]
    assert "answers 121" in details[158]
    assert "USERNAME of 122, halves swapped" in details[160]
    assert "another USERNAME than before" in details[161]


def test_a_call_that_takes_the_relay_again_sends_both_ways() -> None:
    """Session 5, frames 6892 and 6893: the same sequence number 51593 travels both ways."""
    step = next(line for line in told(5) if line["type"] == "step" and line["packet"] == 6893)
    assert step["effects"][0]["text"] == (
        "media goes through the relay again; the same sequence number 51593 went the other way in 6892"
    )
