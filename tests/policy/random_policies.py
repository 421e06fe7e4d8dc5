"""Random small policies and flows for property tests; the values are few, so that rules meet."""

from __future__ import annotations

from hypothesis import strategies as st

from appid.flow.key import FlowKey
from appid.identify.application import Application, Implicit, PortRange
from appid.policy import Action
from appid.policy.evaluate import Situation
from appid.policy.rule import Policy, PolicyRule, Schedule, Service, Zone
from appid.wire import ICMP, TCP, UDP, packed

NAMES = ("a", "b", "c", "d", "unknown-udp")
SMALL = {
    "a": Application("a", "", "x", 1, 1, default_ports=(PortRange(UDP, 10, 20), PortRange(TCP, 5, 5)),
                     inbound="foreseen", implicit=(Implicit("b", (PortRange(UDP, 30, 31),)), Implicit("c", (), True))),
    "b": Application("b", "", "x", 1, 2, default_ports=(PortRange(UDP, 15, 40),)),
    "c": Application("c", "", "x", 1, 3),
    "d": Application("d", "", "x", 1, 4, default_ports=(PortRange(TCP, 1, 65535),)),
}  # fmt: skip
PORTS = st.sampled_from([0, 4, 5, 10, 14, 15, 20, 21, 30, 31, 32, 40, 41, 65535])
V4 = st.sampled_from([packed(a) for a in ("10.0.0.1", "10.0.0.2", "10.0.1.1", "10.128.0.1", "192.0.2.1")])
V6 = st.sampled_from([packed(a) for a in ("fd00::1", "fd00::2:1", "2001:db8::1")])
NETWORKS = st.sampled_from(
    [(packed(a), n) for a, n in [("10.0.0.0", 8), ("10.0.0.0", 24), ("10.0.0.1", 32), ("0.0.0.0", 0),
                                 ("10.128.0.0", 9), ("fd00::", 64), ("::", 0), ("fd00::2:0", 112)]]
)  # fmt: skip
SCHEDULES = st.sampled_from([None, None, None, Schedule(frozenset({0}), 60, 120), Schedule(start=1320, end=60)])
RANGES = st.builds(
    lambda proto, ends: PortRange(proto, min(ends), max(ends)), st.sampled_from([UDP, TCP]), st.tuples(PORTS, PORTS)
)
NAMED_SERVICES: list[Service] = ["any", "application-default"]
EXPLICIT: st.SearchStrategy[Service] = st.lists(RANGES, min_size=1, max_size=3).map(tuple)
SERVICES = st.sampled_from(NAMED_SERVICES) | EXPLICIT
ZONE = st.sampled_from(["in", "out", "dmz"])


@st.composite
def policies(
    draw: st.DrawFn, most: int = 8, services: st.SearchStrategy[Service] = SERVICES, implicit: bool = True
) -> Policy:
    rules = []
    for i in range(draw(st.integers(0, most))):
        action: Action = draw(st.sampled_from(("allow", "deny", "drop")))
        names = draw(st.none() | st.frozensets(st.sampled_from(NAMES), min_size=0, max_size=3))
        rules.append(
            PolicyRule(
                f"r{i}",
                action,
                from_=tuple(draw(st.lists(ZONE, max_size=2, unique=True))),
                to=tuple(draw(st.lists(ZONE, max_size=2, unique=True))),
                source=tuple(draw(st.lists(NETWORKS, max_size=2, unique=True))),
                destination=tuple(draw(st.lists(NETWORKS, max_size=2, unique=True))),
                applications=names,
                service=draw(services),
                schedule=draw(SCHEDULES),
                implicit=implicit and action == "allow" and names is not None and draw(st.booleans()),
            )
        )
    zones = {name: Zone(name, (name,)) for name in ("in", "out", "dmz")}
    return Policy(tuple(rules), zones, draw(st.sampled_from(("allow", "deny", "drop"))), undecided_packets=3)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    address = draw(st.sampled_from([V4, V6]))
    key = FlowKey(draw(st.sampled_from([UDP, TCP, ICMP])), draw(address), 1, draw(address), draw(PORTS))
    return Situation(
        key, draw(ZONE | st.none()), draw(ZONE | st.none()), draw(st.booleans()), draw(st.booleans()),
        now=draw(st.integers(0, 7 * 24 * 60).map(lambda minute: minute * 60.0)),
    )  # fmt: skip
