"""The four runs of the demo, and what each must show.

In: Options, Checks. Out: settled checks; the run's files.
"""

from __future__ import annotations

import sys
from typing import Any

from tests.lab import compare
from tests.lab.call import Outcome
from tests.lab.checks import Checks
from tests.lab.gateway import all_but_facetime, forward_apple_ports, only_facetime
from tests.lab.others import TCP_COUNT, TURN_COUNT, UDP_COUNT, Others, try_others
from tests.lab.pcap import Datagram, datagrams, packets
from tests.lab.probes import PEER, PEER_MEDIA, STRANGER
from tests.lab.scenario import APPLE_PORTS
from tests.lab.snapshot import PROGRAMS, has_binding, pinholes, queued_packets, read, snapshot
from tests.lab.stage import Options, Stage, afterwards, stage, watched_call

UNDECIDED = 10
"""undecided_packets of the policies: what passes before a name must stand."""
NEEDED = ("sip", "stun", "ssl", "jabber", "ichat-av", "turn", "apple-push")
SHARE = 50
"""Less than one packet in so many may reach userspace."""


async def control(options: Options, checks: Checks) -> None:
    """No appid, Apple's ports forwarded: the probes do arrive, so their absence elsewhere means something."""
    async with stage(options, "control", None) as on:
        forward_apple_ports(on.lab)
        outcome = await watched_call(on, probing=True)
        await afterwards(on, probing=True)
    _completed(checks, outcome)
    everything = list(APPLE_PORTS)
    for name, who in _rounds():
        arrived = on.witness.ports(name, who)
        checks.check(f"probes of {who}, {name}: all reach the client", arrived == everything, f"{len(arrived)} ports")


async def run_one(options: Options, checks: Checks) -> None:
    """Deny all but facetime, implicit = true."""
    async with stage(options, "run1", only_facetime(options.scenario, implicit=True)) as on:
        others = await try_others(on.lab, on.world)
        outcome = await watched_call(on, probing=True)
        await afterwards(on, probing=True)
        checked = await _check_capture(on)
        assert on.gateway is not None
        status = await on.gateway.stop()
        await snapshot(on.lab, on.directory, "stopped")
    _completed(checks, outcome)
    _direct_path(checks, on)
    _refused(checks, others)
    _probed(checks, on)
    _kernel(checks, on, checked)
    live = compare.of_events(on.gateway.events)
    compared, wrong = compare.differences(live, checked, compare.Frames(on.gateway.queued, on.lan))
    checks.check("live and `appid check` say the same at the same packets", not wrong and compared > 0,
                 "; ".join(wrong) or f"{compared} flows and pinholes")  # fmt: skip
    _left(checks, on, status)


async def run_two(options: Options, checks: Checks) -> None:
    """Deny facetime, allow the rest."""
    async with stage(options, "run2", all_but_facetime(options.scenario)) as on:
        outcome = await watched_call(on, probing=False)
        others = await try_others(on.lab, on.world)
        await afterwards(on, probing=False)
        await _check_capture(on)
    checks.check("the call fails", outcome.failure is not None, outcome.failure)
    s = options.scenario
    relayed = [d for d in datagrams(on.wan) if d.between(s.public, s.relay) or d.between(s.public, s.peer_public)]
    media = sum(d.what == "rtp" for d in relayed)
    checks.check("no media leaves the house", media == 0, f"{media} RTP packets")
    checks.check("a push connection works", others.push)
    checks.check("web works", others.web_status == 200, others.web_status)
    checks.check("coturn with credentials relays", others.turn_echoed == TURN_COUNT,
                 f"{others.turn_echoed} of {TURN_COUNT} came back")  # fmt: skip
    checks.check("random UDP works", others.udp_back == UDP_COUNT, f"{others.udp_back} of {UDP_COUNT} came back")
    checks.check("plain TCP works", others.tcp_arrived == TCP_COUNT, f"{others.tcp_arrived} of {TCP_COUNT} lines")


async def run_three(options: Options, checks: Checks) -> None:
    """As run one, without implicit: the alert names what is missing, and the call fails for want of it."""
    async with stage(options, "run3", only_facetime(options.scenario, implicit=False)) as on:
        assert on.gateway is not None
        alert = [line for line in on.gateway.text().splitlines() if "facetime" in line]
        outcome = await watched_call(on, probing=False)
        await afterwards(on, probing=False)
        await _check_capture(on)
    text = " ".join(alert)
    missing = [name for name in NEEDED if name not in text]
    checks.check(
        "the admin is alerted to what facetime needs", not missing, f"not named: {missing}" if missing else text
    )
    failed_at = outcome.failure.step if outcome.failure is not None else None
    checks.check("the call fails at the push connection", failed_at == "push", outcome.failure)


# -- what the runs share


def _rounds() -> list[tuple[str, str]]:
    return [
        *(("before", who) for who in (STRANGER, PEER, PEER_MEDIA)),
        ("relayed", STRANGER),
        *(("direct", who) for who in (STRANGER, PEER, PEER_MEDIA)),
        *(("after", who) for who in (STRANGER, PEER, PEER_MEDIA)),
    ]


async def _check_capture(on: Stage) -> tuple[dict[compare.Flow, compare.Told], list[compare.Told]]:
    """`appid check` of the client-side capture so far; its JSON is kept."""
    arguments = ("--policy", str(on.directory / "policy.toml"), "--json", str(on.lan))
    _, output = await on.lab.ask("gw", sys.executable, "-m", "appid.cli.main", "check", *arguments)
    (on.directory / "check.jsonl").write_text(output)
    return compare.of_check(output)


def _completed(checks: Checks, outcome: Outcome) -> None:
    journal = outcome.journal
    checks.check("the call completes", outcome.failure is None and outcome.direct, outcome.failure or "to its end")
    wrong = journal.out_of_order()
    checks.check("session 1 in its order", not wrong, f"missing or out of order: {wrong}" if wrong else "26 steps")
    checks.check("connectivity.txt says what it said", outcome.web_answer.endswith(b"\r\n\r\nAV was here!\n"))
    for name, ledger, lost in (
        ("outward", outcome.outward, outcome.lost_outward),
        ("inward", outcome.inward, outcome.lost_inward),
    ):
        relayed, direct = ledger.by_path("relayed"), ledger.by_path("direct")
        numbers = f"{len(ledger.sent)} sent, {relayed} relayed and {direct} direct arrived, {len(lost)} lost"
        checks.check(f"no media lost {name}", not lost and direct > 0, numbers)


def _direct_path(checks: Checks, on: Stage) -> None:
    s = on.options.scenario
    direct = [d for d in datagrams(on.lan) if d.between(s.client, s.peer_public)]
    first = direct[0] if direct else None
    begun = first is not None and first.src == s.peer_public and first.what == "stun"
    numbers = f"frame {first.frame}: {first.src}:{first.sport} > {first.dst}:{first.dport}" if first else "none"
    checks.check("the peer's direct check comes before the client sent anything there", begun, numbers)
    bound = has_binding(on.directory, "relayed", s.peer_public, s.client)
    checks.check("a NAT binding of the call was in the kernel before", bound)
    opened = pinholes(on.directory, "relayed", s.client, s.peer_public)
    checks.check("and the pinhole", bool(opened), "; ".join(opened))
    left = pinholes(on.directory, "after", s.client, s.peer_public)
    gone = not left and not has_binding(on.directory, "after", s.peer_public, s.client)
    checks.check("both are gone after the call", gone, "; ".join(left))


def _refused(checks: Checks, others: Others) -> None:
    checks.check("coturn with credentials relays no media", others.turn_echoed == others.turn_arrived == 0,
                 f"{others.turn_arrived} arrived, {others.turn_echoed} came back")  # fmt: skip
    passed = others.udp_arrived + others.udp_back
    checks.check("random UDP on 16402 is cut after the provisional packets", passed <= UNDECIDED,
                 f"{others.udp_arrived} of {UDP_COUNT} arrived, {others.udp_back} came back")  # fmt: skip
    checks.check("unrelated TCP is cut", 2 * others.tcp_arrived <= UNDECIDED, f"{others.tcp_arrived} lines arrived")
    checks.check("another web page is cut", others.web_status == 0, f"status {others.web_status}")
    checks.check("the push connection stands (implicit)", others.push)


def _probed(checks: Checks, on: Stage) -> None:
    """Only the call's tuple, only during the call."""
    port = on.options.scenario.media_port
    for name, who in _rounds():
        arrived = on.witness.ports(name, who)
        if (name, who) == ("direct", PEER_MEDIA):
            checks.check(f"probes of {who}, {name}: only the call's tuple", arrived == [port], arrived)
        elif (name, who) == ("direct", PEER):
            checks.check(f"probes of {who}, {name}: no port but the call's", set(arrived) <= {port}, arrived)
        else:
            checks.check(f"probes of {who}, {name}: none reach the client", not arrived, arrived)


def _kernel(checks: Checks, on: Stage, checked: tuple[dict[compare.Flow, Any], list[Any]]) -> None:
    """Who saw how much: the first packet names the relay flow, and media never leaves the kernel."""
    s = on.options.scenario
    assert on.gateway is not None
    relay = ("udp", s.client, s.media_port, s.relay, s.relay_port)
    named = next((n for n, application in checked[0].get(relay, {}).get("shifts", []) if application == "facetime"), 0)
    allocate = next((d for d in datagrams(on.lan) if d.dst == s.relay and d.payload[:2] == b"\0\3"), None)
    checks.check("the Allocate request names the relay flow", allocate is not None and named == allocate.frame,
                 f"facetime at frame {named}, Allocate is {allocate.frame if allocate else None}")  # fmt: skip
    call = [d for d in datagrams(on.lan) if _of_call(on, d)]
    queued = [d for d in datagrams(on.gateway.queued) if _of_call(on, d)]
    counted = queued_packets(on.directory, "after") - queued_packets(on.directory, "before")
    numbers = f"{counted} of {len(call)} packets, 1 in {len(call) // max(counted, 1)}; the record has {len(queued)}"
    enough = on.options.seconds >= 15  # below that the signalling, which is always the same, weighs too much
    checks.check("userspace saw few packets of the call", 0 < counted * SHARE < len(call) or not enough, numbers)
    recorded = sum(1 for _ in packets(on.gateway.queued))
    total = queued_packets(on.directory, "after")
    checks.check("the record holds what the NFQUEUE rules counted", recorded == total > 0, f"{recorded}, {total}")
    media = [d.frame for d in queued if d.what == "rtp"]
    checks.check("no RTP packet was seen by userspace", not media, f"{len(media)}")


def _of_call(on: Stage, datagram: Datagram) -> bool:
    s = on.options.scenario
    return any(datagram.between(s.client, other) for other in (s.relay, s.peer_public, s.peer))


def _left(checks: Checks, on: Stage, status: int | None) -> None:
    checks.check("the gateway ends when told to", status == 0, f"exit status {status}")
    texts = {program: read(on.directory, "stopped", program).lower() for program in PROGRAMS if program != "conntrack"}
    left = [program for program, text in texts.items() if "appid" in text]
    checks.check("and takes its rules, sets and maps along", not left, ", ".join(left))
