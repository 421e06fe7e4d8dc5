"""Steps from one state of a kernel to another. That a real kernel ends where they lead is tested in tests/netns."""

from __future__ import annotations

from dataclasses import replace

from appid.dataplane.chain import Topology
from appid.dataplane.converge import Step, nft_lines, program, steps
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
ONE = wanted(Topology(), "nft")
MANGLE = Place("nft", 4, "mangle")
MAIN = "-m mark ! --mark 0x4/0xf -j APPID"
BASE = "type filter hook forward priority mangle; policy accept;"


def programs(todo: list[Step]) -> list[str]:
    return [str(step) for step in todo]


def with_table(now: RuleSets, place: Place, held: Held) -> RuleSets:
    return replace(now, tables={**now.tables, place: held})


def test_nothing_to_do_is_no_step() -> None:
    assert steps(ONE, ONE) == []
    assert steps(NOTHING, NOTHING) == []


def test_from_nothing_sets_come_before_the_rules_that_name_them() -> None:
    assert programs(steps(NOTHING, ONE)) == [
        "ipset -exist restore", "nft -f -", "iptables-nft-restore --noflush", "ip6tables-nft-restore --noflush",
    ]  # fmt: skip
    assert programs(steps(NOTHING, wanted(Topology(), "legacy")))[2] == "iptables-legacy-restore --noflush --wait"


def test_to_nothing_rules_go_before_the_sets_that_they_name() -> None:
    todo = programs(steps(ONE, NOTHING))
    assert todo[:2] == ["iptables-nft-restore --noflush", "ip6tables-nft-restore --noflush"]
    assert todo[2:-1] == [f"ipset destroy {name}" for name in ONE.sets]
    assert todo[-1] == "nft -f -"
    last = steps(ONE, NOTHING)[-1].text.splitlines()
    assert {"delete table inet appid-clear", "delete table inet appid-nat", "delete chain ip6 mangle APPID"} <= set(
        last
    )


def test_only_what_differs_is_touched() -> None:
    held = ONE.held(MANGLE)
    other = with_table(ONE, MANGLE, replace(held, chains={**held.chains, "APPID-QUEUE": ("-j NFQUEUE --queue-num 9",)}))
    (step,) = steps(other, ONE)
    assert step.command == ("iptables-nft-restore", "--noflush")
    assert step.text.splitlines() == [
        "*mangle", ":APPID-QUEUE - [0:0]", "-A APPID-QUEUE -j NFQUEUE --queue-num 0 --queue-bypass", "COMMIT",
    ]  # fmt: skip


def test_jumps_go_where_they_belong_and_never_beyond_the_end() -> None:
    place, host = Place("nft", 4, "filter"), wanted(Topology(allowed="host"), "nft")
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
    todo = steps(replace(there, sets={**there.sets, "appid-pinholes6": live}), target)
    assert programs(todo) == ["ipset -exist restore", "ipset destroy appid-inside6-next"]
    assert todo[0].text.splitlines() == [
        "create appid-inside6-next hash:net family inet6 maxelem 65536", "flush appid-inside6-next",
        "add appid-inside6-next fd00::/8", "swap appid-inside6-next appid-inside6",
    ]  # fmt: skip
    old = SetText("hash:ip,port,ip family inet6 maxelem 9", live.members)
    lines = steps(replace(target, sets={**target.sets, "appid-pinholes6": old}), target)[0].text
    assert f"add appid-pinholes6-next {live.members[0]}" in lines, "another make of the set, the same elements"


def test_what_an_earlier_run_left_goes() -> None:
    left = replace(ONE, sets={**ONE.sets, "appid-inside4-next": SetText("hash:net family inet")})
    assert programs(steps(left, ONE)) == ["ipset destroy appid-inside4-next"]


def test_the_clearing_table_follows_the_masks_without_a_gap() -> None:
    old = replace(ONE, nft={**ONE.nft, "appid-clear": NftTable(chains={"early": NftChain("", ("meta mark set 0x0",))})})
    (step,) = steps(old, ONE)
    assert step.command == ("nft", "-f", "-"), "flush and rule in one transaction"
    assert [line.split()[0] for line in step.text.splitlines()] == ["flush", "add", "add"]
    made = nft_lines("appid-clear", clear_table(Topology().marks))
    assert (
        made[1] == "add chain inet appid-clear early { type filter hook forward priority mangle - 1; policy accept; }"
    )


def test_built_in_chains_go_only_if_they_came_with_us_and_are_idle() -> None:
    made = remembering(ONE, NOTHING)

    def gone(**chains: NftChain) -> list[str]:
        present = replace(made, builtin={"ip mangle": {"APPID": NftChain(), "APPID-QUEUE": NftChain(), **chains}})
        lines = steps(present, NOTHING)[-1].text.splitlines()
        return [line for line in lines if line.startswith("delete") and "ip mangle" in line and "APPID" not in line]

    assert gone(FORWARD=NftChain(BASE, ("counter jump APPID",))) == [
        "delete chain ip mangle FORWARD", "delete table ip mangle"
    ]  # fmt: skip
    assert gone(FORWARD=NftChain(BASE, ("counter jump APPID", "counter jump DOCKER-USER"))) == []
    assert gone(FORWARD=NftChain(BASE.replace("accept", "drop"))) == []
    assert gone(FORWARD=NftChain(BASE), OUTPUT=NftChain(BASE)) == ["delete chain ip mangle FORWARD"]


def test_programs_are_called_by_variant_and_family() -> None:
    assert program(6, "legacy", "save") == "ip6tables-legacy-save"
