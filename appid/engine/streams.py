"""TCP connections whose messages change on the way: which they are, and what goes in the place of their segments.

In: segments of streams that are followed. Out: commands: their bytes and numbers made right (alg/splice.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from appid.alg.host import Host
from appid.alg.sides import Outward
from appid.alg.splice import Splice
from appid.dataplane.command import Command, Postpone, RelaxTcp, RewritePayload, SetVerdict
from appid.dataplane.rewrite import Numbers, tcp_numbers
from appid.engine.nat import NatKeeper
from appid.engine.nat import told as report
from appid.engine.record import FlowRecord
from appid.packet import ACK, SYN, Packet
from appid.policy.rule import holds
from appid.wire import Layer

MAX_PREFIX = 1024
FOLLOWS = 0.005
"""Seconds for which a piece of a message waits for the next one, sent at once behind it."""


class Streams:
    """Of one engine, behind its source NAT."""

    def __init__(self, nat: NatKeeper) -> None:
        self._nat = nat
        self.touched: dict[int, FlowRecord] = {}
        """Spliced streams, by number, that moved or ended since somebody emptied this."""

    def awaits(self, record: FlowRecord) -> bool:
        """Whether this stream may be signalling that will be translated: then its beginning must be seen first."""
        begun_at = record.key.dport in self._nat.ports
        return begun_at and any(holds(network, record.host) for network in self._nat.settings.masqueraded)

    def prefix(self, record: FlowRecord, outward: bool) -> bytes | None:
        """What a stream has sent before anybody knew what it is, or, of a relay's, of a message that is not whole; None
        once it is spliced, or is to be left alone."""
        side = 0 if outward else 1
        if record.streams is None or record.spliced is not None:
            return None
        if record.opening[side] and not _relays(record):
            return None
        if record.streams[side].waiting and (record.opening[side] or not self.awaits(record)):
            return None  # what comes later has gone out as it was
        return bytes(record.streams[side].data[: MAX_PREFIX + 1])

    def early(self, record: FlowRecord, outward: bool) -> bool:
        """Whether a segment must come again: its stream's beginning, which decides what becomes of it, is not there."""
        side = 0 if outward else 1
        if record.streams is None or record.spliced is not None or record.opening[side]:
            return False
        return record.streams[side].waiting > 0 and self.awaits(record)

    def bare(self, record: FlowRecord, packet: Packet) -> Packet:
        """TCP Fast Open (RFC 7413): a SYN that carries the beginning of what will be translated goes on without. To
        its sender the other end has not taken its data: he sends it again behind the handshake (section 4.1.3)."""
        begins = packet.tcp_flags & (SYN | ACK) == SYN and not packet.fragment
        if not (begins and packet.payload and self.awaits(record)) or self._nat.settings.monitor:
            return packet
        length = packet.length - len(packet.payload)
        return Packet(packet.key, packet.payload[:0], length, packet.tcp_flags, packet.tcp_seq)

    def spliceable(self, record: FlowRecord, packet: Packet, layers: tuple[Layer, ...], outward: bool) -> bool:
        """Whether a stream that begins as SIP may be translated, or a relay's that has channels by now: not yet
        refused, whatever its name will be."""
        allowed = record.decision is None or record.decision.action == "allow"
        if not layers or not allowed or self._nat.settings.monitor or record.streams is None:
            return False
        if packet.tcp_flags & SYN:
            return False  # its data may be taken, or be sent again: nobody knows where the stream goes on
        if layers[0].name == "sip":
            return record.opened_with("sip", outward)
        stream, end = record.streams[0 if outward else 1], (packet.tcp_seq + len(packet.payload)) % (1 << 32)
        application = self._nat.settings.applications.get(record.naming.name or "")
        if application is None or not application.watch or not _relays(record):
            return False  # its packets are the kernel's once it is decided: nobody looks for SIP in it
        return record.opened_with("stun", outward) and stream.awaits == end and not stream.waiting

    def splice(
        self, record: FlowRecord, packet: Packet, data: memoryview, outward: bool, prefix: bytes, host: Host
    ) -> Iterator[Command]:
        """A stream shows its first SIP, whole or not, or its first channel: from here on its bytes may change.
        `prefix`: what of it has gone out before."""
        commands: list[Command] = []
        self._nat.natted(record, outward == record.host_first, host, commands)
        yield from commands
        assert record.streams is not None
        other, relayed = record.streams[1 if outward else 0], _relays(record)
        if record.natted is None or max(len(prefix), len(other.data)) > MAX_PREFIX:
            return
        numbers = tcp_numbers(data[: packet.length], packet.payload)
        mine = Splice((numbers.sequence - len(prefix)) % (1 << 32), prefix, relayed)
        if relayed and other.awaits is not None:
            theirs = Splice((other.awaits - len(other.data)) % (1 << 32), bytes(other.data), relayed)
        else:
            theirs = Splice(numbers.acknowledgement, relayed=relayed)
        record.spliced = (mine, theirs) if outward else (theirs, mine)
        self.touched[record.id] = record
        yield RelaxTcp(record.key)

    def segment(
        self, record: FlowRecord, packet: Packet, data: memoryview, outward: bool, number: int, host: Host
    ) -> Iterator[Command]:
        """Any packet of a spliced stream. A verdict or a Postpone comes last, and is the packet's answer."""
        natted, spliced = record.natted, record.spliced
        if natted is None or spliced is None or packet.tcp_flags & SYN:
            return
        self.touched[record.id] = record
        mine, theirs = spliced if outward else (spliced[1], spliced[0])
        commands: list[Command] = []

        def ahead(head: bytes) -> None:
            if not self._nat.contacts(record, natted, head, record.id, host, commands):
                commands.append(report(record, number, "no-port"))

        by_host = outward == record.host_first
        names = Outward(self._nat.neighbours, natted, ahead) if by_host else self._nat.names(natted, by_host, host)
        numbers = tcp_numbers(data[: packet.length], packet.payload)
        sent = mine.segment(numbers.sequence, packet.payload, numbers.fin, names)
        if sent.later:
            yield Postpone(number, FOLLOWS)
            return
        if sent.lost:
            yield SetVerdict(number, "drop", 0)
            return
        clock = mine.clock(numbers.clock)
        covered = theirs.acknowledge(numbers.acknowledgement) if packet.tcp_flags & ACK else numbers.acknowledgement
        sacks = tuple(block for each in numbers.sacks if (block := theirs.selected(*each)) is not None)
        told = Numbers(sent.sequence, covered, sacks, numbers.fin and sent.fin, clock)
        yield from commands
        if told != numbers or sent.payload != packet.payload:
            yield RewritePayload(number, sent.payload, told)
        for result in mine.results:
            yield report(record, number, result)
        mine.results.clear()


def _relays(record: FlowRecord) -> bool:
    """A connection to a relay on which channels are bound: SIP may come in them."""
    return record.relay is not None and bool(record.relay.channels)
