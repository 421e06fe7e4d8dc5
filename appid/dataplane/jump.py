"""A rule that leads to a chain, in the words of iptables-save and in nft's. In: such a rule. Out: where it leads; the
same rule in the other's words, as both print it: iptables-nft compares packet marks in nft's own way since 1.8.8.
"""

from __future__ import annotations

import re
from typing import Final

from appid.dataplane.text import blanked

_LEADS: Final = re.compile(r"(?:^| )-[jg] (\S+)$")  # a chain takes no options: it is the last word
_NFT_LEADS: Final = re.compile(r"\b(?:jump|goto) (\S+)(?: _+)?$")  # a comment may follow
_MARKED: Final = re.compile(r"(?:-m mark (! )?--mark (0x[0-9a-f]+)/(0x[0-9a-f]+) )?-j (\S+)")
_NFT_MARKED: Final = re.compile(r"(?:meta mark & (0x[0-9a-f]+) ([!=])= (0x[0-9a-f]+) )?(?:counter )?jump (\S+)")


def leads(rule: str) -> str:
    """The chain that a rule of iptables-save leads to (or its target); empty if there is none. Strings are blanked
    (text.py)."""
    found = _LEADS.search(rule)
    return found[1] if found is not None else ""


def nft_leads(rule: str) -> str:
    """The chain that a rule of nft leads to; empty if it leads to none."""
    found = _NFT_LEADS.search(blanked(rule, "nft"))
    return found[1] if found is not None else ""


def native(rule: str) -> str | None:
    """A jump in nft's words, where it is not in these already; None if it asks for more than a packet mark."""
    if nft_leads(rule):
        return rule
    found = _MARKED.fullmatch(rule)
    if found is None:
        return None
    isnt, value, mask, name = found.groups()
    asked = f"meta mark & {int(mask, 16):#010x} {'!=' if isnt else '=='} {int(value, 16):#010x} " if value else ""
    return f"{asked}counter jump {name}"


def spoken(rule: str) -> str | None:
    """A jump of nft in the words of iptables; None if it asks for more than a packet mark."""
    found = _NFT_MARKED.fullmatch(rule)
    if found is None:
        return None
    mask, sign, value, name = found.groups()
    asked = f"-m mark {'! ' if sign == '!' else ''}--mark {int(value, 16):#x}/{int(mask, 16):#x} " if mask else ""
    return f"{asked}-j {name}"
