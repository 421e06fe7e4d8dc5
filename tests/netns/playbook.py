"""A gateway in a namespace with a small engine: a function from a queued packet to commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from appid.dataplane.chain import Topology
from appid.dataplane.command import Command, SetVerdict
from appid.dataplane.marks import Marks
from appid.dataplane.ruleset import Variant
from appid.edge import iptables
from appid.edge.gateway import Gateway, GatewayOptions
from appid.engine.event import CommandFailed, Event, FlowEnded, PacketQueued
from appid.packet import Packet, parse
from tests.netns.net import Net, until

MARKS = Marks()
PASS = MARKS.passing
ALLOW, DENY, DROP = (MARKS.encode(action, 7) for action in ("allow", "deny", "drop"))
WATCH = MARKS.encode("allow", 7, watch=True)
TOPOLOGY = Topology(outside=("wan0",), inside=("10.77.1.0/24", "fd00:77:1::/64"), queues=(77,))

Answer = Callable[[Packet, int], Sequence[Command] | int]
"""From a packet and its number to commands, or just the mark to repeat it with."""


class Playbook:
    """An engine that asks `answer`, and keeps what it saw."""

    deadline: float | None = None

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.packets: list[Packet] = []
        self.failed: list[CommandFailed] = []
        self.ended: list[FlowEnded] = []
        self.answered = 0
        """Packets whose commands are in the kernel."""
        self.idle: Callable[[], bool] = lambda: True

    def settled(self) -> None:
        """Wait until what came is answered, and what was shut is cut: what is sent now meets the rules of then."""
        assert until(self.idle, 20), "the gateway does not come to rest"

    def note(self, data: bytes, seconds: float) -> None:
        self.answered += 1

    def handle(self, event: Event, now: float) -> Sequence[Command]:
        if isinstance(event, CommandFailed):
            self.failed.append(event)
        if isinstance(event, FlowEnded):
            self.ended.append(event)
        if not isinstance(event, PacketQueued):
            return []
        packet = parse(event.data)
        assert packet is not None
        self.packets.append(packet)
        told = self.answer(packet, event.packet)
        return [SetVerdict(event.packet, "repeat", told)] if isinstance(told, int) else told


def waiting(net: Net) -> int:
    """Packets that userspace has not answered (/proc/net/netfilter/nfnetlink_queue: number, port, waiting, ...)."""

    def read() -> str:
        return Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text()

    return sum(int(line.split()[2]) for line in net.gateway.call(read).splitlines())


@contextmanager
def running(net: Net, answer: Answer, **options: Any) -> Iterator[Playbook]:
    """A Gateway on queue 77 of the gateway's namespace while the block runs."""
    book = Playbook(answer)
    settings = GatewayOptions(queue=77, **options)
    gateway = net.gateway.call(lambda: Gateway(book, settings, on_verdict=book.note))
    execute, cutting = gateway.execute, Lock()
    sweep = execute.sweep

    def watched() -> int:
        with cutting:
            return sweep()

    execute.sweep = watched  # type: ignore[method-assign]
    book.idle = lambda: (
        waiting(net) == 0 and book.answered == len(book.packets) and not execute.closed and not cutting.locked()
    )
    thread = net.gateway.start(gateway.run)
    try:
        yield book
    finally:
        gateway.stop()
        thread.join(5)
        gateway.close()
        assert not thread.is_alive()
        time.sleep(0)


def install(net: Net, variant: Variant, topology: Topology = TOPOLOGY) -> None:
    net.gateway.call(lambda: iptables.apply(topology, variant))
