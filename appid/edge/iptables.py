"""Rule sets into the kernel and out of it again: iptables-restore --noflush, ipset restore, nft -f.

In: ChainSets and Topology. A family's iptables rules change in one transaction per table. Where one part fails, what
was applied before is taken back: to the rule set of before if there was one, else to nothing.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from typing import Literal

from appid.dataplane.chain import CLEAR_TABLE, FAMILIES, NAT_TABLE, ChainSet, Jump, Topology, chain_set
from appid.dataplane.render import TABLES, clear_text, ipset_text, nat_text, removal_text, restore_text
from appid.edge.netlink import KernelError

Variant = Literal["nft", "legacy"]
_DESTROY_TRIES = 50


def run(command: list[str], text: str | None = None) -> str:
    """Run a program of the host. Out: what it printed; KernelError if it fails or is missing."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(" ".join(command), str(error)) from error
    if done.returncode:
        raise KernelError(" ".join(command), " ".join(done.stderr.split()) or f"exit status {done.returncode}")
    return done.stdout


def _program(family: int, variant: Variant, what: str) -> str:
    return f"{'iptables' if family == 4 else 'ip6tables'}-{variant}-{what}"


@dataclass(frozen=True, slots=True)
class Iptables:
    """One variant's iptables, for both families."""

    variant: Variant = "nft"

    def save(self, family: int, table: str) -> str:
        """iptables-save of one table; empty if the table does not exist."""
        return run([_program(family, self.variant, "save"), "-t", table])

    def restore(self, family: int, text: str, test: bool = False) -> None:
        options = ["--noflush", "--wait"] + (["--test"] if test else [])
        if self.variant == "nft":
            options.remove("--wait")  # it locks by transaction and knows no such option everywhere
        run([_program(family, self.variant, "restore"), *options], text)

    def present(self, rules: ChainSet) -> list[Jump]:
        """Our jumps that are in the kernel, each as often as it occurs."""
        found = []
        for table in TABLES:
            lines = self.save(rules.family, table).splitlines()
            for jump in rules.jumps:
                if jump.table == table:
                    found += [jump] * sum(line.strip() == f"-A {jump}" for line in lines)
        return found

    def ours(self, rules: ChainSet) -> str | None:
        """Our chains as they are in the kernel, as restore text; None where there are none."""
        parts = []
        for table in TABLES:
            names = {chain.name for chain in rules.chains if chain.table == table}
            lines = self.save(rules.family, table).splitlines()
            kept = [line for line in lines if line[:1] == ":" and line[1:].split()[0] in names]
            kept += [line for line in lines if line[:3] == "-A " and line.split()[1] in names]
            if kept:
                parts.append("\n".join((f"*{table}", *kept, "COMMIT")))
        return "\n".join(parts) + "\n" if parts else None


def apply(topology: Topology, variant: Variant = "nft") -> None:
    """Make the kernel hold the rule sets of both families, or leave it as it was (KernelError)."""
    tables = Iptables(variant)
    families = [chain_set(topology, family) for family in FAMILIES]
    before = [(rules, tables.ours(rules)) for rules in families]
    try:
        for rules in families:
            run(["ipset", "-exist", "restore"], ipset_text(rules.sets))
        run(["nft", "-f", "-"], clear_text(topology.marks))
        run(["nft", "-f", "-"], nat_text())
        for rules in families:
            tables.restore(rules.family, restore_text(rules, tables.present(rules)))
    except KernelError:
        if all(text is None for _, text in before):
            remove(topology, variant)
        else:
            for rules, text in before:
                if text is not None:
                    tables.restore(rules.family, text)
        raise


def remove(topology: Topology, variant: Variant = "nft") -> None:
    """Take out all that `apply` made; what is not there is passed over. KernelError names what would not go."""
    tables = Iptables(variant)
    errors: list[KernelError] = []
    for family in FAMILIES:
        rules = chain_set(topology, family)
        try:
            if tables.ours(rules) is not None:
                tables.restore(family, removal_text(rules, tables.present(rules)))
        except KernelError as error:
            errors.append(error)
    for table in (CLEAR_TABLE, NAT_TABLE):
        try:
            run(["nft", "-f", "-"], f"add table inet {table}\ndelete table inet {table}\n")
        except KernelError as error:
            errors.append(error)
    try:
        destroy_sets()
    except KernelError as error:
        errors.append(error)
    if errors:
        raise errors[0]


def destroy_sets(prefix: str = "appid-") -> None:
    """Destroy our ipsets. nft frees rules a moment after it removed them, and a set in use cannot go: retry."""
    for name in run(["ipset", "-n", "list"]).split():
        if not name.startswith(prefix):
            continue
        for attempt in range(_DESTROY_TRIES):
            try:
                run(["ipset", "destroy", name])
                break
            except KernelError:
                if attempt == _DESTROY_TRIES - 1:
                    raise
                time.sleep(0.02)
