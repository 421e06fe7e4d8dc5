"""Rule sets into the kernel and out of it again: iptables-restore --noflush, ipset restore, nft -f.

In: a Topology and the variant of iptables. What is there is read first; then only what differs is changed, step by
step (dataplane/converge.py). Where a step fails, the same way leads back to what was there before.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Literal

from appid.dataplane.chain import FAMILIES, Family, Topology
from appid.dataplane.converge import Step, leftovers, program, steps, taken_along
from appid.dataplane.jump import nft_leads
from appid.dataplane.present import PREFIX, held_of, rules_of, ruleset_of, sets_of, table_of, unreadable
from appid.dataplane.ruleset import (
    NOTHING,
    TABLES,
    VARIANTS,
    Held,
    NftChain,
    Place,
    RuleSets,
    Variant,
    grounded,
    home_of,
    is_ours,
    relaid,
    remembering,
    wanted,
)
from appid.dataplane.text import lines_of
from appid.edge.conntrack import Conntrack
from appid.edge.netlink import KernelError

log = logging.getLogger("appid")

_TRIES = 50
"""Times that a set in use is tried again, 20 ms apart: nft frees rules a moment after it removed them."""
_RETURNS = 3


def run(command: Sequence[str], text: str | None = None) -> str:
    """Run a program of the host, which no signal to our group ends half-way. Out: what it printed; KernelError if it
    fails or is missing."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=60, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(" ".join(command), str(error)) from error
    if done.returncode:
        raise KernelError(" ".join(command), " ".join(done.stderr.split()) or f"exit status {done.returncode}")
    return done.stdout


def variant_of(choice: Literal["auto", "nft", "legacy"]) -> Variant:
    """As configured; "auto" is what `iptables` is on this host."""
    if choice != "auto":
        return choice
    return "nft" if "nf_tables" in run(["iptables", "--version"]) else "legacy"


def saved(variant: Variant, family: Family, table: str) -> str:
    """iptables-save of one table; empty if the kernel has no such table. Looking makes none: iptables-legacy would."""
    if variant == "legacy":
        names = Path(f"/proc/thread-self/net/{'ip' if family == 4 else 'ip6'}_tables_names")
        if not names.exists() or table not in names.read_text().split():
            return ""
    save = program(family, variant, "save")
    return run([save, "-t", table]) if shutil.which(save) else ""


def read() -> RuleSets:
    """All that is ours in this network namespace, of both variants. KernelError where it cannot be told."""
    tables: dict[Place, Held] = {}
    listing = ruleset_of(run(["nft", "-a", "-t", "list", "ruleset"]))
    for variant in VARIANTS:
        for family in FAMILIES:
            for table in TABLES:
                text, chains = saved(variant, family, table), listing.builtin.get(home_of(family, table), {})
                unread = variant == "nft" and (unreadable(text) or not text)  # or no program is there to read it
                held = _held(family, table, chains) if unread else table_of(text)
                if held.chains or held.jumps or held.others:
                    tables[Place(variant, family, table)] = held
    names = [name for name in run(["ipset", "-n", "list"]).split() if name.startswith(PREFIX)]
    sets = {each: text for name in names for each, text in sets_of(run(["ipset", "save", name])).items()}
    return RuleSets(tables, sets, *listing)


def _held(family: Family, table: str, chains: Mapping[str, NftChain]) -> Held:
    """A table with rules that iptables-nft has no words for, made with nft itself: it prints nothing of it, but a chain
    by its name it does."""
    ours: dict[str, tuple[str, ...]] = {}
    for name in filter(is_ours, chains):
        try:
            ours[name] = rules_of(run([program(family, "nft", ""), "-t", table, "-S", name]))
        except KernelError:  # somebody put such a rule into our chain
            ours[name] = chains[name].rules
    return held_of(chains, ours)


def carry_out(todo: Iterable[Step], on: bool = False) -> list[KernelError]:
    """Step after step. A failure ends it (KernelError), or, with `on`, is among those handed back."""
    errors: list[KernelError] = []
    for step in todo:
        try:
            _one(step)
        except KernelError as error:
            if not on:
                raise
            errors.append(error)
    return errors


def _one(step: Step) -> None:
    tries = _TRIES if step.command[:2] == ("ipset", "destroy") else 1
    for left in reversed(range(tries)):
        try:
            run(step.command, step.text)
            return
        except KernelError as error:
            if "in use" not in error.reason:
                raise
            if not left:
                raise KernelError(error.command, f"{error.reason}{_users(step.command[-1])}") from error
            time.sleep(0.02)


def _users(name: str) -> str:
    """Which rules of others use a set of ours."""
    places = product(VARIANTS, FAMILIES, ("raw", "nat", *TABLES))
    found = [
        f"{program(family, variant, '')} -t {table} {line}"
        for variant, family, table in places for line, _ in lines_of(saved(variant, family, table))
        if re.search(rf"-set {re.escape(name)} ", line)
    ]  # fmt: skip
    return f": {'; '.join(found)}" if found else ""


def apply(topology: Topology, variant: Variant = "nft") -> bool:
    """Make the kernel hold the rule sets of both families in this variant, and ours in no other; or leave it as it was
    (KernelError). Out: whether anything had to be made."""
    before = read()
    target = remembering(wanted(topology, variant), before)
    made = bool(steps(before, target))
    refused = _reach(before, target)
    for _ in range(_RETURNS):
        if refused is None or _of_others(now := read()) == _of_others(before):
            break
        # A neighbour was at work at the same time, and a rule or chain that we went by was gone.
        before, target = now, remembering(wanted(topology, variant), now)
        refused = _reach(before, target)
    if refused is not None:
        raise refused
    if mask := relaid(before, target):
        try:
            _forget(mask)
        except KernelError as error:
            log.warning("flows keep marks that mean something else by now: %s", error)
    _name_taken(before, target)
    for left in carry_out(leftovers(before, target), on=True):
        log.warning("stays until the next time: %s", left)
    return made


def _of_others(there: RuleSets) -> object:
    """What neighbours have: how many rules where; of iptables-nft, which ones, since a reload makes the same anew."""
    handles = {
        (home, name): [handle for rule, handle in zip(chain.rules, chain.handles, strict=True)
                       if not is_ours(nft_leads(rule))]
        for home, chains in there.builtin.items() for name, chain in chains.items() if not is_ours(name)
    }  # fmt: skip
    return handles, {place: dict(held.others) for place, held in there.tables.items()}


def _reach(before: RuleSets, target: RuleSets) -> KernelError | None:
    """All steps, or back again. Out: why, where all is as before; KernelError where it is not."""
    try:
        carry_out(steps(before, target))
    except KernelError as error:
        if _reached(target):  # it complained when it had done its work
            return None
        if errors := undo(before):
            reason = f"{error.reason}; and it could not be undone: {'; '.join(map(str, errors))}"
            raise KernelError(error.command, reason) from error
        return error
    except BaseException:  # interrupted
        undo(before)
        raise
    return None


def ground(topology: Topology, variant: Variant = "nft") -> None:
    """Where they are missing, the sets and maps that calls live in, before any rule leads to a queue. KernelError."""
    before = read()
    try:
        carry_out(steps(before, grounded(before, wanted(topology, variant))))
    except BaseException:
        undo(before)
        raise


def mend(topology: Topology, variant: Variant, removed: bool = False) -> list[Step] | None:
    """What others moved or took away is put back. Out: how; empty if all stood. None where none of our chains is left,
    and somebody wanted it so (`removed`): that stays, whatever set could not go. KernelError."""
    before = read()
    if removed and not before.tables:
        return None
    todo = steps(before, remembering(wanted(topology, variant), before))
    if todo:
        apply(topology, variant)
    return todo


def _forget(mask: int) -> None:
    """Flows that began under another layout of the marks are undecided."""
    conntrack = Conntrack()
    try:
        for entry in conntrack.entries():
            if entry.mark & mask:
                with contextlib.suppress(KernelError):  # it has ended; or it is an echo, and ends soon
                    conntrack.set_mark(entry.orig, 0, mask)
    finally:
        conntrack.close()


def _reached(target: RuleSets) -> bool:
    try:
        return not steps(read(), target)
    except KernelError:
        return False


def undo(before: RuleSets) -> list[KernelError]:
    """Back to what `read` found before. Out: what stood in the way of it, empty if it is as it was."""
    errors: list[KernelError] = []
    for _ in range(_RETURNS):
        try:
            now = read()
            todo = steps(now, before) + leftovers(now, before)
        except KernelError as error:
            errors = [error]
            continue
        if not todo:
            return []
        errors = carry_out(todo, on=True)
    return errors


def remove() -> None:
    """Take out all that is ours, of both variants; what is not there is passed over. KernelError names what would not
    go; everything else is gone then."""
    before = read()
    errors = undo(NOTHING)
    with contextlib.suppress(KernelError):
        _name_taken(before, read() if errors else NOTHING)
    if errors:
        raise errors[0]


def _name_taken(before: RuleSets, target: RuleSets) -> None:
    for rule in taken_along(before, target):
        log.warning("a rule that is not ours went, since it led to a chain of ours: %s", rule)
