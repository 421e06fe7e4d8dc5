"""What rules of others use. The rules are written as iptables-save 1.8.9 and nft 1.0.6 print them."""

from __future__ import annotations

from typing import Any

import pytest

from appid.dataplane.foreign import ALL, Use, collides, free_mask, nft_uses, stopping, uses
from appid.dataplane.marks import Marks

OURS = Marks().mask


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("-A PREROUTING -j MARK --set-xmark 0x1/0xffffffff", [Use("writes", ALL)]),
        ("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000", [Use("writes", 0x4000)]),
        ("-A PREROUTING -j MARK --set-xmark 0x30/0x0", [Use("writes", 0x30)]),
        ("-A PREROUTING -j CONNMARK --set-xmark 0x4/0xc", [Use("writes", 0xC)]),
        ("-A A -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xf0", [Use("writes", 0xF0)]),
        ("-A A -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xf0", [Use("writes", 0xFF)]),
        ("-A A -p tcp -j TPROXY --on-port 8080 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1", [Use("writes", 1)]),
        ("-A A -j HMARK --hmark-rnd 0x00000003 --hmark-mod 4 --hmark-offset 100", [Use("writes", ALL)]),
        ("-A FORWARD -m mark --mark 0x5 -j DROP", [Use("reads", ALL)]),
        ("-A FORWARD -m connmark ! --mark 0x10/0xf0 -j DROP", [Use("reads", 0xF0)]),
        ("-A IPS -j NFQUEUE --queue-num 3 --queue-bypass", [Use("queue", first=3, last=3)]),
        ("-A IPS -j NFQUEUE --queue-balance 0:3", [Use("queue", first=0, last=3)]),
        ("-A PREROUTING -p udp -m udp --dport 5060 -j CT --helper sip", [Use("helper")]),
        ("-A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp", []),
        ("-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", []),
        ('-A FORWARD -m comment --comment "was: -j NFQUEUE --queue-num 0" -j DROP', []),
        ('-A FORWARD -m comment --comment "a \\" -j NFQUEUE --queue-num 0" -j DROP', []),
        ("-A FORWARD -m comment --comment --map-mark -j DROP", []),
        ('-A FORWARD -j LOG --log-prefix "--set-xmark 0x1/0x1"', []),
        ('-A FORWARD -m comment --comment "ips" -j NFQUEUE --queue-num 3', [Use("queue", first=3, last=3)]),
        ("-A FORWARD -m comment --comment ips -m mark --mark 0x5 -j DROP", [Use("reads", ALL)]),
        ("-A FORWARD -j HMARKED", []),
    ],
)
def test_an_iptables_rule(rule: str, expected: list[Use]) -> None:
    assert list(uses(rule)) == expected


MARK, CONNMARK = {"meta": {"key": "mark"}}, {"ct": {"key": "mark"}}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ({"mangle": {"key": MARK, "value": 16}}, Use("writes", ALL)),
        ({"mangle": {"key": MARK, "value": {"|": [{"&": [MARK, 0xFFFFFF00]}, 0x12]}}}, Use("writes", 0xFF)),
        ({"mangle": {"key": MARK, "value": {"|": [MARK, 0x4000]}}}, Use("writes", 0x4000)),
        ({"mangle": {"key": MARK, "value": CONNMARK}}, Use("writes", ALL)),
        ({"mangle": {"key": CONNMARK, "value": {"&": [MARK, 0xFF]}}}, Use("writes", ALL)),
        ({"match": {"op": "==", "left": MARK, "right": 16}}, Use("reads", ALL)),
        ({"match": {"op": "==", "left": {"&": [MARK, 0xFF]}, "right": 4}}, Use("reads", 0xFF)),
        ({"vmap": {"key": CONNMARK, "data": {"set": [[1, {"accept": None}]]}}}, Use("reads", ALL)),
        ({"queue": {"num": {"range": [2, 5]}, "flags": ["bypass"]}}, Use("queue", first=2, last=5)),
        ({"queue": {"num": 7}}, Use("queue", first=7, last=7)),
        ({"queue": {"num": {"jhash": {"mod": 4, "offset": 30}}}}, Use("queue", first=0, last=0xFFFF)),
        ({"ct helper": "mine"}, Use("helper")),
        (
            {"ct helper": {"map": {"key": {"payload": {"protocol": "udp", "field": "dport"}}, "data": "@h"}}},
            Use("helper"),
        ),
        ({"xt": {"type": "target", "name": "CONNMARK"}}, Use("writes", ALL)),
        ({"xt": {"type": "match", "name": "mark"}}, Use("reads", ALL)),
        ({"xt": {"type": "target", "name": "NFQUEUE"}}, Use("queue", first=0, last=0xFFFF)),
        ({"xt": {"type": "target", "name": "CT"}}, Use("helper")),
    ],
)
def test_an_nft_rule(statement: dict[str, Any], expected: Use) -> None:
    rule = {"family": "inet", "table": "t", "chain": "c", "handle": 3, "expr": [statement, {"accept": None}]}
    helper = {"ct helper": {"family": "inet", "name": "mine", "table": "t", "type": "sip", "protocol": "udp"}}
    assert list(nft_uses([helper, {"rule": rule}])) == [("table inet t chain c handle 3", expected)]


def test_other_statements_use_nothing_of_ours() -> None:
    payload = {"payload": {"protocol": "udp", "field": "dport"}}
    statements = [{"match": {"op": "==", "left": payload, "right": 53}}, {"counter": {"packets": 1, "bytes": 2}},
                  {"ct helper": "ftp21"}, {"xt": None},
                  {"xt": {"type": "target", "name": "TCPMSS"}}, {"mangle": {"key": payload, "value": 54}}]  # fmt: skip
    rule = {"family": "ip", "table": "t", "chain": "c", "handle": 1, "expr": statements}
    assert list(nft_uses([{"rule": rule}, {"metainfo": {}}])) == []


@pytest.mark.parametrize(
    ("use", "wrong"),
    [
        (Use("writes", 0x4000), True),
        (Use("writes", 0xF0), False),
        (Use("reads", ALL), True),  # never again equal to what they wait for
        (Use("reads", 0x00FFFF00), False),  # the application, as docs/reference/configuration.md offers it
        (Use("reads", 0xF0000000), False),
        (Use("queue", first=1, last=1), False),
    ],
)
def test_collisions(use: Use, wrong: bool) -> None:
    assert collides(use, OURS) is wrong


@pytest.mark.parametrize("taken", [0, 0x4000, 0xC000, 0xFF, 0x00FF0000, 0x1, 0x80000000, 0x000F000F])
def test_a_free_mask_is_a_mask_that_marks_can_use(taken: int) -> None:
    free = free_mask(taken)
    assert free is not None
    assert not free & taken
    assert Marks(free).mask == free


def test_there_may_be_no_room() -> None:
    assert free_mask(ALL) is None
    assert free_mask(0x11111111) is None


def test_chains_that_stop_what_reaches_their_end() -> None:
    """By policy, or by a last rule without a condition, as firewalld has it."""

    def chain(name: str, **more: Any) -> dict[str, Any]:
        return {"chain": {"family": "inet", "table": "t", "name": name, "handle": 1, **more}}

    def rule(name: str, *expr: Any) -> dict[str, Any]:
        return {"rule": {"family": "inet", "table": "t", "chain": name, "handle": 2, "expr": list(expr)}}

    asked = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}
    rejected = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
    counted = {"counter": {"packets": 0, "bytes": 0}}
    assert list(stopping([
        {"metainfo": {}}, chain("policy", hook="forward", policy="drop"), chain("in", hook="input", policy="drop"),
        chain("last", hook="forward", policy="accept"), rule("last", {"accept": None}), rule("last", counted, rejected),
        chain("some", hook="forward", policy="accept"), rule("some", {"drop": None}), rule("some", asked, rejected),
        chain("empty", hook="forward", policy="accept"), chain("plain"), rule("plain", {"drop": None}),
    ])) == ["inet t chain policy", "inet t chain last"]  # fmt: skip
