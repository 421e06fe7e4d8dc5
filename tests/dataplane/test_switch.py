"""iptables-nft's chains, exchanged in one transaction. That a kernel takes it, and that no packet meets anything in
between, is tested in tests/netns."""

from __future__ import annotations

from dataclasses import replace

from appid.dataplane.chain import Topology
from appid.dataplane.ruleset import NOTHING, At, NftChain, Place, RuleSets, remembering, wanted
from appid.dataplane.switch import same, slipped, staged, stale, switched, unspoken

ONE = wanted(Topology(allowed="host"), "nft")
PLACE = Place("nft", 4, "mangle")
MAIN = "-m mark ! --mark 0x4/0xf -j APPID"
SPOKEN = "meta mark & 0x0000000f != 0x00000004 counter jump APPID"
BASE = "type filter hook forward priority mangle; policy accept;"


def there(**chains: tuple[str, ...]) -> RuleSets:
    """IPv4's mangle with other rules in these chains of ours, and a jump between two rules of others."""
    held = ONE.held(PLACE)
    chain = NftChain(BASE, ("counter accept", SPOKEN, "counter drop"), (11, 12, 13))
    mine = {f"APPID{name}": rules for name, rules in chains.items()}
    put = replace(held, chains={**held.chains, **mine}, jumps=(At("FORWARD", 2, MAIN),), others={"FORWARD": 2})
    return replace(ONE, tables={**ONE.tables, PLACE: put}, builtin={"ip mangle": {"FORWARD": chain}})


def mangle(lines: list[str]) -> list[str]:
    return [line.replace(" ip mangle", "") for line in lines if " ip mangle" in line]


def test_what_is_right_stays_and_only_the_jump_moves() -> None:
    now = there()
    assert list(staged(now, ONE, 4)) == []
    assert mangle([*switched(now, ONE)]) == ["delete rule FORWARD handle 12", f"insert rule FORWARD handle 11 {SPOKEN}"]


def test_what_leads_to_a_chain_that_changes_is_staged_with_it() -> None:
    """A jump points to a chain, not to a name."""
    now = there(**{"-QUEUE": ("-j NFQUEUE --queue-num 9",)})
    lines = [*staged(now, ONE, 4)]
    assert lines[:3] == ["*mangle", ":APPID-NEXT - [0:0]", ":APPID-QUEUE-NEXT - [0:0]"]
    assert "-A APPID-NEXT -j APPID-QUEUE-NEXT" in lines
    assert [line for line in lines if "-A APPID-QUEUE" in line] == [
        "-A APPID-QUEUE-NEXT -j NFQUEUE --queue-num 0 --queue-bypass"
    ]
    assert "-j APPID-QUEUE" not in {line[-14:] for line in lines}
    assert mangle([*switched(now, ONE)]) == [
        "delete rule FORWARD handle 12", f"insert rule FORWARD handle 11 {SPOKEN}-NEXT",
        "flush chain APPID", "flush chain APPID-QUEUE", "delete chain APPID", "delete chain APPID-QUEUE",
        "rename chain APPID-NEXT APPID", "rename chain APPID-QUEUE-NEXT APPID-QUEUE",
    ]  # fmt: skip


def test_jumps_take_their_places_among_the_rules_of_others() -> None:
    back = there()
    held = back.held(PLACE)
    for position, put in (
        (1, "insert rule FORWARD handle 11"),
        (2, "insert rule FORWARD handle 13"),
        (3, "add rule FORWARD"),
    ):
        target = replace(back, tables={PLACE: replace(held, jumps=(At("FORWARD", position, MAIN),))})
        now = replace(back, tables={PLACE: replace(held, jumps=())})
        assert mangle([*switched(now, target)])[-1] == f"{put} {SPOKEN}"


def test_rules_whose_words_read_like_jumps_to_us_stay() -> None:
    """A jump to us with a comment is one."""
    now = there()
    rules = (
        "counter accept", SPOKEN, 'counter drop comment "jump APPID-x"', 'log prefix "goto APPID"',
        'counter jump APPID comment "hello"', 'drop comment "x" jump APPID"', 'drop comment "goto APPID\\"',
    )  # fmt: skip
    chain = NftChain(BASE, rules, tuple(range(11, 18)))
    lines = mangle([*switched(replace(now, builtin={"ip mangle": {"FORWARD": chain}}), ONE)])
    assert [line for line in lines if line.startswith("delete rule")] == [
        "delete rule FORWARD handle 12", "delete rule FORWARD handle 15"
    ]  # fmt: skip


def test_what_was_staged_and_never_used_goes() -> None:
    now = there(**{"-NEXT": ("-j RETURN",)})
    assert stale(now, ONE, PLACE) == ["APPID-NEXT"]
    assert mangle([*switched(now, ONE)])[-2:] == ["flush chain APPID-NEXT", "delete chain APPID-NEXT"]
    again = there(**{"": (), "-NEXT": ("-j RETURN",)})
    assert mangle([*switched(again, ONE)])[-3:] == [
        "flush chain APPID", "delete chain APPID", "rename chain APPID-NEXT APPID"
    ]  # fmt: skip


def test_base_chains_come_with_the_first_jump_and_keep_their_policy() -> None:
    lines = [*switched(NOTHING, ONE)]
    assert lines[:2] == [
        "add table ip mangle",
        "add chain ip mangle FORWARD { type filter hook forward priority mangle; }",
    ]
    assert not any("policy" in line for line in lines)


def test_a_jump_that_nft_has_no_words_for_comes_by_iptables() -> None:
    """As before version 0.2, when jumps asked for connmarks."""
    jump = At("FORWARD", 2, "-m mark --mark 0x0/0xb -m connmark ! --mark 0x1/0x7 -j APPID")
    now = there()
    before = replace(now, tables={PLACE: replace(now.held(PLACE), jumps=(jump,))})
    assert mangle([*switched(now, before)]) == ["delete rule FORWARD handle 12"]
    assert list(unspoken(now, before, 4)) == ["*mangle", f"-I FORWARD 2 {jump.rule}", "COMMIT"]
    assert list(unspoken(before, before, 4)) == []


def test_spelling_is_no_difference() -> None:
    assert same(("-p udp -m udp --dport 0x01",), ('-p udp  --dport "0x1"',))
    assert not same(None, ())
    held = ONE.held(PLACE)
    assert not slipped(held, replace(held, jumps=(At("FORWARD", 1, MAIN.replace("0x4", "0x00000004")),)))


def test_built_in_chains_go_only_if_they_came_with_us_and_are_idle() -> None:
    made = remembering(ONE, NOTHING)

    def gone(**chains: NftChain) -> list[str]:
        present = replace(made, builtin={"ip mangle": {"APPID": NftChain(), "APPID-QUEUE": NftChain(), **chains}})
        lines = switched(present, NOTHING)
        return [
            line
            for line in lines
            if line.startswith(("delete chain", "delete table")) and "ip mangle" in line and "APPID" not in line
        ]

    assert gone(FORWARD=NftChain(BASE, ("counter jump APPID",), (7,))) == [
        "delete chain ip mangle FORWARD", "delete table ip mangle"
    ]  # fmt: skip
    assert gone(FORWARD=NftChain(BASE, ("counter jump APPID", "counter jump DOCKER-USER"), (7, 8))) == []
    assert gone(FORWARD=NftChain(BASE.replace("accept", "drop"))) == []
    assert gone(FORWARD=NftChain(BASE), OUTPUT=NftChain(BASE)) == ["delete chain ip mangle FORWARD"]
