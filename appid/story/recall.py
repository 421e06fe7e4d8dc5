"""What a running gateway remembers -> Story. Of calls that ran under this process it has the messages (retell.py); of
others, and of flows of no call, the reasons of names, where calls began and ended, where pinholes opened and closed.
Numbers are the gateway's own count of packets.

In: the answers `flows`, `calls`, `pinholes`, `tale` of its control socket. Out: tales, told as a capture's are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from appid.story.lanes import Cast
from appid.story.retell import retold
from appid.story.step import Effect, Fold, Step, Story, Tale
from appid.story.words import recounted, say
from appid.wire import Endpoint, Fact, Layer, packed

Line = dict[str, Any]
ANSWERS = frozenset({"success", "error"})
"""stun.class of what goes against the request's way."""


def recall(
    flows: list[Line],
    calls: list[Line],
    pinholes: list[Line],
    inside: Callable[[bytes], bool],
    call: int | None = None,
    flow: int | None = None,
    messages: Mapping[int, list[Line]] | None = None,
) -> Story:
    """All calls, or the one call, or the one flow, and the flows of no call (where neither was asked for). `messages`:
    of calls, as far as the gateway has them."""
    story, known = Story({}, [], [], {}, pinholes=pinholes), messages or {}
    if flow is not None:
        for each in (each for each in flows if each["id"] == flow):
            lines = known.get(each["call"], [])
            story.tales.append(
                retold(each, lines, [each], [], inside, flow) if lines else _tale(each, [each], [], inside)
            )
    else:
        for told in calls:
            if call in (None, told["id"]):
                mine = [each for each in flows if each["call"] == told["id"]]
                holes = [hole for hole in pinholes if hole["call"] == told["id"]]
                lines = known.get(told["id"], [])
                tale = retold(told, lines, mine, holes, inside) if lines else _tale(told, mine, holes, inside)
                story.tales.append(tale)
        if call is None:
            story.others = [each for each in flows if each["call"] is None]
    for tale in story.tales:
        times = {
            n: round(s * 1e9) for line in (tale.told, *tale.flows, *tale.pinholes) for n, s in line.get("times", ())
        }
        tale.items = [_timed(item, times) for item in tale.items]
        tale.unseen = sum(max(flow["packets"] - flow["userspace_packets"], 0) for flow in tale.flows)
    story.spans = spans(story)
    return story


def _timed(item: Step | Fold, times: Mapping[int, int]) -> Step | Fold:
    return (
        replace(item, time=times[item.frame])
        if isinstance(item, Step) and not item.time and item.frame in times
        else item
    )


def spans(story: Story) -> dict[int, tuple[int, int]]:
    """From when to when a flow was seen: its messages, and, where the kernel forwarded more, as long as it lived."""
    found: dict[int, tuple[int, int]] = {}
    for tale in story.tales:
        for item in tale.items:
            for one, first, last in _moments(item):
                if one and first:
                    begin, until = found.get(one, (first, last))
                    found[one] = min(begin, first), max(until, last)
    for flow in (*(flow for tale in story.tales for flow in tale.flows), *story.others):
        named = story.time_of(flow, flow["identified_at"])
        known = found.get(flow["id"]) or ((named, named) if named is not None else None)
        unseen = flow["packets"] > flow["userspace_packets"]  # else it only waited for its end
        if known is not None:
            lived = round((flow.get("seconds") or 0) * 1e9) if unseen else 0
            found[flow["id"]] = known[0], max(known[1], known[0] + lived)
    return found


def _moments(item: Step | Fold) -> Iterator[tuple[int, int, int]]:
    if isinstance(item, Step):
        yield item.flow, item.time, item.time
    else:
        yield from ((line.flow, line.first_time, line.last_time) for line in item.lines.values())


def _tale(told: Line, flows: list[Line], pinholes: list[Line], inside: Callable[[bytes], bool]) -> Tale:
    cast = Cast(inside)
    steps: dict[tuple[int, int], Step] = {}
    for flow in flows:
        for step in _steps(flow):
            steps[step.frame, step.flow] = step
            cast.add(step.src, step.dst)
            if "TURN" in step.what:
                cast.relays[Endpoint(packed(flow["dst"]), flow["dport"])] = None
            elif step.kind == "http":
                cast.web[Endpoint(packed(flow["dst"]), flow["dport"])] = None
        if not flow["because"]:
            cast.add(_end(flow, "src", "sport"), _end(flow, "dst", "dport"))
    for frame, effect in (*_of_call(told), *_of_pinholes(pinholes)):
        key = next((key for key in steps if key[0] == frame), (frame, 0))
        step = steps.get(key) or Step(frame, 0, 0, None, None, None, "", "a message that is not remembered")
        steps[key] = replace(step, effects=(*step.effects, effect))
    caller = told.get("caller")
    parties, lanes = cast.parties(packed(caller) if caller else None)
    return Tale(told, parties, sorted(steps.values(), key=lambda step: step.frame), flows=flows, pinholes=pinholes,
                lanes=lanes)  # fmt: skip


def _end(flow: Line, address: str, port: str) -> Endpoint:
    return Endpoint(packed(flow[address]), flow[port])


def _steps(flow: Line) -> Iterator[Step]:
    """A step for each packet that counted. The last one's name is the flow's."""
    there, back = _end(flow, "src", "sport"), _end(flow, "dst", "dport")
    shifts: dict[int, list[str]] = {}
    for packet, name in flow["shifts"]:
        shifts.setdefault(packet, []).append(name)
    packets = dict.fromkeys(reason["packet"] for reason in flow["because"])
    for packet in packets:
        reasons = [reason for reason in flow["because"] if reason["packet"] == packet]
        layers = list(_layers(reasons))
        said = say(layers)
        what = said.what if layers else reasons[0]["signature"]
        answers = any(
            fact.value in ANSWERS if fact.name == "stun.class" else fact.name in ("sip.status", "http.status")
            for layer in layers
            for fact in layer.facts
        )
        names = shifts.get(packet) or flow["path"][: 1 if packet != flow["identified_at"] else None]
        last = names[-1] if names else flow["application"]
        sure = f", {flow['confidence']}" if packet == flow["identified_at"] else ""
        made = flow["decision"] if packet == flow["identified_at"] else None
        effects = [Effect("named", f"{last}{sure}", tuple((r["signature"], recounted(r["facts"])) for r in reasons))]
        effects += [Effect("decided", f"{made['action']} by {made['rule']}")] if made else []
        src, dst = (back, there) if answers else (there, back)
        yield Step(packet, 0, flow["id"], src, dst, None, said.kind, what, said.details, tuple(effects))


def _layers(reasons: Iterable[Line]) -> Iterator[Layer]:
    """The facts that counted, by protocol, in the order of their decoders' nesting."""
    found: dict[str, list[Fact]] = {}
    for reason in reasons:
        for name, value in reason["facts"].items():
            protocol = name.partition(".")[0]
            for one in value if isinstance(value, list) else [value]:
                fact = Fact(name, tuple(one) if isinstance(one, list) else one)
                if fact not in found.setdefault(protocol, []):
                    found[protocol].append(fact)
    for protocol in (
        "turn",
        "stun",
        "sip",
        "sdp",
        "tls",
        "http",
        "dns",
        "quic",
        "dtls",
        "snatmap",
        "xmpp",
        "rtp",
        "rtcp",
    ):
        if protocol in found:
            yield Layer(protocol, tuple(found[protocol]), 0)


def _of_call(told: Line) -> Iterator[tuple[int, Effect]]:
    if told["type"] != "call":
        return
    number = told["id"]
    yield told["started_at"], Effect("call", f"call {number} of {told['application']} begins")
    if told["answered_at"] is not None:
        yield told["answered_at"], Effect("call", f"call {number} answered")
    if told["ended_at"] is not None:
        yield told["ended_at"], Effect("call", f"call {number} ends: {told['end']}")


def _of_pinholes(pinholes: Iterable[Line]) -> Iterator[tuple[int, Effect]]:
    for hole in pinholes:
        place = f"{hole['inside']} port {hole['port']} from {hole['peer']} ({hole['reason']})"
        yield hole["opened_at"], Effect("pinhole", f"pinhole {hole['id']} opened: {place}")
        if hole["closed_at"] is not None:
            yield hole["closed_at"], Effect("pinhole", f"pinhole {hole['id']} closed: {place}")
