"""Engine.handle as its users see it: the commands for each event, in their order, the same ones every time."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from appid.dataplane.command import BindNat, Command, OpenPinhole, SetMark, SetVerdict
from appid.dataplane.model import Kernel
from appid.edge.policy_file import load_policy
from appid.edge.replay import Replay, Replayed
from appid.engine import Engine, Event, FlowEnded, FlowReport, PacketQueued, RulesLoaded, Settings, Tick, stamps
from appid.engine.limits import Limits
from appid.engine.stamps import SECONDS as STAMP_SECONDS
from appid.flow.key import FlowKey
from appid.policy.evaluate import Judge
from appid.policy.rule import PolicyRule
from appid.wire import TCP, UDP, packed
from tests.corpus import facetime2023, sessions
from tests.corpus.expected import Case
from tests.corpus.stage import Stage
from tests.corpus.variation import Variation
from tests.corpus.writer import ACK, SYN, End
from tests.engine.play import ALL, PUBLIC, Play, applications, bodies, of, settings, tcp, udp, verdict

ROOT = Path(__file__).parents[2]
DENY = PolicyRule("no calls", "deny", applications=frozenset({"facetime"}))
QUERY = bytes.fromhex("beef01000001000000000000") + b"\x03www\x07example\x03com\0\0\x01\0\x01"
"""A DNS question, RFC 1035 section 4: named at once."""
Queued = tuple[PacketQueued, float, list[Command]]


@cache
def case(session: int = 1) -> Case:
    return sessions.build(session, Variation.from_seed(0))


@cache
def packets(session: int = 1) -> tuple[tuple[float, bytes], ...]:
    """The session's IP packets, without their Ethernet headers."""
    return tuple((when, data[14:]) for when, data in case(session).capture.frames if data[12:14] == b"\x08\0")


class Listener:
    """Keeps what each queued packet caused."""

    def __init__(self, queued: list[Queued]) -> None:
        self.queued = queued

    def packet(self, data: memoryview, time: int, number: int, life: object) -> None:
        pass

    def commands(self, event: Event, now: float, commands: list[Command], number: int) -> None:
        if isinstance(event, PacketQueued):
            self.queued.append((event, now, commands))


def replay(folder: Path, known: Settings, session: int = 1) -> tuple[Replayed, list[Queued], Engine]:
    path = folder / f"{session}.pcap"
    case(session).capture.save(path)
    queued: list[Queued] = []
    engine = Engine(known)
    kernel = Kernel(known.marks, "pass" if known.judge is None else "drop")
    done = Replay(engine, kernel, observer=Listener(queued)).run(path)
    path.unlink()
    return done, queued, engine


def digest(queued: Sequence[Queued]) -> str:
    told = sha256()
    for event, now, commands in queued:
        told.update(repr((event.packet, now, commands)).encode())
    return told.hexdigest()


# ---- the same answers every time -------------------------------------------------------------------------------------

AGAIN = """
import sys
from pathlib import Path
from tests.engine.play import PUBLIC, settings
from tests.engine.test_core import digest, replay
print(digest(replay(Path(sys.argv[1]), settings(default="none", outside=PUBLIC))[1]))
"""


def test_the_same_events_give_the_same_commands_in_any_process(tmp_path: Path) -> None:
    known = settings(default="none", outside=PUBLIC)
    first = replay(tmp_path, known)[1]
    assert sum(len(of(commands, BindNat)) for _, _, commands in first) >= 1
    engine = Engine(known)
    told = [engine.handle(event, now) for event, now, _ in first if event.packet < 169]
    assert told == [commands for event, _, commands in first if event.packet < 169], "the events alone say it all"
    assert digest(replay(tmp_path, known)[1]) == digest(first)
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        again = subprocess.run(
            [sys.executable, "-c", AGAIN, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert again.stdout.strip() == digest(first), f"with hash seed {seed}"


# ---- what a call needs -----------------------------------------------------------------------------------------------


def test_the_allocate_request_names_facetime_on_the_relay_flow(tmp_path: Path) -> None:
    """Session 1, packet 60: no later packet is needed."""
    for known in (ALL, settings(PolicyRule("all", "allow", applications=frozenset({"facetime"})))):
        _, queued, _ = replay(tmp_path, known)
        named = [
            report
            for _, _, commands in queued
            for report in bodies(commands, FlowReport)
            if report.identification.application == "facetime" and report.key.dst == packed("17.173.254.35")
        ]
        assert named[0].packet == 60
        assert named[0].identification.path == ("stun", "turn", "facetime")
        assert named[0].decision is not None


def test_what_opens_stands_before_the_verdict_of_its_packet(tmp_path: Path) -> None:
    _, queued, _ = replay(tmp_path, settings(default="none", outside=PUBLIC))
    openings = 0
    for event, _, commands in queued:
        verdicts = [n for n, c in enumerate(commands) if isinstance(c, SetVerdict)]
        assert len(verdicts) == 1
        given = commands[verdicts[0]]
        assert isinstance(given, SetVerdict)
        assert given.packet == event.packet
        for n, command in enumerate(commands):
            if isinstance(command, BindNat | OpenPinhole):
                openings += 1
                assert n < verdicts[0]
    assert openings >= 2


@pytest.mark.parametrize("session", [1, 3])
def test_a_decided_flow_that_is_not_watched_is_the_kernels(session: int, tmp_path: Path) -> None:
    _, queued, _ = replay(tmp_path, ALL, session)
    engine = Engine(ALL)
    for event, now, _ in queued:
        engine.handle(event, now)
        kept = list(engine.flows.values())
        assert all(record.decision is None or record.watch for record in kept)
    assert any(record.watch for record in engine.flows.values())


def test_of_a_call_userspace_sees_signalling_only(tmp_path: Path) -> None:
    """Below 1 packet in 50 of the call; its media flow goes through its pinhole unseen."""
    done, queued, _ = replay(tmp_path, ALL)
    direct = [life for life in done.lives if life.key.proto == UDP and life.key.dport == life.key.sport == 16402]
    (media,) = [life for life in direct if life.packets > 1000]
    ports = (16402).to_bytes(2, "big") * 2
    seen = [bytes(event.data) for event, _, _ in queued if event.data[9] == UDP and event.data[20:24] == ports]
    assert {data[28] >> 6 for data in seen} == {0}, "STUN only: no RTP, no RTCP (RFC 7983: 128 to 191)"
    assert media.queued < 10, "STUN checks"
    assert media.report is not None
    assert media.report.identification.application == "facetime"
    assert done.userspace_packets < done.packets / 50


# ---- policies on session 1 -------------------------------------------------------------------------------------------


def drops(done: Replayed) -> dict[int, set[int]]:
    """flow's first frame -> the frames dropped of it."""
    first = {life.id: life.first_packet for life in done.lives}
    found: dict[int, set[int]] = {}
    for packet, flow, _ in done.drops:
        found.setdefault(first.get(flow, 0), set()).add(packet)
    return found


def of_calls(session: int, name: str = "facetime") -> list[tuple[int, tuple[int, ...]]]:
    return [(t.first_packet, t.frames) for t in case(session).expected.flows if t.call is not None]


def test_deny_facetime_cuts_the_calls_flows_and_nothing_else(tmp_path: Path) -> None:
    done, _, _ = replay(tmp_path, settings(DENY, default="allow"))
    cut = drops(done)
    relay = next(t for t in case().expected.flows if t.frames[0] == 60)
    assert cut[60] == set(relay.frames), "from the packet that names it, which is its first"
    assert {rule for _, _, rule in done.drops} == {"no calls"}
    facetime = {t.first_packet for t in case().expected.flows if "facetime" in t.applications}
    assert set(cut) <= facetime
    assert done.pinholes == {}
    push = next(t for t in case().expected.flows if t.flow.dst.port == 5223 or t.flow.src.port == 5223)
    assert push.first_packet not in cut


def test_facetime_alone_with_implicit_use_lets_the_whole_call_through(tmp_path: Path) -> None:
    known = applications()
    policy = load_policy(ROOT / "rules/policy/facetime.toml", known)
    inside = tuple(network for zone in policy.zones.values() for network in zone.networks)
    done, _, _ = replay(tmp_path, Settings(known, Judge(policy, known), inside))
    cut = drops(done)
    for first, frames in of_calls(1):
        assert cut.get(first, set()) & set(frames) == set()
    push = next(t for t in case().expected.flows if t.flow.dst.port == 5223 or t.flow.src.port == 5223)
    assert push.first_packet not in cut
    assert len(done.pinholes) >= 1
    assert {call.end for call in done.calls.values()} == {"bye"}


def test_monitor_mode_lets_all_pass_and_tells_what_would_have_been(tmp_path: Path) -> None:
    known = settings(DENY, default="allow", monitor=True)
    done, queued, _ = replay(tmp_path, known)
    assert done.drops == []
    marks = known.marks
    commands = [command for _, _, each in queued for command in each]
    for answer in of(commands, SetVerdict):
        mark = marks.decode(answer.mark)
        assert answer.verdict == "repeat"
        assert mark.action == "allow" or mark.passing
    assert of(commands, SetMark) == [], "the packet passes, so it makes its own entry"
    told = [r.decision.action for r in bodies(commands, FlowReport) if r.decision is not None]
    assert "deny" in told


def test_monitor_mode_makes_no_entry_for_a_packet_that_passes() -> None:
    """It would make its own, and two entries of one flow clash."""
    play = Play(settings(default="deny", monitor=True))
    commands = play.queue(udp(End("172.16.42.9", 5000), End("192.0.2.53", 53), QUERY))
    assert play.settings.marks.decode(verdict(commands).mark).action == "allow"
    assert of(commands, SetMark) == []
    (report,) = bodies(commands, FlowReport)
    assert report.decision is not None
    assert (report.decision.action, report.decision.rule) == ("deny", "defaults")


# ---- deny ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["deny", "drop"])
def test_a_flow_refused_at_its_first_packet_gets_its_entry(action: str) -> None:
    """Its packet dies unconfirmed, so without an entry each further one would be queued (design, the kernel path)."""
    rule = PolicyRule("none", action, applications=frozenset({"dns"}), service="any")  # type: ignore[arg-type]
    play = Play(settings(rule, default="allow"))
    commands = play.queue(udp(End("172.16.42.9", 5000), End("192.0.2.53", 53), QUERY))
    (marked,) = of(commands, SetMark)
    key = FlowKey(UDP, packed("172.16.42.9"), 5000, packed("192.0.2.53"), 53)
    assert (marked.key, marked.create) == (key, True)
    assert play.settings.marks.decode(marked.mark).action == action
    assert marked.mark == verdict(commands).mark
    assert len(play.engine.flows) == 0


def test_a_peers_check_that_comes_first_is_refused_and_does_not_cut_the_clients_own() -> None:
    """Without a NAT: what is refused is not kept, and the client's own begins the flow inside (point 3)."""
    rule = PolicyRule("calls", "allow", ("inside",), ("outside",), applications=frozenset({"facetime"}))
    play, stage = Play(settings(rule)), Stage(random.Random(1))
    own, far = End("172.16.42.9", 16393), End("198.51.100.9", 16393)
    for _ in range(3):
        commands = play.queue(udp(far, own, facetime2023.check(stage.rng, stage.transaction())))
        assert play.settings.marks.decode(verdict(commands).mark).action == "deny"
        assert of(commands, SetMark) == []
    commands = play.queue(udp(own, far, facetime2023.check(stage.rng, stage.transaction())))
    assert play.settings.marks.decode(verdict(commands).mark).action == "allow"


def test_a_stranger_who_asks_for_what_is_no_call_is_refused_for_good() -> None:
    play = Play(settings(PolicyRule("calls", "allow", applications=frozenset({"facetime"}))))
    commands = play.queue(udp(End("198.51.100.9", 5000), End("172.16.42.9", 53), QUERY))
    assert [mark.create for mark in of(commands, SetMark)] == [True]


def test_a_flow_refused_later_has_its_entry_already() -> None:
    play = Play(settings(PolicyRule("web", "allow", applications=frozenset({"web-browsing"})), default="deny"))
    client, server = End("172.16.42.9", 5000), End("192.0.2.80", 80)
    play.queue(tcp(client, server, 1, SYN))
    play.queue(tcp(server, client, 1, SYN | ACK))
    commands = play.queue(tcp(client, server, 2, ACK, b"SSH-2.0-OpenSSH_9.2\r\n"))
    for number in range(20):
        if of(commands, SetMark) or play.settings.marks.decode(verdict(commands).mark).action == "deny":
            break
        commands = play.queue(tcp(client, server, 23 + number * 4, ACK, b"\0\1\2\3"))
    assert play.settings.marks.decode(verdict(commands).mark).action == "deny"
    assert of(commands, SetMark) == []


# ---- several first packets in the queue, new lives of a 5-tuple ------------------------------------------------------


def test_packets_queued_together_get_the_same_decision() -> None:
    play = Play(settings(DENY, default="allow"))
    call = play.call()
    first = verdict(call.invite())
    again = verdict(call.invite())
    assert play.settings.marks.decode(first.mark).action == "deny"
    assert again.mark == first.mark
    assert bodies(play.commands, FlowReport)[-1].packet == 1, "told once"
    play.now += STAMP_SECONDS + 1
    assert verdict(call.invite()).mark == first.mark
    assert bodies(play.commands, FlowReport)[-1].packet == 3, "later it is judged anew"


def test_a_syn_on_a_used_5_tuple_begins_a_new_flow() -> None:
    play = Play()
    client, server = End("172.16.42.9", 5000), End("192.0.2.80", 80)
    play.queue(tcp(client, server, 1, SYN))
    play.queue(tcp(client, server, 2, ACK, b"\0\1\2\3"))
    play.queue(tcp(client, server, 900, SYN))
    (record,) = play.engine.flows.values()
    assert (record.first_packet, record.payload_packets) == (3, 0)


def test_segments_out_of_order_are_read_in_order() -> None:
    play = Play()
    client, server = End("172.16.42.9", 5000), End("192.0.2.80", 80)
    request = b"GET /connectivity.txt HTTP/1.1\r\nHost: static.ess.apple.com:80\r\n\r\n"
    play.queue(tcp(client, server, 100, SYN))
    play.queue(tcp(client, server, 101 + 20, ACK, request[20:]))
    commands = play.queue(tcp(client, server, 101, ACK, request[:20]))
    assert [r.identification.application for r in bodies(commands, FlowReport)] == ["facetime"]


# ---- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "sent", "state"),
    [
        ("tcp", [], "incomplete"),
        ("tcp", [b"\0\1\2\3"], "insufficient-data"),
        ("udp", [b"\0\1\2\3"], "insufficient-data"),
    ],
)
def test_what_ends_without_a_name(flow: str, sent: list[bytes], state: str) -> None:
    play = Play()
    client, server = End("172.16.42.9", 5000), End("192.0.2.80", 8080)
    if flow == "tcp":
        play.queue(tcp(client, server, 1, SYN))
    for payload in sent:
        play.queue(tcp(client, server, 2, ACK, payload) if flow == "tcp" else udp(client, server, payload))
    key = FlowKey(TCP if flow == "tcp" else UDP, packed(server.host), server.port, packed(client.host), client.port)
    commands = play.engine.handle(FlowEnded(key, 0, (1, 0), (40, 0)), 1.0)
    (report,) = bodies(commands, FlowReport)
    assert report.identification.application == state
    assert len(play.engine.flows) == 0
    assert play.engine.handle(FlowEnded(key, 0, (1, 0), (40, 0)), 1.0) == []


@pytest.mark.parametrize(("proto", "state"), [("udp", "unknown-udp"), ("tcp", "unknown-tcp")])
def test_a_name_is_given_up_after_ten_payload_packets(proto: str, state: str) -> None:
    play = Play()
    client, server = End("172.16.42.9", 5000), End("192.0.2.80", 8080)
    if proto == "tcp":
        play.queue(tcp(client, server, 0, SYN))
    for number in range(12):
        if proto == "udp":
            play.queue(udp(client, server, b"\0\1\2\3"))
        else:
            play.queue(tcp(client, server, 1 + 4 * number, ACK, b"\0\1\2\3"))
    decided = [r for r in bodies(play.commands, FlowReport) if r.decision is not None]
    assert decided[0].identification.application == state
    handshake = 1 if proto == "tcp" else 0
    assert decided[0].packet == handshake + 11, "the eleventh with payload; handshakes do not count"


# ---- rules loaded anew -----------------------------------------------------------------------------------------------


def test_new_rules_judge_a_watched_flow_at_its_next_packet() -> None:
    play = Play()
    call = play.call()
    call.invite()
    play.engine.handle(RulesLoaded(settings(DENY, default="allow")), 1.0)
    commands = call.back(call.dialog.response(180, "Ringing"))
    marks = play.settings.marks
    assert marks.decode(verdict(commands).mark).action in ("deny", "allow")


def test_rules_that_no_longer_know_a_name_harm_nothing() -> None:
    play = Play()
    call = play.call()
    call.connect()
    fewer = {name: a for name, a in applications().items() if name != "facetime"}
    play.engine.handle(RulesLoaded(Settings(fewer)), 1.0)
    play.now = 2.0
    assert verdict(call.bye()).packet == play.number
    for now in (110.0, 250.0, 20000.0):
        play.engine.handle(Tick(play.number), now)


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_a_flood_of_flows_keeps_the_tables_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "MAX_STAMPS", 40)
    play = Play(replace(ALL, limits=Limits(flows=50)))
    for number in range(1000):
        host = End(f"172.16.{number >> 8}.{number & 255}", 2000 + number)
        play.queue(udp(host, End("192.0.2.1", 7777), b"\0\1\2\3"))
        play.queue(udp(host, End("192.0.2.53", 53), QUERY))
        play.queue(tcp(host, End("192.0.2.2", 80), number, SYN))
        assert len(play.engine.flows) <= 50
        assert len(play.engine.stamps) <= 40
    assert play.engine.stamps, "decided flows leave their decision for a while"
    play.engine.handle(Tick(0), 1000.0)
    assert not play.engine.stamps


# ---- hostile packets -------------------------------------------------------------------------------------------------


def answered(engine: Engine, data: bytes, now: float, number: int) -> None:
    commands = engine.handle(PacketQueued(number, memoryview(data)), now)
    (given,) = of(commands, SetVerdict)
    assert given.packet == number
    marks = engine.settings.marks
    mark = marks.decode(given.mark)
    assert mark.action is not None or mark.passing, "a repeated packet without either would be queued for ever"


IP = st.builds(
    lambda first, rest: bytes([first]) + rest, st.sampled_from([0x45, 0x60, 0x46, 0x4F, 0]), st.binary(max_size=120)
)
KNOWN = [ALL, settings(PolicyRule("f", "allow", applications=frozenset({"facetime"}), implicit=True))]


@examples(max_examples=80, deadline=None)
@given(st.lists(st.binary(max_size=80) | IP, min_size=1, max_size=8), st.sampled_from(KNOWN))
def test_any_bytes_get_exactly_one_verdict(arrived: list[bytes], known: Settings) -> None:
    engine = Engine(known)
    for number, data in enumerate(arrived, 1):
        answered(engine, data, float(number), number)


@examples(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(0, 330), st.integers(0, 400), st.integers(0, 255), st.sampled_from(["", "cut", "grow"])),
        min_size=1, max_size=25,
    ),
    st.sampled_from(KNOWN),
)  # fmt: skip
def test_damaged_packets_of_a_call_get_exactly_one_verdict(
    damage: list[tuple[int, int, int, str]], known: Settings
) -> None:
    """Packets of session 1 with one byte changed, cut short or grown, in any order."""
    engine = Engine(known)
    for number, (index, at, byte, how) in enumerate(damage, 1):
        _, data = packets()[index]
        at %= len(data)
        damaged = bytearray(data)
        damaged[at] = byte
        sent = bytes(damaged[:at]) if how == "cut" else bytes(damaged) + data if how == "grow" else bytes(damaged)
        answered(engine, sent, number * 7.0, number)
        engine.handle(Tick(number), number * 7.0)
