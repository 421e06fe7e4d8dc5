"""What iptables-save and nft print, without the words that others chose: a comment may read like a rule.

In: that text. Out: the same text at its full length, with every string of comments, log prefixes and names blanked; cut
into lines, with what they were. iptables-save puts quotes only where a value needs them, and a backslash before quotes
within (iptables' xtables_save_string); nft always puts quotes, and knows no backslash (nft(8), LEXICAL CONVENTIONS).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

_OPTIONS = r"(?:comment|(?:nf|u)?log-prefix|string|(?:match|add|del|map)-set|(?:hashlimit-)?name)"
_STRINGS: Final = {
    "iptables": re.compile(rf'"(?:\\.|[^"\\])*"|(?<= --){_OPTIONS} [^\s"]\S*', re.S),
    "nft": re.compile(r'\bcomment ".*"|"[^"]*"'),  # a comment is last
}
BLANK: Final = "_"
Program = Literal["iptables", "nft"]


def blanked(text: str, program: Program = "iptables") -> str:
    """`text` with a BLANK for each character of a string."""
    return _STRINGS[program].sub(lambda found: BLANK * len(found[0]), text)


def lines_of(saved: str) -> Iterator[tuple[str, str]]:
    """(line, line blanked) of iptables-save text; a line break within a comment ends none."""
    start = 0
    for bare in blanked(saved).split("\n"):
        yield saved[start : start + len(bare)], bare
        start += len(bare) + 1
