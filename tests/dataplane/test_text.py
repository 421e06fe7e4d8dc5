"""Strings blanked in what iptables-save 1.8.9 and nft 1.0.6 print."""

from __future__ import annotations

import pytest

from appid.dataplane.text import Program, blanked, lines_of


@pytest.mark.parametrize(
    ("program", "text", "words"),
    [
        (
            "iptables",
            '-s 10.9.9.9/32 -m comment --comment "-j APPID" -j DROP',
            "-s 10.9.9.9/32 -m comment --comment -j DROP",
        ),
        ("iptables", "-m comment --comment APPID-x -j DROP", "-m comment -j DROP"),
        ("iptables", '-m comment --comment "a \\" b \\\\" -j DROP', "-m comment --comment -j DROP"),
        ("iptables", "-m set --match-set -j src -j DROP", "-m set src -j DROP"),
        ("iptables", "-j NFLOG --nflog-prefix APPID --nflog-group 3", "-j NFLOG --nflog-group 3"),
        ("iptables", '-m bpf --bytecode "1,6 0 0 0" -j DROP', "-m bpf --bytecode -j DROP"),
        ("nft", 'iifname "jump" drop comment "jump APPID" # handle 3', "iifname drop # handle 3"),
        ("nft", 'log prefix "a\\" counter jump APPID', "log prefix counter jump APPID"),
        ("nft", 'drop comment "say "jump APPID"', "drop"),
        ("iptables", 'a quote" alone', 'a quote" alone'),
    ],
)
def test_what_is_left_are_the_programs_own_words(program: Program, text: str, words: str) -> None:
    bare = blanked(text, program)
    assert len(bare) == len(text)
    assert [word for word in bare.split() if word.strip("-_")] == words.split()


def test_a_line_break_in_a_comment_ends_no_line() -> None:
    text = ':A - [0:0]\n-A A -m comment --comment "x\n-A B -j C"\nCOMMIT\n'
    lines = [line for line, _ in lines_of(text)]
    assert lines == [":A - [0:0]", '-A A -m comment --comment "x\n-A B -j C"', "COMMIT", ""]
