"""The five sessions of 2015 through the engine, against the truth that their generator wrote down (tests/corpus)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from appid.cli.check import lines
from appid.dataplane.model import Kernel
from appid.edge.replay import Replay
from appid.edge.rule_files import load_applications
from appid.engine import Engine, Settings
from tests.corpus import facetime2023, lookalikes, sessions
from tests.corpus import stun_bytes as stun
from tests.corpus.expected import Case, Expected, FlowTruth
from tests.corpus.legs import Leg, Pair
from tests.corpus.media import Media
from tests.corpus.scene import Dialog, Direct, Scene
from tests.corpus.stage import Stage
from tests.corpus.variation import Variation
from tests.corpus.writer import End, Tcp

CAPTURES = Path(__file__).parents[2] / "../shared/captures"
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
SEEDS = range(6)
CASES = [(session, seed, v6) for session in sorted(sessions.BUILDERS) for seed in SEEDS for v6 in (False, True)]


@cache
def told(session: int, seed: int, v6: bool, folder: Path, start: int = 1) -> tuple[Expected, list[dict[str, Any]]]:
    case = sessions.build(session, Variation.from_seed(seed, v6=v6))
    if start > 1:
        case = case.from_frame(start)
    path = folder / f"{session}-{seed}-{v6}-{start}.pcap"
    case.capture.save(path)
    return case.expected, check(path)


def check(path: Path) -> list[dict[str, Any]]:
    settings = Settings(load_applications())
    replayed = Replay(Engine(settings), Kernel(settings.marks, "pass")).run(path)
    path.unlink()
    return list(lines(replayed, drops=False))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sessions")


def flow_of(output: list[dict[str, Any]], truth: FlowTruth) -> dict[str, Any]:
    flow = truth.flow
    (src, sport), (dst, dport) = flow.src, flow.dst
    found = [
        line for line in output
        if line["type"] == "flow" and line["proto"] == PROTOCOLS[flow.proto]
        and line["first_packet"] == truth.first_packet
        and {(line["src"], line["sport"]), (line["dst"], line["dport"])} == {(src, sport), (dst, dport)}
    ]  # fmt: skip
    assert len(found) == 1, f"{flow} from frame {truth.first_packet}: {found}"
    return dict(found[0])


@pytest.mark.parametrize(("session", "seed", "v6"), CASES)
def test_every_flow_is_named_right_and_in_time(session: int, seed: int, v6: bool, folder: Path) -> None:
    expected, output = told(session, seed, v6, folder)
    wrong: list[tuple[object, ...]] = []
    for truth in expected.flows:
        flow = flow_of(output, truth)
        if flow["application"] not in truth.applications:
            wrong.append((truth.flow, truth.applications, flow["application"], flow["because"]))
        elif truth.identified_by is not None and (flow["identified_at"] or 10**9) > truth.identified_by:
            wrong.append((truth.flow, truth.identified_by, flow["identified_at"], flow["path"]))
        if flow["last_packet"] != truth.last_packet or flow["packets"] != len(truth.frames):
            wrong.append((truth.flow, truth.last_packet, flow["last_packet"], len(truth.frames), flow["packets"]))
    assert not wrong


@pytest.mark.parametrize(("session", "seed", "v6"), CASES)
def test_calls_begin_and_end_at_the_right_packets(session: int, seed: int, v6: bool, folder: Path) -> None:
    expected, output = told(session, seed, v6, folder)
    calls = [line for line in output if line["type"] == "call"]
    assert len(calls) == len(expected.calls), calls
    for call, truth in zip(calls, expected.calls, strict=True):
        assert call["application"] == truth.application
        assert call["call_id"] == truth.call_id
        assert call["started_at"] in truth.started_at
        assert call["answered_at"] == truth.answered_at
        assert call["end"] == truth.end
        assert (call["ended_at"] in truth.ended_at) if truth.ended_at else call["ended_at"] is None
        if truth.call_id is not None:
            assert (call["caller"], call["callee"]) == (truth.caller, truth.callee)


@pytest.mark.parametrize(("session", "seed", "v6"), CASES)
def test_flows_of_a_call_are_tied_together(session: int, seed: int, v6: bool, folder: Path) -> None:
    expected, output = told(session, seed, v6, folder)
    for truth in expected.flows:
        flow = flow_of(output, truth)
        wanted = None if truth.call is None else truth.call + 1
        assert flow["call"] == wanted, (truth.flow, flow["application"], flow["path"])


@pytest.mark.parametrize(("session", "seed", "v6"), CASES)
def test_pinholes_open_with_the_dialog_and_close_with_it(session: int, seed: int, v6: bool, folder: Path) -> None:
    expected, output = told(session, seed, v6, folder)
    holes = [line for line in output if line["type"] == "pinhole"]
    wanted = expected.pinholes
    for hole in holes:
        assert any((hole["inside"], hole["port"], hole["peer"]) == (w.inside, w.port, w.peer) for w in wanted), hole
    for truth in wanted:
        place = (truth.inside, truth.port, truth.peer, truth.call + 1)
        mine = [h for h in holes if (h["inside"], h["port"], h["peer"], h["call"]) == place]
        if not mine:
            assert not truth.required, (truth, holes)
            continue
        hole = mine[0]
        assert truth.opens_from <= hole["opened_at"] <= truth.opens_by, (truth, hole)
        if hole["closed_at"] is None:
            assert truth.may_stay_open, (truth, hole)
        else:
            assert truth.closes_from <= hole["closed_at"] <= truth.closes_by, (truth, hole)


def test_two_runs_print_the_same(folder: Path) -> None:
    first = told(1, 3, False, folder)[1]
    told.cache_clear()
    second = told(1, 3, False, folder)[1]
    assert json.dumps(first) == json.dumps(second)


@pytest.mark.parametrize("start", [61, 121, 165, 200, 1000])
def test_a_capture_from_mid_call_is_named_from_what_is_visible(start: int, folder: Path) -> None:
    expected, output = told(1, 0, False, folder, start)
    for truth in expected.flows:
        flow = flow_of(output, truth)
        assert flow["application"] in truth.applications, (truth, flow)


@pytest.mark.parametrize("case", lookalikes.cases(), ids=lambda case: case.name)
def test_a_look_alike_is_never_facetime(case: Case, folder: Path) -> None:
    path = folder / "lookalike.pcap"
    case.capture.save(path)
    output = check(path)
    for line in output:
        if line["type"] == "flow":
            names = {line["application"], *line["path"]}
            assert not names & set(case.expected.not_applications), line
    for truth in case.expected.flows:
        if truth.applications:
            flow = flow_of(output, truth)
            assert flow["application"] in truth.applications, flow
    assert not [line for line in output if line["type"] == "pinhole" and "facetime" in case.expected.not_applications]


SIP_CALLS = [
    ("105090259-446faf7a@192.168.1.2", 22, "cancelled", 30),
    ("85216695-42dcdb1d@192.168.1.2", 46, "refused", 53),
    ("24487391-449bf2a0@192.168.1.2", 76, "refused", 84),
    ("11894297-4432a9f8@192.168.1.2", 87, "refused", 93),
]
"""ndpi/sip.pcap as tshark tells it: INVITE and CANCEL; then three that were challenged (407) and sent again, CSeq 2."""


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="the captures are not beside the project")
def test_real_sip_calls_begin_and_end_where_tshark_sees_it() -> None:
    settings = Settings(load_applications())
    replayed = Replay(Engine(settings), Kernel(settings.marks, "pass")).run(CAPTURES / "ndpi/sip.pcap")
    calls = [line for line in lines(replayed, drops=False) if line["type"] == "call"]
    assert [(c["call_id"], c["started_at"], c["end"], c["ended_at"]) for c in calls] == SIP_CALLS
    assert {c["caller"] for c in calls} == {"192.168.1.2"}
    assert all(c["answered_at"] is None for c in calls)


MODERN = (facetime2023.relayed, facetime2023.direct, facetime2023.direct_unanswered, facetime2023.controls_alone)


@pytest.mark.parametrize("play", MODERN, ids=lambda play: play.__name__)
def test_facetime_of_2023_is_known_from_its_first_packet_and_then_the_kernels(
    play: Callable[[Stage], None], folder: Path
) -> None:
    """Of a flow of the generation that can not be read one packet comes to userspace, and nothing is opened."""
    output = modern(play, folder)
    flows = [line for line in output if line["type"] == "flow"]
    assert [(f["application"], f["confidence"], f["identified_at"]) for f in flows] == [("facetime", "conclusive", 1)]
    assert flows[0]["userspace_packets"] == 1 < flows[0]["packets"]
    assert not [line for line in output if line["type"] == "pinhole"]


@pytest.mark.parametrize(
    ("play", "confidence"),
    [
        (facetime2023.flags_alone, "strong"),
        (facetime2023.first_relayed, "strong"),
        (facetime2023.other_groups, "strong"),
        (facetime2023.bandwidth_probed, "supporting"),
        (facetime2023.another_release, "supporting"),
    ],
)
def test_what_is_weaker_of_2023_is_named_with_less_confidence(
    play: Callable[[Stage], None], confidence: str, folder: Path
) -> None:
    (flow,) = [line for line in modern(play, folder) if line["type"] == "flow"]
    assert (flow["application"], flow["confidence"]) == ("facetime", confidence)


@pytest.mark.parametrize(
    ("play", "confidence", "at"),
    [
        (facetime2023.relayed_by_another, "strong", 5),  # the third frame of one direction
        (facetime2023.relayed_from_the_start_of_the_channel, "strong", 4),
        (facetime2023.controlled_through_the_relay, "conclusive", 1),
        (facetime2023.within_the_handshake, "supporting", 5),  # three that differ in their first byte
    ],
)
def test_the_relay_of_2023_is_known_from_any_packet_on(
    play: Callable[[Stage], None], confidence: str, at: int, folder: Path
) -> None:
    """By what its frames are, where addresses and ports say nothing; within the handshake by the relay's address."""
    (flow,) = [line for line in modern(play, folder) if line["type"] == "flow"]
    assert (flow["application"], flow["confidence"], flow["identified_at"]) == ("facetime", confidence, at)


@pytest.mark.parametrize("seed", range(12))
def test_2023_with_other_ports_addresses_and_values(seed: int, folder: Path) -> None:
    """Drawn from seeds, IPv4 and IPv6: from the hello, from the handshake's middle, from the channel's middle."""
    rng = random.Random(seed)
    own, relay = (("172.16.42.187", "17.%d.%d.%d"), ("fd00:42::187", "2620:149:%x:%x::%x"))[seed % 2]
    ends = (
        End(own, rng.randint(16384, 65000)),
        End(relay % tuple(rng.choices(range(1, 250), k=3)), rng.randint(3478, 3497)),
    )
    plays = (facetime2023.relayed, facetime2023.within_the_handshake, facetime2023.framed)
    for play in plays:
        stage = Stage(rng)
        play(stage, *ends)
        stage.cap.save(folder / "seeded.pcap")
        (flow,) = [line for line in check(folder / "seeded.pcap") if line["type"] == "flow"]
        assert flow["application"] == "facetime", (play.__name__, seed)


def test_a_relayed_call_of_2023_from_its_middle(folder: Path) -> None:
    """The channel alone proves nothing; with Apple's relay at the other end it does, at its first packet."""
    (flow,) = [line for line in modern(facetime2023.relayed_from_the_middle, folder) if line["type"] == "flow"]
    assert (flow["application"], flow["confidence"], flow["identified_at"]) == ("facetime", "supporting", 1)


def modern(play: Callable[[Stage], None], folder: Path) -> list[dict[str, Any]]:
    stage = Stage(random.Random(play.__name__))
    play(stage)
    path = folder / "modern.pcap"
    stage.cap.save(path)
    return check(path)


@pytest.mark.parametrize("start", [171, 200, 1000])
def test_a_call_joined_in_its_middle_ends_with_its_bye(start: int, folder: Path) -> None:
    """Session 1: BYE at 5786, its answer at 5790."""
    _, output = told(1, 0, False, folder, start)
    calls = [line for line in output if line["type"] == "call"]
    assert [(call["end"], call["ended_at"]) for call in calls] == [("bye", 5790 - start + 1)]
    assert not [line for line in output if line["type"] == "pinhole"]


def test_two_clients_on_relays_of_their_own_are_told_as_one_call(tmp_path: Path) -> None:
    """Both inside: what was called call 2 until the INVITE came back in is nowhere in what is told."""
    s = Scene(3, Variation())
    ends = ((s.client, End(s.h.relay, 3478)), (s.client2, End(s.h.relay2, 3478)))
    legs = [Leg(s, client, relay, s.public, s.public, 0x4001) for client, relay in ends]
    for leg in legs:
        leg.allocate(s.transaction())
        leg.bind(s.transaction())
    pair, first = Pair(s, True), s.transaction()
    legs[1].into(pair.check(first))  # opens a pinhole of the second's own
    dialog = s.dialog(s.public, s.public)
    for message in (dialog.invite(), dialog.response(200, "OK", answer=True)):
        legs[0].out(message)
        legs[1].into(message)
        legs.reverse()
    s.cap.save(tmp_path / "one.pcap")
    output = check(tmp_path / "one.pcap")
    assert [(line["id"], line["flows"]) for line in output if line["type"] == "call"] == [(1, [1, 2])]
    assert {line["call"] for line in output if line["type"] == "flow"} == {1}
    assert {line["call"] for line in output if line["type"] == "pinhole"} == {1}


def test_a_path_that_two_calls_foresaw_was_named_at_its_first_packet(tmp_path: Path) -> None:
    """One call after the other between the same two sockets: one flow, and the second call does not name it later."""
    s = Scene(1, Variation())
    leg = Leg(s, s.client, End(s.h.relay, 3478), s.peer, s.public, 0x4001)
    leg.allocate(s.transaction())
    leg.bind(s.transaction())
    for _ in range(2):
        dialog = s.dialog(s.public, s.peer)
        leg.out(dialog.invite())
        leg.into(dialog.response(200, "OK", answer=True))
        for sequence in range(3):
            s.cap.udp(s.peer, s.client, b"\x80\x68" + sequence.to_bytes(2, "big") + bytes(60))
        leg.out(dialog.bye())
        leg.into(dialog.bye_answer())
        s.tick(20.0)
    s.cap.save(tmp_path / "two.pcap")
    output = check(tmp_path / "two.pcap")
    flow = next(line for line in output if line["type"] == "flow" and line["src"] == s.peer.host)
    assert flow["identified_at"] == flow["first_packet"] == 5
    assert len([line for line in output if line["type"] == "call"]) == 2


APPLES, ANOTHERS = "17.173.254.35", "203.0.113.35"


def middle(what: str, relay: End, folder: Path) -> dict[str, Any]:
    """The relay's flow in a capture that begins when nothing is left but this."""
    s = Scene(1, Variation(seed=7, user_agent=None))
    client, media = s.client, Media(s.rng, s.cap.now)
    if what == "bye":
        leg = Leg(s, client, relay, s.peer, s.public, 0x4001)
        dialog = s.dialog(s.public, s.peer)
        leg.out(dialog.bye())
        leg.into(dialog.bye_answer())
    elif what == "padded":
        for _ in range(12):
            s.cap.udp(client, relay, stun.channel_data(0x4001, media.take().data, padded=True))
    else:
        tcp = Tcp(s.cap, client, relay, 5000, 7000)
        tcp.send(b"\x40\x01\x00\x64" + bytes(20), True)  # the end of a message whose beginning is not seen
        for _ in range(8):
            tcp.send(stun.channel_data(0x4001, media.take().data, padded=True), True)
    s.cap.save(folder / "middle.pcap")
    (flow,) = [line for line in check(folder / "middle.pcap") if line["type"] == "flow"]
    return flow


@pytest.mark.parametrize(
    ("what", "port", "otherwise"), [("bye", 16385, "sip"), ("padded", 3478, "turn"), ("stream", 443, "turn")]
)
def test_what_is_left_of_a_relayed_call_counts_at_apples_relay(
    what: str, port: int, otherwise: str, folder: Path
) -> None:
    """A BYE without User-Agent, media in padded messages, media in a stream joined within a message; elsewhere the same
    is nobody's."""
    assert middle(what, End(APPLES, port), folder)["application"] == "facetime"
    assert middle(what, End(ANOTHERS, port), folder)["application"] == otherwise


def over(s: Scene, leg: Leg, direct: Direct, calls: int, by_direct: bool) -> list[Dialog]:
    """So many calls one after the other, their media direct; when one is over, three packets are under way."""
    back, dialogs = Direct(s, direct.dst, direct.src), []
    leg.allocate(s.transaction())
    leg.bind(s.transaction())
    for _ in range(calls):
        dialog = s.dialog(s.public, s.peer)
        dialogs.append(dialog)
        leg.out(dialog.invite())
        leg.into(dialog.response(200, "OK", answer=True))
        direct(Pair(s, True).check(s.transaction()), "stun")
        there, here = (direct, back) if by_direct else (leg, leg.back())
        there(dialog.bye(), "sip")
        here(dialog.bye_answer(), "sip")
        for sequence in range(3):
            back(b"\x80\x68" + sequence.to_bytes(2, "big") + bytes(60), "audio")
        there(dialog.bye(), "sip")
        direct(Pair(s, True).check(s.transaction()), "stun")
        s.tick(4.0)
    return dialogs


@pytest.mark.parametrize("by_direct", [False, True], ids=["relay", "direct"])
def test_what_is_under_way_when_a_call_ends_begins_no_other(by_direct: bool, tmp_path: Path) -> None:
    """Media, a BYE sent again, a check: they are the call's that is over, and then the next call's."""
    s = Scene(1, Variation())
    leg = Leg(s, s.client, End(s.h.relay, 3478), s.peer, s.public, 0x4001)
    dialogs = over(s, leg, Direct(s, s.client, s.peer), 2, by_direct)
    s.cap.save(tmp_path / "over.pcap")
    output = check(tmp_path / "over.pcap")
    calls = [line for line in output if line["type"] == "call"]
    assert [(line["call_id"], line["end"], line["flows"]) for line in calls] == [
        (dialog.call_id, "bye", [1, 2]) for dialog in dialogs
    ]
    assert [(line["application"], line["call"]) for line in output if line["type"] == "flow"] == [("facetime", 2)] * 2
