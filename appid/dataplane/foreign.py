"""What the rules of others do with marks, queues and the kernel's SIP helper. In: a rule as iptables-save prints it, a
table as `nft -j` prints it. Out: Uses.

Writing bits of a mark that are ours, or reading some of ours along with others, is a collision; reading ours alone is
what a rule does that wants to know the application.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple

from appid.dataplane.text import blanked

ALL = 0xFFFFFFFF
Kind = Literal["reads", "writes", "queue", "helper"]

_READ = re.compile(r"-m (?:conn)?mark (?:! )?--mark (0x[0-9a-f]+)(?:/(0x[0-9a-f]+))?")
_WRITTEN = re.compile(r"--(?:set-x?mark|tproxy-mark) (0x[0-9a-f]+)(?:/(0x[0-9a-f]+))?")
_COPIED = re.compile(r"--(save|restore)-mark --nfmask (0x[0-9a-f]+) --ctmask (0x[0-9a-f]+)")
_QUEUED = re.compile(r"-j NFQUEUE --queue-(?:num|balance) (\d+)(?::(\d+))?")
_WHOLE = re.compile(r"-j HMARK(?: |$)|--map-mark|--restore-skmark")
_HELPER = re.compile(r"-j CT .*--helper sip\b")


class Use(NamedTuple):
    """`bits` of a mark that a rule reads or writes; or `first` to `last` queue; or the helper."""

    kind: Kind
    bits: int = 0
    first: int = 0
    last: int = 0


_XT: Final = {
    **dict.fromkeys(("mark", "connmark"), (Use("reads", ALL),)),
    **dict.fromkeys(("MARK", "CONNMARK", "HMARK", "TPROXY"), (Use("writes", ALL),)),
    "SET": (Use("writes", ALL),),
    "NFQUEUE": (Use("queue", first=0, last=0xFFFF),),
    "CT": (Use("helper"),),
}
"""What a match or target of iptables may do in a table that iptables does not print: nft tells its name alone."""


def collides(use: Use, ours: int) -> bool:
    """Whether a rule and the bits `ours` get into each other's way."""
    return bool(use.bits & ours) and (use.kind == "writes" or (use.kind == "reads" and bool(use.bits & ~ours)))


def uses(rule: str) -> Iterator[Use]:
    """Of one iptables rule."""
    rule = blanked(rule)
    for found in _READ.finditer(rule):
        yield Use("reads", int(found[2] or "0xffffffff", 16))
    for found in _WRITTEN.finditer(rule):
        yield Use("writes", int(found[1], 16) | int(found[2] or "0xffffffff", 16))
    for found in _COPIED.finditer(rule):
        yield Use("writes", int(found[3] if found[1] == "save" else found[2], 16))
    if _WHOLE.search(rule):
        yield Use("writes", ALL)
    for found in _QUEUED.finditer(rule):
        yield Use("queue", first=int(found[1]), last=int(found[2] or found[1]))
    if _HELPER.search(rule):
        yield Use("helper")


def nft_uses(objects: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Use]]:
    """(where, Use) of the rules of one table, from the list `nftables` of its JSON (libnftables-json(5))."""
    found = list(objects)
    sip = {each["ct helper"]["name"] for each in found
           if "ct helper" in each and each["ct helper"].get("type") == "sip"}  # fmt: skip
    for each in found:
        rule = each.get("rule")
        if rule is None:
            continue
        where = f"table {rule['family']} {rule['table']} chain {rule['chain']} handle {rule['handle']}"
        for statement in rule["expr"]:
            yield from ((where, use) for use in _statement(statement, sip))


def _statement(statement: Any, sip: set[str]) -> Iterator[Use]:
    if not isinstance(statement, dict):
        return
    if "mangle" in statement and _is_mark(statement["mangle"]["key"]):
        key, value = statement["mangle"]["key"], statement["mangle"]["value"]
        yield Use("writes", _written(value, key))
    elif "match" in statement:
        yield from (Use("reads", bits) for bits in _read(statement["match"]["left"]))
    elif "queue" in statement:
        number = (statement["queue"] or {}).get("num", 0)
        ends = number["range"] if isinstance(number, dict) and "range" in number else (number, number)
        first, last = ends if all(isinstance(end, int) for end in ends) else (0, 0xFFFF)  # it is computed
        yield Use("queue", first=first, last=last)
    elif "ct helper" in statement:
        named = statement["ct helper"]
        if named in sip if isinstance(named, str) else sip:  # or a map tells which
            yield Use("helper")
    elif "xt" in statement:
        yield from _XT.get((statement["xt"] or {}).get("name", ""), ())
    elif any(_is_mark(part) for part in _parts(statement)):
        yield Use("reads", ALL)


def _is_mark(value: Any) -> bool:
    return isinstance(value, dict) and any(
        isinstance(value.get(kind), dict) and value[kind].get("key") == "mark" for kind in ("meta", "ct")
    )


def _written(value: Any, key: Any) -> int:
    """Bits of `key` that change when it becomes `value`."""
    if value == key:
        return 0
    if isinstance(value, dict) and len(value) == 1:
        ((operator, operands),) = value.items()
        if operator in ("&", "|", "^") and isinstance(operands, list) and isinstance(operands[-1], int):
            more = ~operands[-1] & ALL if operator == "&" else operands[-1]
            return _written(operands[0], key) | more
    return ALL


def _read(left: Any) -> Iterator[int]:
    if _is_mark(left):
        yield ALL
    elif isinstance(left, dict) and isinstance(left.get("&"), list) and _is_mark(left["&"][0]):
        mask = left["&"][1]
        yield mask if isinstance(mask, int) else ALL
    elif any(_is_mark(part) for part in _parts(left)):
        yield ALL


def _parts(value: Any) -> Iterator[Any]:
    yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _parts(each)


def stopping(objects: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Chains at the forward hook that drop or reject all that reaches their end, by policy or by their last rule."""
    last: dict[tuple[str, str, str], Any] = {}
    bases = {}
    for each in objects:
        if (chain := each.get("chain")) is not None and chain.get("hook") == "forward":
            bases[chain["family"], chain["table"], chain["name"]] = chain.get("policy") == "drop"
        elif (rule := each.get("rule")) is not None:
            last[rule["family"], rule["table"], rule["chain"]] = rule["expr"]
    for place, drops in bases.items():
        left = [statement for statement in last.get(place, ()) if not {"counter", "log"} & statement.keys()]
        if drops or (len(left) == 1 and {"drop", "reject"} & left[0].keys()):
            yield f"{place[0]} {place[1]} chain {place[2]}"


def free_mask(taken: int) -> int | None:
    """A mark mask that leaves the bits `taken` alone: four neighbouring ones, above them eight or more; None where
    there is no room."""
    for low in range(21):
        nibble = 0xF << low
        for size in (16, 12, 8):
            for start in range(low + 4, 33 - size):
                mask = nibble | (1 << size) - 1 << start
                if not mask & taken:
                    return mask
    return None
