"""Steps from one state of a kernel to another. That a real kernel ends where they lead is tested in tests/netns."""

from __future__ import annotations

from dataclasses import replace

from appid.dataplane.chain import Topology
from appid.dataplane.converge import Step, leftovers, nft_lines, program, steps, taken_along
from appid.dataplane.ruleset import (
    NOTHING,
    At,
    Held,
    NftChain,
    NftTable,
    Place,
    RuleSets,
    SetText,
    clear_table,
    remembering,
    wanted,
)

INSIDE = Topology(inside=("10.0.0.0/8", "fd00::/8"), queues=(0, 1))
ONE, OLD = wanted(Topology(), "nft"), wanted(Topology(), "legacy")
RESTORE = "iptables-legacy-restore --noflush --wait 5"
MAIN = "-m mark ! --mark 0x4/0xf -j APPID"


def programs(todo: list[Step]) -> list[str]:
    return [str(step) for step in todo]


def with_table(now: RuleSets, place: Place, held: Held) -> RuleSets:
    return replace(now, tables={**now.tables, place: held})


def test_rules_of_others_that_lead_to_us_are_told_from_our_jumps() -> None:
    """Ours stand in built-in chains and ask for marks alone; before version 0.2, for connmarks too."""
    place = Place("legacy", 6, "filter")
    mine = (At("FORWARD", 1, MAIN), At("FORWARD", 3, "-j APPID-ALLOWED"),
            At("INPUT", 1, "-m mark --mark 0x0/0xb -m connmark ! --mark 0x1/0x7 -j APPID"))  # fmt: skip
    foreign = (At("DOCKER-USER", 1, "-j APPID"), At("FORWARD", 2, "-m comment --comment hello -j APPID"))
    now = with_table(ONE, place, Held(jumps=(*mine, *foreign)))
    there = "ip6tables-legacy -t filter -A"
    assert taken_along(now, NOTHING) == [f"{there} {each.hook} {each.rule}" for each in foreign]
    assert taken_along(now, now) == [], "an undo brings them back"
    assert taken_along(ONE, NOTHING) == []


def test_nothing_to_do_is_no_step() -> None:
    assert steps(ONE, ONE) == []
    assert steps(NOTHING, NOTHING) == []


def test_from_nothing_sets_come_before_the_rules_that_name_them() -> None:
    """And for iptables-nft one transaction, the last step, puts all in force."""
    assert programs(steps(NOTHING, remembering(ONE, NOTHING))) == [
        "ipset -exist restore", "nft -f -", "iptables-nft-restore --noflush", "ip6tables-nft-restore --noflush",
        "nft -f -",
    ]  # fmt: skip
    memory = steps(NOTHING, remembering(ONE, NOTHING))[1].text
    assert {line.split()[4][:5] for line in memory.splitlines()[1:]} == {"made-"}, "nothing but memories so far"
    assert programs(steps(NOTHING, OLD)) == ["ipset -exist restore", "nft -f -", RESTORE, f"ip6{RESTORE[2:]}"]


def test_to_nothing_rules_go_before_the_sets_that_they_name() -> None:
    assert programs(steps(ONE, NOTHING)) == ["nft -f -"]
    assert programs(leftovers(ONE, NOTHING)) == [f"ipset destroy {name}" for name in ONE.sets]
    last = steps(ONE, NOTHING)[-1].text.splitlines()
    assert {"delete table inet appid-clear", "delete table inet appid-nat", "delete chain ip6 mangle APPID"} <= set(
        last
    )
    assert programs(steps(OLD, NOTHING)) == [RESTORE, f"ip6{RESTORE[2:]}", "nft -f -", RESTORE, f"ip6{RESTORE[2:]}"]


def test_from_one_variant_to_the_other_there_is_no_moment_without_rules() -> None:
    there = [program.split()[0] for program in programs(steps(OLD, ONE))]
    assert there.index("iptables-legacy-restore") > len(there) - 1 - there[::-1].index("nft")
    back = programs(steps(ONE, OLD))
    assert back.index(RESTORE) < len(back) - 1 - back[::-1].index("nft -f -")


def test_only_what_differs_is_touched() -> None:
    place = Place("legacy", 4, "mangle")
    held = OLD.held(place)
    other = with_table(OLD, place, replace(held, chains={**held.chains, "APPID-QUEUE": ("-j NFQUEUE --queue-num 9",)}))
    (step,) = steps(other, OLD)
    assert str(step) == RESTORE
    assert step.text.splitlines() == [
        "*mangle", ":APPID-QUEUE - [0:0]", "-A APPID-QUEUE -j NFQUEUE --queue-num 0 --queue-bypass", "COMMIT",
    ]  # fmt: skip


def test_jumps_go_where_they_belong_and_never_beyond_the_end() -> None:
    place, host = Place("legacy", 4, "filter"), wanted(Topology(allowed="host"), "legacy")
    held = host.held(place)
    (put,) = (jump for jump in held.jumps if jump.hook == "INPUT")
    jumps = (At("FORWARD", 3, MAIN), At("FORWARD", 4, MAIN), put)
    slipped = replace(held, jumps=jumps, others={"FORWARD": 2})
    (step,) = steps(with_table(host, place, slipped), host)
    assert [line for line in step.text.splitlines() if "FORWARD" in line] == [
        f"-D FORWARD {MAIN}", f"-D FORWARD {MAIN}", f"-I FORWARD 1 {MAIN}",
    ]  # fmt: skip
    fewer = replace(held, others={"FORWARD": 1})
    (back,) = steps(with_table(host, place, fewer), with_table(host, place, slipped))
    assert [line for line in back.text.splitlines() if "-I FORWARD" in line] == [
        f"-I FORWARD 2 {MAIN}", f"-I FORWARD 3 {MAIN}",
    ]  # fmt: skip


def test_elements_change_at_once_and_live_ones_stay() -> None:
    there, target = wanted(replace(INSIDE, inside=("10.0.0.0/8",)), "nft"), wanted(INSIDE, "nft")
    live = SetText(there.sets["appid-pinholes6"].create + " initval 0x1", ("fd00::2,udp:1,2001:db8::1 timeout 9",))
    now = replace(there, sets={**there.sets, "appid-pinholes6": live})
    todo = steps(now, target)
    assert programs(todo + leftovers(now, target)) == ["ipset -exist restore", "ipset destroy appid-inside6-next"]
    assert todo[0].text.splitlines() == [
        "create appid-inside6-next hash:net family inet6 maxelem 65536", "flush appid-inside6-next",
        "add appid-inside6-next fd00::/8", "swap appid-inside6-next appid-inside6",
    ]  # fmt: skip
    old = SetText("hash:ip,port,ip family inet6 maxelem 9", live.members)
    lines = steps(replace(target, sets={**target.sets, "appid-pinholes6": old}), target)[0].text
    assert f"add appid-pinholes6-next {live.members[0]}" in lines, "another make of the set, the same elements"


def test_what_an_earlier_run_left_goes() -> None:
    left = replace(ONE, sets={**ONE.sets, "appid-inside4-next": SetText("hash:net family inet")})
    assert programs(leftovers(left, ONE)) == ["ipset destroy appid-inside4-next"]


def test_the_clearing_table_follows_the_masks_without_a_gap() -> None:
    old = replace(ONE, nft={**ONE.nft, "appid-clear": NftTable(chains={"early": NftChain("", ("meta mark set 0x0",))})})
    (step,) = steps(old, ONE)
    assert step.command == ("nft", "-f", "-"), "flush and rule in one transaction"
    assert [line.split()[0] for line in step.text.splitlines()] == ["flush", "add", "add"]
    made = nft_lines("appid-clear", clear_table(Topology().marks))
    assert (
        made[1] == "add chain inet appid-clear early { type filter hook forward priority mangle - 1; policy accept; }"
    )


def test_programs_are_called_by_variant_and_family() -> None:
    assert program(6, "legacy", "save") == "ip6tables-legacy-save"
