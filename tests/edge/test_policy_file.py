"""Policy files: what they say, and every fault named at once."""

from __future__ import annotations

import pickle
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from appid.edge.errors import RuleErrors
from appid.edge.policy_file import load_policy
from appid.edge.rule_files import load_applications, shipped_rules
from appid.flow.key import FlowKey
from appid.identify.application import ALG, PortRange
from appid.policy.evaluate import Judge, Situation
from appid.policy.lint import lint
from appid.policy.rule import PacketMark, Policy, Qos
from appid.wire import TCP, UDP, packed

SHIPPED = load_applications()
RELAY = packed("17.173.254.35")
# The example of docs/reference/policy.md.
REFERENCE = """
[zones]
inside  = { interfaces = ["lan0"], networks = ["172.16.42.0/24", "fd00:42::/64"] }
outside = { interfaces = ["wan0"] }

[defaults]
action = "deny"              # for what no rule matches
undecided_packets = 10

[[rule]]
name = "facetime for everyone inside"
from = ["inside"]
to = ["outside"]
applications = ["facetime"]
service = "application-default"
action = "allow"
implicit = true
alg = true
"""


def load(folder: Path, text: str) -> Policy:
    path = folder / "policy.toml"
    path.write_text(text)
    return load_policy(path, SHIPPED)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(RuleErrors) as caught:
        load(folder, text)
    return [str(error).removeprefix(f"{folder}/") for error in caught.value.errors]


def test_the_reference_policy(tmp_path: Path) -> None:
    policy = load(tmp_path, REFERENCE)
    (rule,) = policy.rules
    assert (rule.name, rule.from_, rule.to, rule.action) == (
        "facetime for everyone inside", ("inside",), ("outside",), "allow",
    )  # fmt: skip
    assert (rule.applications, rule.service) == (frozenset({"facetime"}), "application-default")
    assert (rule.implicit, rule.alg, rule.schedule) == (True, ALG, None)
    assert (policy.default_action, policy.undecided_packets) == ("deny", 10)
    assert Judge(policy, SHIPPED).zone_of(packed("172.16.42.187")) == "inside"
    assert Judge(policy, SHIPPED).zone_of(packed("fd00:42::1")) == "inside"
    assert Judge(policy, SHIPPED).zone_of(packed("17.173.254.35")) == "outside"


def test_groups_filters_services_schedules(tmp_path: Path) -> None:
    policy = load(
        tmp_path,
        """
        [zones]
        inside = { networks = ["10.0.0.0/8"] }
        [defaults]
        action = "drop"
        timezone = "Europe/Berlin"
        [groups.addresses]
        servers = ["10.9.0.1", "fd00:9::/64"]
        [groups.applications]
        base = ["dns", "more"]
        more = ["unknown-udp", "base"]
        [groups.filters]
        calls = { category = ["voip-video"], characteristic = ["peer-to-peer"] }
        [[rule]]
        name = "one"
        from = "any"
        source = ["servers", "192.0.2.0/24"]
        applications = ["base", "calls"]
        service = ["tcp/443", "udp/1-9"]
        schedule = { days = ["sat", "sun"], from = "08:30", to = "24:00" }
        action = "deny"
        [[rule]]
        name = "two"
        action = "allow"
        [[rule]]
        name = "three"
        applications = "any"
        action = "deny"
        """,
    )
    one, two, three = policy.rules
    assert one.applications == frozenset({"dns", "unknown-udp", "facetime", "ichat-av"})
    assert one.source == ((packed("10.9.0.1"), 32), (packed("fd00:9::"), 64), (packed("192.0.2.0"), 24))
    assert one.service == (PortRange(TCP, 443, 443), PortRange(UDP, 1, 9))
    assert one.schedule is not None
    assert (one.schedule.days, one.schedule.start, one.schedule.end) == (frozenset({5, 6}), 510, 1440)
    assert one.schedule.timezone == ZoneInfo("Europe/Berlin")
    assert (two.applications, two.from_, two.service) == (None, (), "application-default")
    assert (three.applications, three.service) == (None, "any")  # refusing is not tied to ports unless it says so


def test_every_fault_at_once_with_file_table_key_and_reason(tmp_path: Path) -> None:
    assert faults(
        tmp_path,
        """
        colour = 1
        [zones]
        inside = { interfaces = [1], net = [] }
        [defaults]
        action = "permit"
        [groups.applications]
        base = ["nought"]
        facetime = ["sip"]
        [[rule]]
        name = "a"
        from = ["insde", "inside"]
        applications = ["facetme", "base"]
        service = ["udp/9-3"]
        [[rule]]
        name = "a"
        action = "deny"
        implicit = true
        applications = ["sip"]
        source = ["10.0.0.1/8"]
        schedule = { from = "25:00" }
        """.replace("colour = 1\n", ""),
    ) == [
        "policy.toml: zones.inside: interfaces[1]: should be a valid string",
        "policy.toml: zones.inside: net: no such key",
        "policy.toml: defaults: action: should be 'allow', 'deny' or 'drop'",
        "policy.toml: groups.applications: facetime: is the name of an application",
        "policy.toml: groups.applications: base: no application, group or filter 'nought'",
        "policy.toml: rule[1]: action: is missing",
        "policy.toml: rule[1]: service: 'udp/9-3' is no port range: ports run from the lower to the higher, "
        "at most 65535",
        "policy.toml: rule[1]: from: no zone 'insde'",
        "policy.toml: rule[1]: applications: no application, group or filter 'facetme'",
        "policy.toml: rule[2].schedule: from: '25:00' is no time of day; write 08:00",
        'policy.toml: rule[2]: implicit: goes with action = "allow" and named applications only',
        "policy.toml: rule[2]: source: '10.0.0.1/8' has host bits that are not zero; write 10.0.0.0/8 for the network",
        "policy.toml: rule[2]: name: 'a' is rule[1]'s name already",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[[rule]\n", "policy.toml: not TOML: "),
        ("colour = 1\n", "policy.toml: colour: no such key"),
        ("rule = 3\n", "policy.toml: rule: should be tables: [[rule]]"),
        ("[rule]\nname = 'x'\n", "policy.toml: rule: should be tables: [[rule]]"),
        ("rule = [3]\n", "policy.toml: rule[1]: should be a table"),
        ("zones = { Lan = {} }\n", "policy.toml: zones"),
        ("[defaults]\ntimezone = 'Mars/Phobos'\n", "policy.toml: defaults: timezone: 'Mars/Phobos' is no time zone"),
        (
            "[defaults]\nundecided_packets = '10'\n",
            "policy.toml: defaults: undecided_packets: should be a valid int",
        ),
    ],
)
def test_faults(tmp_path: Path, text: str, fault: str) -> None:
    (told,) = faults(tmp_path, text)
    assert told.startswith(fault)


SOUND = """
[zones]
inside = { networks = ["10.0.0.0/8"] }
outside = {}
[groups.addresses]
servers = ["10.9.0.1"]
[groups.applications]
base = ["dns"]
[[rule]]
name = "a"
from = ["inside"]
source = ["servers"]
applications = ["base", "voice"]
action = "allow"
[groups.filters]
voice = { category = ["voip-video"] }
"""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('servers = ["10.9.0.1"]', 'servers = ["10.9.0.1", "10.9.0.2/8"]', "groups.addresses: servers[2]"),
        ('base = ["dns"]', "base = 3", "groups.applications: base"),
        ('base = ["dns"]', 'base = ["dns", 5]', "groups.applications: base[2]"),
        ('inside = { networks = ["10.0.0.0/8"] }', 'inside = { network = ["10.0.0.0/8"] }', "zones.inside: network"),
        ('inside = { networks = ["10.0.0.0/8"] }', "inside = 7", "zones.inside: should be a table"),
        ('[zones]\ninside = { networks = ["10.0.0.0/8"] }\noutside = {}', "zones = 3", "zones: should be a table"),
        (
            '[groups.addresses]\nservers = ["10.9.0.1"]',
            "[groups]\naddresses = 3",
            "groups: addresses: should be a table",
        ),
        ('category = ["voip-video"]', "risk = [9]", "groups.filters.voice: risk[1]"),
        ("[groups.filters]", "[groups.filter]", "groups: filter"),
        ('name = "a"', 'name = "a"\nimplicit = true\nlog = 1', "rule[1]: log"),
        ('applications = ["base", "voice"]', "applications = 5\nimplicit = true", "rule[1]: applications"),
    ],
)
def test_one_fault_hides_no_other_and_makes_none(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in SOUND
    text = "colour = 1\n" + SOUND.replace(old, new)
    more = '[[rule]]\nname = "b"\naction = "alow"\nto = ["outsde"]\n[[override]]\nports = ["5"]\nsource = ["sevrers"]\n'
    expected = [
        "colour: no such key",
        fault,
        "rule[2]: action: should be",
        *(["rule[2]: to: no zone 'outsde'"] if not fault.startswith("zones: ") else []),
        "override[1]: application: is missing",
        "override[1]: ports: '5' is no port range",
        *(
            ["override[1]: source: no address group 'sevrers', nor a network"]
            if "addresses: should" not in fault
            else []
        ),
    ]
    told = [line.removeprefix("policy.toml: ") for line in faults(tmp_path, text + more)]
    if fault == "groups: filter":  # what would have been there is told of too: there is no such filter
        expected.append("rule[1]: applications: no application, group or filter 'voice'")
    assert len(told) == len(expected)
    for wanted in expected:
        assert any(line.startswith(wanted) for line in told), (wanted, told)


def test_every_fault_of_a_filter_and_of_a_list_of_ports_is_told(tmp_path: Path) -> None:
    told = "\n".join(
        faults(
            tmp_path,
            '[groups.filters]\nx = { category = ["game"], risk = [9] }\n'
            '[[rule]]\nname = "a"\naction = "allow"\nservice = ["tcp/70000", "udp/1", "sctp/3"]\n',
        )
    )
    for fault in ("groups.filters.x: category: ", "groups.filters.x: risk[1]: ", "'tcp/70000' is no", "'sctp/3' is no"):
        assert fault in told


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[[rule]]\nname = "defaults"\naction = "allow"', "rule[1]: name: 'defaults' is how"),
        ('[[rule]]\nname = "implicit: x"\naction = "allow"', "rule[1]: name: 'implicit: x' is how"),
        ('[[rule]]\nname = "a\\nb"\naction = "allow"', "rule[1]: name: 'a\\nb' is no name"),
        ('[[rule]]\nname = "a"\naction = "allow"\nfrom = []', "rule[1]: from: is empty"),
        ('[[rule]]\nname = "a"\naction = "allow"\nschedule = { from = "08:00", to = "08:00" }', "rule[1].schedule: to"),
        ('[[rule]]\nname = "a"\naction = "allow"\nschedule = { from = "24:00", to = "00:00" }', "rule[1].schedule: to"),
        ("[zones]\nany = {}", "zones: any: 'any' is everything"),
        ('[zones]\na = { interfaces = ["lan0"] }\nb = { interfaces = ["lan0"] }', "zones.b: interfaces: lan0 is in"),
        (
            '[zones]\na = { networks = ["10.0.0.0/8"] }\nb = { networks = ["10.0.0.0/8"] }',
            "zones.b: networks: 10.0.0.0/8",
        ),
        (
            '[zones]\na = { interfaces = ["lan0 -j ACCEPT"] }',
            "zones.a: interfaces[1]: 'lan0 -j ACCEPT' is no interface",
        ),
        ('[groups.filters]\nx = { category = ["game"] }', "groups.filters.x: category: no application has 'game'"),
        ('[groups.filters]\nx = { characteristic = ["cal"] }', "groups.filters.x: characteristic: no application has"),
        (
            '[groups.filters]\nx = { risk = [1] }\n[groups.applications]\nx = ["dns"]',
            "groups.filters: x: is the name of a group",
        ),
        ("[groups.addresses]\nnobody = []", "groups.addresses: nobody: is empty"),
        ("[groups.filters]\nx = { risk = [] }", "groups.filters.x: risk: is empty"),
        ('[[rule]]\nname = "a"\naction = "allow"\nschedule = "x"', "rule[1]: schedule: should be a table"),
        ('[[override]]\napplication = "sip"\nports = "any"', "override[1]: needs a source"),
        ('[[override]]\napplication = "sip"\nports = "application-default"', "override[1]: ports: "),
    ],
)
def test_what_could_be_misread_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    (told,) = faults(tmp_path, text)
    assert told.removeprefix("policy.toml: ").startswith(fault)


def test_every_value_of_dscp_and_mark_beyond_what_the_connmark_holds_is_a_fault(tmp_path: Path) -> None:
    rules = "".join(f'[[rule]]\nname = "r{i}"\naction = "allow"\ndscp = {i % 20}\n' for i in range(40))
    path = tmp_path / "policy.toml"
    path.write_text(rules)
    assert len(load_policy(path, SHIPPED).qos) == 20
    with pytest.raises(RuleErrors) as caught:
        load_policy(path, SHIPPED, 15)
    assert [(fault.table, fault.key) for fault in caught.value.errors] == [
        (f"rule[{i}]", "dscp") for i in range(16, 21)
    ]


def test_groups_in_a_long_chain_and_in_a_ring(tmp_path: Path) -> None:
    chain = "".join(f'g{i} = ["g{(i + 1) % 500}"]\n' for i in range(500))
    policy = load(
        tmp_path,
        f'[groups.applications]\n{chain}last = ["g7", "sip"]\n'.replace('g499 = ["g0"]', 'g499 = ["g0", "dns"]')
        + '[[rule]]\nname = "a"\napplications = ["last"]\naction = "allow"\n',
    )
    assert policy.rules[0].applications == frozenset({"dns", "sip"})


def test_what_was_loaded_can_be_handed_to_another_process(tmp_path: Path) -> None:
    policy = load(tmp_path, REFERENCE + 'schedule = { from = "08:00", to = "12:00" }\n')
    judge = pickle.loads(pickle.dumps(Judge(policy, SHIPPED)))
    key = FlowKey(UDP, packed("172.16.42.187"), 16402, RELAY, 3478)
    for hour in range(24):
        at = Situation(key, "inside", "outside", now=hour * 3600.0)
        assert judge.first_match(at, "facetime") == Judge(policy, SHIPPED).first_match(at, "facetime")


@pytest.mark.parametrize("value", ['"maybe"', '["translation", "sip"]', "1", "[[]]"])
def test_a_faulty_alg_is_one_plain_line(tmp_path: Path, value: str) -> None:
    with pytest.raises(RuleErrors) as caught:
        load(tmp_path, f'[[rule]]\nname = "a"\naction = "deny"\nalg = {value}\n')
    (fault,) = caught.value.errors
    assert (fault.table, fault.key) == ("rule[1]", "alg")
    assert fault.reason == "should be true, false or a list of 'expectations', 'translation', 'channel-bind'"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuleErrors, match="no such file"):
        load_policy(tmp_path / "none.toml", SHIPPED)


@pytest.mark.parametrize("path", sorted((shipped_rules() / "policy").glob("*.toml")), ids=lambda path: path.stem)
def test_the_worked_examples_load_without_a_warning(path: Path) -> None:
    assert lint(load_policy(path, SHIPPED), SHIPPED) == []


# --- what else a rule can say -----------------------------------------------------------------------------------------

EXTRAS = """
[zones]
inside = { networks = ["172.16.42.0/24"], undecided_packets = 0 }
outside = {}
[defaults]
undecided_packets = 5
capture_unknown = false
[groups.addresses]
phones = ["198.51.100.7", "fd00:42::7"]
[[override]]
application = "sip"
destination = "phones"
ports = ["udp/5060-5061", "tcp/5060"]
[[override]]
application = "jabber"
source = ["172.16.42.9"]
[[rule]]
name = "voice"
applications = ["sip"]
action = "allow"
dscp = "ef"
mark = "0x10/0xf0"
[[rule]]
name = "same"
applications = ["rtp"]
action = "allow"
dscp = 46
mark = "16/0xf0"
capture_unknown = false
[[rule]]
name = "bulk"
action = "allow"
dscp = "cs1"
"""


def test_dscp_mark_overrides_and_budgets(tmp_path: Path) -> None:
    policy = load(tmp_path, EXTRAS)
    assert policy.qos == (Qos(46, PacketMark(0x10, 0xF0)), Qos(8))
    assert [rule.qos and policy.qos.index(rule.qos) for rule in policy.rules] == [0, 0, 1]
    assert (policy.budget("inside"), policy.budget("outside"), policy.budget(None)) == (0, 5, 5)
    assert [rule.capture_unknown for rule in policy.rules] == [True, False, True]
    assert policy.capture_unknown is False
    overridden = Judge(policy, SHIPPED).overridden
    here, phone, elsewhere = packed("172.16.42.9"), packed("198.51.100.7"), packed("198.51.100.8")
    assert overridden(FlowKey(UDP, here, 1, phone, 5061)) == "sip"
    assert overridden(FlowKey(TCP, packed("172.16.42.8"), 1, phone, 5061)) is None
    assert overridden(FlowKey(UDP, packed("fd00:42::1"), 1, packed("fd00:42::7"), 5060)) == "sip"
    assert overridden(FlowKey(TCP, here, 1, elsewhere, 99)) == "jabber"


def test_faults_of_what_else_a_rule_can_say(tmp_path: Path) -> None:
    text = """
[[override]]
application = "spi"
ports = ["5060"]
[[override]]
application = "sipp"
ports = ["udp/5060"]
[[override]]
application = "sip"
[[rule]]
name = "x"
action = "allow"
dscp = "gold"
mark = "0x1f/0xf0"
[[rule]]
name = "y"
action = "allow"
dscp = 64
"""
    told = faults(tmp_path, text)
    assert [line.split(": ")[:3] for line in told] == [
        ["policy.toml", "rule[1]", "dscp"],
        ["policy.toml", "rule[1]", "mark"],
        ["policy.toml", "rule[2]", "dscp"],
        ["policy.toml", "override[1]", "ports"],
        ["policy.toml", "override[1]", "application"],
        ["policy.toml", "override[2]", "application"],
        ["policy.toml", "override[3]", "needs a source, a destination or ports"],
    ]


def test_filters_by_category_risk_and_characteristic(tmp_path: Path) -> None:
    text = """
[groups.filters]
voice = { characteristic = ["call"] }
risky = { risk = [4, 5] }
chat-or-web = { category = ["networking", "voip-video"], risk = [1, 2, 3, 4, 5] }
[[rule]]
name = "a"
applications = ["voice"]
action = "allow"
[[rule]]
name = "b"
applications = ["risky", "dns"]
action = "allow"
"""
    first, second = load(tmp_path, text).rules
    assert first.applications == frozenset(name for name, each in SHIPPED.items() if "call" in each.characteristics)
    assert "facetime" in first.applications
    assert second.applications == frozenset(name for name, each in SHIPPED.items() if each.risk >= 4) | {"dns"}
