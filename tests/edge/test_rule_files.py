"""Application files: the shipped ones, the operator's over them, and every fault named."""

from __future__ import annotations

from pathlib import Path

import pytest

from appid.edge.errors import RuleErrors
from appid.edge.rule_files import OPERATORS_NUMBERS, load_applications, shipped_rules
from appid.identify.application import Condition, PortRange
from appid.wire import TCP, UDP, packed

MINIMAL = 'name = "{name}"\ndescription = "x"\ncategory = "x"\nrisk = 1\n'
# ../issues: the applications that must be there, one file each.
REQUIRED = {
    "facetime", "sip", "stun", "turn", "ssl", "dtls", "jabber", "apple-push", "ichat-av", "gamecenter", "snatmap",
    "rtp", "rtcp", "web-browsing", "quic", "dns", "icmp",
}  # fmt: skip


def write(folder: Path, name: str, more: str = "", body: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text((MINIMAL.format(name=name) if body is None else body) + more)
    return path


def faults(folder: Path, shipped: Path | None = None) -> list[str]:
    with pytest.raises(RuleErrors) as caught:
        load_applications(folder, shipped)
    return [str(error).replace(f"{folder}/", "") for error in caught.value.errors]


def test_the_shipped_applications_load_and_their_numbers_are_the_vendors() -> None:
    applications = load_applications()
    assert set(applications) >= REQUIRED
    assert len({one.number for one in applications.values()}) == len(applications)
    assert all(one.number not in OPERATORS_NUMBERS for one in applications.values())
    assert shipped_rules().name in ("rules", "shipped")


def test_every_signature_says_where_it_comes_from_and_when() -> None:
    for one in load_applications().values():
        for signature in (*one.signatures, *one.excluded_by):
            assert len(signature.source) > 5
            assert signature.era


def test_no_port_and_no_address_alone_names_anything() -> None:
    place = {"flow.destination", "flow.source", "flow.destination_port", "flow.source_port", "flow.proto"}
    for one in load_applications().values():
        for signature in one.signatures:
            facts = {c.fact for c in signature.conditions if c.operator != "lacks"}
            by_number = facts == {"flow.proto"} and not any(
                c.value in (TCP, UDP) for c in signature.conditions
            )  # a protocol number is an identity, unless it only says UDP
            assert facts - place or by_number or signature.strength == "supporting", (one.name, signature.name)


def test_facetime_as_the_vendor_and_the_report_have_it() -> None:
    facetime = load_applications()["facetime"]
    assert set(facetime.depends_on) >= {"sip", "stun", "ssl", "jabber", "ichat-av"}
    assert {(p.proto, p.first, p.last) for p in facetime.default_ports} == {
        (TCP, 80, 80), (TCP, 443, 443), (TCP, 4080, 4080), (TCP, 5223, 5223),
        (UDP, 3478, 3497), (UDP, 16384, 16387), (UDP, 16393, 16402),
    }  # fmt: skip
    assert facetime.media_ports == (PortRange(UDP, 16384, 16402),)
    assert facetime.inbound == "foreseen"


def test_the_operators_folder_adds_and_overrides_by_name(tmp_path: Path) -> None:
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    write(shipped, "one", "number = 7\n")
    write(shipped, "two", "number = 8\n")
    write(own, "one", 'characteristics = ["ours"]\n')
    write(own, "three")
    applications = load_applications(own, shipped)
    assert list(applications) == ["one", "three", "two"]
    assert applications["one"].characteristics == ("ours",)
    assert applications["one"].number == 7  # it stays what conntrack shows
    assert applications["three"].number in OPERATORS_NUMBERS
    assert load_applications(own, shipped)["three"].number == applications["three"].number
    assert list(load_applications(tmp_path / "none", shipped)) == ["one", "two"]


def test_values_of_conditions(tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    match = """number = 1
[[signature]]
name = "s"
strength = "strong"
era = "2015"
source = "here"
match = [
    { fact = "stun.username", prefix = { hex = "00ff" } },
    { fact = "stun.shape", is = [[0x8007, 4], [8, 20]] },
    { fact = "rtp.run", within = [3, 9] },
    { fact = "flow.destination", within = ["17.0.0.0/8", "2620:149::/32"] },
    { fact = "tls.sni", in = ["a", "b"] },
]
"""
    write(shipped, "one", match)
    four, six = load_applications(None, shipped)["one"].signatures
    assert four.conditions[0] == Condition("stun.username", "prefix", b"\x00\xff")
    assert four.conditions[1] == Condition("stun.shape", "is", ((0x8007, 4), (8, 20)))
    assert four.conditions[2] == Condition("rtp.run", "within", (3, 9))
    assert four.conditions[3] == Condition("flow.destination", "within", (packed("17.0.0.0"), 8))
    assert six.conditions[3] == Condition("flow.destination", "within", (packed("2620:149::"), 32))
    assert four.conditions[4] == Condition("tls.sni", "in", ("a", "b"))
    assert (four.name, four.scope) == ("s", "packet")


SIGNATURE = '[[signature]]\nname = "s"\nstrength = "strong"\nera = "x"\nsource = "xxxxxx"\nmatch = [{}]\n'


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("colour = 1\n", "one.toml: colour: no such key"),
        ('default_ports = ["udp/9-3"]\n', "one.toml: default_ports[1]: 'udp/9-3' is no port range"),
        ('inbound = "never"\n', "one.toml: inbound: should be 'any' or 'foreseen'"),
        ('may_become = ["nought"]\n', "one.toml: may_become: no application 'nought'"),
        ('[[implicit]]\napplication = "nought"\n', "one.toml: implicit[1]: application: no application 'nought'"),
        ('kept_alive_by = ["nought"]\n', "one.toml: kept_alive_by: no application 'nought'"),
        (SIGNATURE.format('{ fact = "a.b" }'), "one.toml: signature[1]: match[1]: needs exactly one of is, in"),
        (SIGNATURE.format('{ fact = "a.b", regex = "x" }'), "one.toml: signature[1]: match[1]: needs exactly one of"),
        (SIGNATURE.format('{ fact = "a.b", is = { hex = "0" } }'), "one.toml: signature[1]: match[1]: "),
        (SIGNATURE.format('{ fact = "a.b", within = "17.1.0.0/8" }'), "one.toml: signature[1]: match[1]: '17.1.0.0/8'"),
        (SIGNATURE.format('{ fact = "a.b", lacks = 1 }'), "one.toml: signature[1]: a signature needs at least one"),
        (SIGNATURE.format('{ fact = "Not a fact", is = 1 }'), "one.toml: signature[1].match[1]: fact: "),
        ("this is not TOML", "one.toml: not TOML: "),
    ],
)
def test_a_fault_is_told_by_file_table_key_and_reason(tmp_path: Path, more: str, fault: str) -> None:
    write(tmp_path / "own", "one", more)
    (told,) = faults(tmp_path / "own")
    assert told.startswith(fault)


def test_all_faults_of_all_files_at_once(tmp_path: Path) -> None:
    own = tmp_path / "own"
    write(own, "one", "risk = 9\n", body='name = "one"\ndescription = "x"\n')
    write(own, "two", body=MINIMAL.format(name="too"))
    write(own, "three", "number = 1\n")
    write(own, "unknown-udp")
    assert faults(own) == [
        "one.toml: category: is missing",
        "one.toml: risk: should be less than or equal to 5",
        "two.toml: name: is 'too'; the file's name says 'two'",
        "unknown-udp.toml: name: 'unknown-udp' is the name of a state",
        "three.toml: number: 1 is taken by 'facetime'; write another one",
    ]


def test_a_shipped_file_without_a_number_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "shipped", "one")
    with pytest.raises(RuleErrors, match="a shipped application needs a number"):
        load_applications(None, tmp_path / "shipped")


GENERATION = 'name = "{name}"\nextends = "game"\nera = "2030"\ndate = "2030-02-01"\n'
NAMED = """
[[signature]]
name = "{name}"
strength = "strong"
source = "frame 1"
match = [{{ fact = "stun.method", has = true }}]
"""


def test_a_generation_is_a_file_of_its_own(tmp_path: Path) -> None:
    """Its era, date and watch hold for its signatures, unless one of them says otherwise."""
    old = NAMED.format(name="old").replace("source", 'era = "2010"\nsource')
    write(tmp_path, "game", "watch = true\n" + old)
    more = "watch = false\n" + NAMED.format(name="new") + NAMED.format(name="odd")
    write(tmp_path, "game-2030", more + 'era = "2031"\nwatch = true\n', GENERATION.format(name="game-2030"))
    loaded = load_applications(tmp_path)
    assert "game-2030" not in loaded
    told = {s.name: (s.era, s.date, s.watch) for s in loaded["game"].signatures}
    assert told == {
        "old": ("2010", "", True), "new": ("2030", "2030-02-01", False), "odd": ("2031", "2030-02-01", True),
    }  # fmt: skip


def test_the_operator_replaces_or_switches_off_a_generation(tmp_path: Path) -> None:
    body = 'name = "facetime-2023"\nextends = "facetime"\nera = "2023"\n'
    write(tmp_path, "facetime-2023", body=body)
    eras = {s.era for s in load_applications(tmp_path)["facetime"].signatures}
    assert "2015" in eras
    assert "2023" not in eras
    assert "2023" in {s.era for s in load_applications()["facetime"].signatures}


def test_faults_of_a_generation(tmp_path: Path) -> None:
    write(tmp_path, "game-2030", body=GENERATION.format(name="game-2030"))
    assert faults(tmp_path) == ["game-2030.toml: extends: no application 'game'"]
    write(tmp_path, "game", NAMED.format(name="same").replace("source", 'era = "2010"\nsource'))
    write(tmp_path, "game-2030", NAMED.format(name="same"), GENERATION.format(name="game-2030"))
    assert faults(tmp_path) == ["game-2030.toml: same: name: 'game' has a signature of this name"]
    write(tmp_path, "game-2030", "risk = 3\n", GENERATION.format(name="game-2030"))
    assert faults(tmp_path) == ["game-2030.toml: risk: no such key"]


def test_nothing_of_2023s_facetime_speaks_for_watching() -> None:
    """design.md: watch only where signalling can be read, 2015's FaceTime and SIP, never 2023's."""
    facetime = load_applications()["facetime"]
    assert facetime.watch
    for signature in facetime.signatures:
        assert signature.watch == (signature.era == "2015"), signature.name
        assert signature.era != "2023" or signature.date
