"""What became of packets that the chains handed to a queue and no worker saw, and of those that the chains refused.

In: the counters of the chain rules, the kernel's table of queues, the workers' tallies. Out: counts by queue and
reason, and for the exception policy by cause. Nothing is lost silently: handed = seen + waiting + counted here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from appid.dataplane.chain import FAMILIES, INPUT, MAIN, QUEUE, Family
from appid.dataplane.converge import program
from appid.dataplane.present import unreadable
from appid.dataplane.ruleset import Variant
from appid.edge import iptables
from appid.edge.netlink import KernelError
from appid.edge.tally import Settled, Tally
from appid.policy.exception import Cause

TABLE = Path("/proc/net/netfilter/nfnetlink_queue")
_HANDED = re.compile(rf"^\[(\d+):\d+\] -A {QUEUE} .*-j NFQUEUE --queue-num (\d+)", re.M)
_REFUSED = re.compile(rf"^\[(\d+):\d+\] -A ({MAIN}|{INPUT}) (.*)-j (DROP|REJECT)", re.M)
_BLIND = re.compile(rf"^\[(\d+):\d+\] -A {MAIN} .*--comment \"?blind\b", re.M)
_VERBOSE = re.compile(r"^(-A .*)-c (\d+) (\d+) (?=-j )", re.M)
REFUSALS = ("deny", "drop", "invalid", "blind", "unforeseen")
"""Why the chains refuse a packet: its flow's decision; it is of no flow; the engine never saw it, and the exception
policy is closed; it came to a media port that no call had opened."""


class Line(NamedTuple):
    """A queue in the kernel: who listens, packets that wait for their verdict, dropped because the queue was full, and
    because the listener's socket was."""

    listener: int
    waiting: int
    full: int
    user: int


def lines(table: Path = TABLE) -> dict[int, Line]:
    """By queue number; a queue without a listener is not there."""
    try:
        rows = [row.split() for row in table.read_text().splitlines()]
    except OSError:
        return {}
    return {int(row[0]): Line(int(row[1]), int(row[2]), int(row[5]), int(row[6])) for row in rows if len(row) > 7}


def handed(saved: str) -> Counter[int]:
    """Packets by queue, from what `iptables-save -c -t mangle` prints."""
    found: Counter[int] = Counter()
    for packets, queue in _HANDED.findall(saved):
        found[int(queue)] += int(packets)
    return found


def refused(saved: str) -> Counter[str]:
    """Packets by refusal, from what `iptables-save -c -t filter` prints."""
    found: Counter[str] = Counter()
    for packets, chain, matches, target in _REFUSED.findall(saved):
        if chain == INPUT:
            why = "unforeseen"
        elif "--comment" in matches:
            why = "blind"
        elif "INVALID" in matches:
            why = "invalid"
        else:
            why = "deny" if target == "REJECT" else "drop"
        found[why] += int(packets)
    return found


def queued(variant: Variant) -> Counter[int]:
    """Packets that the chains of both families handed to each queue so far."""
    return sum((handed(_counted(variant, family, "mangle", QUEUE)) for family in FAMILIES), Counter[int]())


def stopped(variant: Variant) -> tuple[Counter[str], int]:
    """Packets that they refused so far; and those, refused or not, that came to the exception policy's rule."""
    texts = [_counted(variant, family, "filter", MAIN, INPUT) for family in FAMILIES]
    return sum(map(refused, texts), Counter[str]()), sum(int(each) for text in texts for each in _BLIND.findall(text))


def _counted(variant: Variant, family: Family, table: str, *chains: str) -> str:
    """What iptables-save -c prints of a table; of one that it does not print (rules made with nft itself), what
    iptables -S -v prints of these chains, in the same words."""
    text = iptables.run([program(family, variant, "save"), "-c", "-t", table])
    if not unreadable(text):
        return text
    told = (iptables.run([program(family, variant, ""), "-t", table, "-S", chain, "-v"]) for chain in chains)
    return _VERBOSE.sub(r"[\2:\3] \1", "".join(told))


@dataclass
class _Queue:
    line: Line | None = None
    handed: int = 0
    """By the rules' counters, which begin anew when the rules are replaced: here they go on."""
    counter: int = 0
    full: int = 0
    user: int = 0
    told: int = 0
    """Unaccounted packets that were told already."""
    down: bool = False
    """Whether at some time since the last look nobody listened, or another began to."""


@dataclass
class _Blind:
    """The exception policy's rule: packets by its counter, which goes on as those of _Queue do; `calm`: those of them
    that were no fault of an engine; `ahead`: told by this rule before the queues tell them."""

    packets: int = 0
    counter: int = 0
    calm: int = 0
    ahead: int = 0
    down: bool = False


@dataclass
class Queues:
    """Bookkeeping of all queues. `dropped`: (queue, reason) -> packets; `exceptions`: cause -> packets; `refused`:
    refusal -> packets."""

    variant: Variant
    tallies: Mapping[int, Tally]
    fail_open: bool
    dropped: Counter[tuple[int, str]] = field(default_factory=Counter)
    exceptions: Counter[Cause] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    _refused: Counter[str] = field(default_factory=Counter)
    _queues: dict[int, _Queue] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)
    _blind: _Blind = field(default_factory=_Blind)

    def begin(self) -> None:
        """From where the supervisor before this one stood: what its chains handed over meanwhile came while the engine
        was down. Without one, what was handed over before is not ours to account for."""
        counted = self._queued()
        self._refused, self._blind.counter = self._stopped()
        for number, tally in self.tallies.items():
            before = tally.before
            if before is not None and before.counter <= counted[number]:
                known = _Queue(counter=before.counter, handed=before.handed, told=before.accounted, down=True)
            else:
                known = _Queue(counter=counted[number], handed=tally.seen)
            self._queues[number] = known
        self._blind.calm = -self._told()

    def look(self, full: bool = True) -> None:
        """Count what has happened since the last look. `full` False: what the chains handed over only if the workers
        saw anything since it was last looked at (3 ms), and not what they refused."""
        seen = {number: tally.seen for number, tally in self.tallies.items()}
        counted = None
        if full or seen != self._seen:
            sure = {number: seen[number] + queue.full + queue.user for number, queue in self._queues.items()}
            counted, self._seen = self._queued(), seen
        table = lines()
        for number, queue in self._queues.items():
            self._kernel(number, queue, table.get(number))
            if counted is not None:
                self._chains(number, queue, counted[number], sure[number])
        if full:
            refusals, blind = self._stopped()
            for why, packets in refusals.items():
                self.refused[why] += _more(self._refused[why], packets)
            self._refused = refusals
            self._unseen(blind)

    def _kernel(self, number: int, queue: _Queue, line: Line | None) -> None:
        before, queue.line = queue.line, line
        same = before is not None and line is not None and before.listener == line.listener
        queue.down = queue.down or not same
        if line is None:
            return
        since = before if before is not None and same else Line(0, 0, 0, 0)
        for reason, more in (("full", line.full - since.full), ("user", line.user - since.user)):
            if more > 0:
                self.dropped[number, reason] += more
                self.exceptions["queue-full"] += more
        queue.full += max(0, line.full - since.full)
        queue.user += max(0, line.user - since.user)

    def _chains(self, number: int, queue: _Queue, counter: int, sure: int) -> None:
        """What the rules handed over, and no one saw, nor dropped for a reason that the kernel counts: it passed by the
        fail-open flag, or there was no listener, or it waited in the queue of one that was killed. `sure`: accounted
        for when the look began, so of what the counter has counted."""
        queue.handed += _more(queue.counter, counter)
        queue.counter = counter
        # The rules count a packet of generic segmentation offload once, the queue each of its segments: what is sure
        # beyond what was handed over is of these. They must not hide what is lost later.
        queue.handed = max(queue.handed, sure + queue.told)
        waiting = queue.line.waiting if queue.line is not None else 0
        unseen = queue.handed - self.tallies[number].seen - waiting - queue.full - queue.user
        cause: Cause = "engine-down" if queue.down or not self.fail_open else "queue-full"
        self._blind.down |= queue.down
        if unseen > queue.told:
            known = min(self._blind.ahead, unseen - queue.told)
            self._blind.ahead -= known
            self.exceptions[cause] += unseen - queue.told - known
            queue.told = unseen
        queue.down = queue.line is None
        self.tallies[number].settle(Settled(counter, queue.handed, queue.full + queue.user + queue.told))

    def _unseen(self, counter: int) -> None:
        """While nobody listened, the exception policy's rule saw each packet of an undecided flow: more than the above
        found, where segments since the look before hid some. At other times that rule sees untracked ones, too."""
        blind, told = self._blind, self._told()
        blind.packets += _more(blind.counter, counter)
        blind.counter = counter
        hidden = blind.packets - blind.calm - told
        if not blind.down:
            blind.calm, blind.ahead = blind.packets - told, 0
        elif hidden > blind.ahead:
            self.exceptions["engine-down"] += hidden - blind.ahead
            blind.ahead = hidden
        blind.down = False

    def _told(self) -> int:
        return sum(queue.told for queue in self._queues.values())

    def _queued(self) -> Counter[int]:
        try:
            return queued(self.variant)
        except KernelError:  # the rules are being changed, or were taken away
            return Counter({number: queue.counter for number, queue in self._queues.items()})

    def _stopped(self) -> tuple[Counter[str], int]:
        try:
            return stopped(self.variant)
        except KernelError:
            return self._refused, self._blind.counter


def _more(before: int, now: int) -> int:
    """What a rule's counter has grown by; it begins anew when the rules are replaced."""
    return now - before if now >= before else now
