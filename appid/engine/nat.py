"""Source NAT of calls: what the inside host's endpoints are called outside, bound in the kernel before they are told.

In: SIP messages of allowed flows, and what the host's conntrack says of these flows. Out: bindings, and per message the
payload with the other side's names (alg/translate.py). Only endpoints of the sender itself are translated going out,
and only what stands for one of ours coming in: a public address that is nobody's mapping is left alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator
from typing import NamedTuple

from appid.alg.headers import translate_head
from appid.alg.mappings import Mappings, Owner
from appid.alg.media import runs
from appid.alg.names import Natted
from appid.alg.session import translate_session
from appid.alg.splice import Splice
from appid.alg.translate import Result, translate_datagram
from appid.dataplane.command import BindNat, Command, RelaxTcp, Report, RewritePayload, UnbindNat
from appid.dataplane.rewrite import Numbers, tcp_numbers
from appid.decode import sdp, sip
from appid.decode.sdp import Description
from appid.engine.record import FlowRecord, Settings, Topology
from appid.engine.report import TranslationReport
from appid.packet import ACK, SYN, Packet
from appid.policy.rule import holds
from appid.wire import TCP, UDP, DecodeError, Endpoint, FlowKey, Layer

BINDING_TIMEOUT = 300
"""Seconds the kernel keeps a binding without hearing of it again: the bound if the engine is gone."""
MAX_CONTACTS = 4
"""Ports beside its own that one signalling flow may name for later requests (Contact, Via)."""
FIRST_PACKET = 10
"""Seconds for which the binding of a signalling flow's own port stands."""
MAX_PLACES = 65536
MAX_FLOWS_OF_PORT = 8
"""Datagram flows that are remembered, and of one port to one peer."""
MAX_RENAMED = 256
MAX_PREFIX = 1024
"""Bytes of a stream's first line that may have gone out before it was known for SIP."""

OPENS_MEDIA = "opens-media-flows"
"""The characteristic of applications that only signal."""

MappedOf = Callable[[FlowKey], Endpoint | None]


class Carried(NamedTuple):
    """One SIP message after translation: what must be done first, the description as the inside knows it."""

    commands: list[Command]
    description: Description | None
    bound: tuple[tuple[Endpoint, Endpoint, bytes], ...] = ()
    """Media ports that it names: inside, outside, peer. To be bound if the message counts."""


class _Named:
    """Collects the endpoints that headers name; translates nothing."""

    def __init__(self) -> None:
        self.found: dict[Endpoint, None] = {}
        self.vias: dict[Endpoint, None] = {}

    def signalling(self, named: Endpoint) -> None:
        self.found[named] = None

    def via(self, named: Endpoint) -> None:
        self.vias[named] = None

    def media(self, named: Endpoint) -> None: ...

    def host(self, named: bytes) -> None: ...

    def seen(self, named: bytes) -> None: ...

    def session(self, named: bytes) -> None: ...


class Outward(NamedTuple):
    """What the inside host says of itself."""

    mappings: Mappings
    natted: Natted

    def signalling(self, named: Endpoint) -> Endpoint | None:
        natted = self.natted
        if named.address != natted.inside.address:
            return None
        if named == natted.inside:
            return natted.outside
        return self.mappings.outside_of(natted.proto, named, natted.remote)

    def via(self, named: Endpoint) -> Endpoint | None:
        return self.signalling(named)

    def media(self, named: Endpoint) -> Endpoint | None:
        return self.natted.renamed.get(named)

    def host(self, named: bytes) -> bytes | None:
        return self.natted.outside.address if named == self.natted.inside.address else None

    def seen(self, named: bytes) -> bytes | None:
        return self.host(named)

    def session(self, named: bytes) -> bytes | None:
        return self.host(named)


class Inward(NamedTuple):
    """What the outside says of ours; `peer` is who says it."""

    mappings: Mappings
    natted: Natted
    peer: bytes

    def signalling(self, named: Endpoint) -> Endpoint | None:
        return None if self.natted.knows else self._inside(named)

    def via(self, named: Endpoint) -> Endpoint | None:
        return None if self.natted.knows_via else self._inside(named)

    def _inside(self, named: Endpoint) -> Endpoint | None:
        natted = self.natted
        if named == natted.outside:
            return natted.inside
        return self.mappings.inside_of(natted.proto, named, natted.remote)

    def media(self, named: Endpoint) -> Endpoint | None:
        return self.mappings.inside_of(UDP, named, self.peer)

    def host(self, named: bytes) -> bytes | None:
        return None if self.natted.knows else self._host(named)

    def seen(self, named: bytes) -> bytes | None:
        return None if self.natted.knows_via else self._host(named)

    def _host(self, named: bytes) -> bytes | None:
        return self.natted.inside.address if named == self.natted.outside.address else None

    def session(self, named: bytes) -> None:
        """An address without a port may stand for any inside host."""


class NatKeeper:
    """The mappings of all calls and of their signalling, and the bindings that stand for signalling."""

    def __init__(self, settings: Settings, topology: Topology) -> None:
        self.mappings = Mappings(settings.share)
        self.standing: dict[tuple[int, Endpoint, bytes], BindNat] = {}
        self._flows: OrderedDict[tuple[int, Endpoint, bytes], tuple[int, ...]] = OrderedDict()
        self.reload(settings, topology)

    def reload(self, settings: Settings, topology: Topology) -> None:
        """New settings; what is mapped stays."""
        self.settings = settings
        self.topology = topology
        self._ports = frozenset(
            port
            for application in settings.applications.values()
            if OPENS_MEDIA in application.characteristics
            for r in application.default_ports
            if r.proto == TCP
            for port in range(r.first, r.last + 1)
        )

    # -- one message ---------------------------------------------------------------------------------------------

    def carry(
        self, record: FlowRecord, payload: memoryview, layer: Layer, description: Description | None, peer: bytes,
        by_host: bool, packet: int, mapped: MappedOf,
    ) -> Carried:  # fmt: skip
        """One SIP message of an allowed flow, before anyone hears of it."""
        commands: list[Command] = []
        natted = self._natted(record, by_host, mapped, commands)
        message = layer.message
        if natted is None or not isinstance(message, sip.Message):
            return Carried(commands, description)
        names = Outward(self.mappings, natted) if by_host else Inward(self.mappings, natted, peer)
        bound: list[tuple[Endpoint, Endpoint, bytes]] = []
        if by_host:
            call_id = next((fact.value for fact in layer.facts if fact.name == "sip.call_id"), "")
            owner = (str(call_id), record.host)
            self._contacts(record, natted, message, owner if message.method == "INVITE" else record.id, commands)
            if description is not None and not self._reserve(record, natted, description, peer, owner, bound):
                commands.append(_told(record, packet, "no-port"))
        elif description is not None and layer.inner is not None:
            description = _described(translate_session(bytes(layer.inner), names)) or description
        if record.key.proto == UDP:
            commands += self._rewrite(record, payload, names, packet)
        elif record.spliced is None:
            commands.append(_told(record, packet, "partial"))
        return Carried(commands, description, tuple(bound))

    def settle(self, carried: Carried) -> Iterator[Command]:
        """The message has counted: what it named is bound before it goes on, so that what the other side sends at once
        comes to us, behind its answer, and not to the gateway itself."""
        for inside, outside, peer in carried.bound:
            if self.mappings.outside_of(UDP, inside, peer) == outside:
                yield from self.bind(UDP, inside, outside, peer)

    def _rewrite(
        self, record: FlowRecord, payload: memoryview, names: Outward | Inward, packet: int
    ) -> Iterator[Command]:
        found = translate_datagram(bytes(payload), names)
        if found is None or found.result == "unchanged":
            return
        if found.result == "translated":
            yield RewritePayload(packet, found.payload)
        yield _told(record, packet, found.result)

    # -- streams -------------------------------------------------------------------------------------------------

    def awaits(self, record: FlowRecord) -> bool:
        """Whether this stream may be signalling that will be translated: then its beginning must be seen first."""
        begun_at = record.key.dport in self._ports
        return begun_at and any(holds(network, record.host) for network in self.settings.masqueraded)

    def prefix(self, record: FlowRecord, outward: bool) -> bytes | None:
        """What a stream has sent before anybody knew what it is; None once that is known."""
        side = 0 if outward else 1
        if record.streams is None or record.spliced is not None or record.opening[side]:
            return None
        if record.streams[side].waiting and not self.awaits(record):
            return None  # what comes later has gone out as it was
        return bytes(record.streams[side].data[: MAX_PREFIX + 1])

    def early(self, record: FlowRecord, outward: bool) -> bool:
        """Whether a segment must come again: its stream's beginning, which decides what becomes of it, is not there."""
        side = 0 if outward else 1
        if record.streams is None or record.spliced is not None or record.opening[side]:
            return False
        return record.streams[side].waiting > 0 and self.awaits(record)

    def spliceable(self, record: FlowRecord, outward: bool) -> bool:
        """Whether a stream that begins as SIP may be translated: not yet refused, whatever its name will be."""
        allowed = record.decision is None or record.decision.action == "allow"
        return allowed and not self.settings.monitor and record.opened_with("sip", outward)

    def splice(
        self, record: FlowRecord, packet: Packet, data: memoryview, outward: bool, prefix: bytes, mapped: MappedOf
    ) -> Iterator[Command]:
        """A stream shows its first SIP, whole or not: from here on its bytes may change. `prefix`: what of it has gone
        out before."""
        commands: list[Command] = []
        natted = self._natted(record, outward == record.host_first, mapped, commands)
        yield from commands
        if natted is None or len(prefix) > MAX_PREFIX:
            return
        numbers = tcp_numbers(data[: packet.length], packet.payload)
        mine = Splice((numbers.sequence - len(prefix)) & 0xFFFFFFFF, prefix)
        theirs = Splice(numbers.acknowledgement)
        record.spliced = (mine, theirs) if outward else (theirs, mine)
        yield RelaxTcp(record.key)

    def segment(
        self, record: FlowRecord, packet: Packet, data: memoryview, outward: bool, number: int
    ) -> Iterator[Command]:
        """Any packet of a spliced stream."""
        natted, spliced = record.natted, record.spliced
        if natted is None or spliced is None or packet.tcp_flags & SYN:
            return
        mine, theirs = spliced if outward else (spliced[1], spliced[0])
        by_host = outward == record.host_first
        names = Outward(self.mappings, natted) if by_host else Inward(self.mappings, natted, record.remote)
        numbers = tcp_numbers(data[: packet.length], packet.payload)
        sent = mine.segment(numbers.sequence, packet.payload, numbers.fin, names)
        covered = theirs.acknowledge(numbers.acknowledgement) if packet.tcp_flags & ACK else numbers.acknowledgement
        sacks = tuple(block for each in numbers.sacks if (block := theirs.selected(*each)) is not None)
        told = Numbers(sent.sequence, covered, sacks, numbers.fin and sent.fin)
        if told != numbers or sent.payload != packet.payload:
            yield RewritePayload(number, sent.payload, told)
        for result in mine.results:
            yield _told(record, number, result)
        mine.results.clear()

    # -- signalling ----------------------------------------------------------------------------------------------

    def _natted(self, record: FlowRecord, by_host: bool, mapped: MappedOf, commands: list[Command]) -> Natted | None:
        """Where the flow's inside end is seen outside. Conntrack knows once a packet has passed; before that the host's
        rules say whether, and a binding of ours as what."""
        if record.placed:
            return record.natted
        inside, remote = Endpoint(record.host, record.host_port), record.remote
        if self.topology.inside(remote):
            record.placed = True
            return None
        key = record.key if record.host_first else record.key.reversed()
        outside = mapped(key)
        if outside is not None:
            record.placed = True
            if outside == inside:
                return None
            self.mappings.note(key.proto, inside, outside, remote, record.id)
        elif not any(holds(network, record.host) for network in self.settings.masqueraded):
            return None
        else:
            address = min((a for a in self.settings.outside if len(a) == len(record.host)), default=None)
            if address is None:
                return None
            if not by_host:  # a port forwarding of the host's: its outside port is not known yet, ours is as good
                return Natted(key.proto, inside, Endpoint(address, inside.port), remote)
            ports = self.mappings.hold(key.proto, inside.address, (inside.port,), address, remote, record.id)
            if ports is None:
                return None
            outside, record.placed = Endpoint(address, ports[0]), True
            # Only the first packet needs it: the entry that this makes keeps the mapping from then on.
            commands.append(BindNat(key.proto, *inside, *outside, remote, FIRST_PACKET, ()))
        record.natted = Natted(key.proto, inside, outside, remote)
        return record.natted

    def _contacts(
        self, record: FlowRecord, natted: Natted, message: sip.Message, owner: Owner, commands: list[Command]
    ) -> None:
        """Ports beside the flow's own, at which its sender wants to be called: a Contact of a TCP client, mostly."""
        named = _Named()
        translate_head(message.head, named)
        host, address, proto, remote = natted.inside.address, natted.outside.address, natted.proto, natted.remote
        natted.knows = _says(named.found, natted, natted.knows)
        natted.knows_via = _says(named.vias, natted, natted.knows_via)
        others = [one for one in (*named.found, *named.vias) if one.address == host and one != natted.inside]
        for inside in others[:MAX_CONTACTS]:
            ports = self.mappings.hold(proto, host, (inside.port,), address, remote, owner)
            if ports is not None:
                commands += self.bind(proto, inside, Endpoint(address, ports[0]), remote)

    # -- bindings ------------------------------------------------------------------------------------------------

    def bind(
        self, proto: int, inside: Endpoint, outside: Endpoint, peer: bytes, peer_ports: tuple[int, ...] = ()
    ) -> Iterator[Command]:
        """The mapping into the kernel, if it is not there. `peer_ports`: what the peer has announced."""
        key = (proto, inside, peer)
        standing = self.standing.get(key)
        if standing is None or (standing.outside, standing.outside_port) != outside:
            known = (*peer_ports, *self._flows.get(key, ()))
            self.standing[key] = BindNat(proto, *inside, *outside, peer, BINDING_TIMEOUT, known)
            yield self.standing[key]

    def restore(self, binding: BindNat, owner: Owner) -> None:
        """One known from before: its mapping holds again."""
        inside, outside = Endpoint(binding.inside, binding.port), Endpoint(binding.outside, binding.outside_port)
        if self.mappings.note(binding.proto, inside, outside, binding.peer, owner):
            self.standing[binding.proto, inside, binding.peer] = binding

    def unbind(self, proto: int, inside: Endpoint, peer: bytes) -> Iterator[Command]:
        """It is not needed any more."""
        gone = self.standing.pop((proto, inside, peer), None)
        if gone is not None:
            yield UnbindNat(gone.proto, gone.inside, gone.port, gone.outside, gone.outside_port, gone.peer)

    def saw(self, key: FlowKey) -> None:
        """A datagram flow from inside begins: should its port be bound, it must begin anew."""
        place = (key.proto, key.source, key.dst)
        ports = self._flows.get(place, ())
        if len(ports) < MAX_FLOWS_OF_PORT:
            self._flows[place] = (*ports, key.dport)
        if len(self._flows) > MAX_PLACES:
            self._flows.popitem(last=False)

    def gone(self, key: FlowKey) -> None:
        """It has ended."""
        place = (key.proto, key.source, key.dst)
        ports = tuple(port for port in self._flows.get(place, ()) if port != key.dport)
        if ports:
            self._flows[place] = ports
        else:
            self._flows.pop(place, None)

    # -- media ---------------------------------------------------------------------------------------------------

    def _reserve(
        self, record: FlowRecord, natted: Natted, description: Description, peer: bytes, owner: Owner,
        bound: list[tuple[Endpoint, Endpoint, bytes]],
    ) -> bool:  # fmt: skip
        """Outside ports for those that the inside host's description names. Out: whether there were enough."""
        address, enough = natted.outside.address, True
        if len(natted.renamed) > MAX_RENAMED:
            natted.renamed.clear()
        for media in description.media:
            for where, ports in runs(media):
                if where == record.host:
                    here = ports
                elif where == address:
                    here = tuple(self.inside_port(record, port) for port in ports)
                    ends = [(Endpoint(record.host, i), Endpoint(where, p)) for i, p in zip(here, ports, strict=True)]
                    if all(self.mappings.note(UDP, inside, outside, peer, owner) for inside, outside in ends):
                        bound += [(inside, outside, peer) for inside, outside in ends]
                        continue
                else:
                    continue
                given = self.mappings.hold(UDP, record.host, here, address, peer, owner)
                enough = enough and given is not None
                for port, mine, there in zip(ports, here, given or (), strict=False):
                    natted.renamed[Endpoint(where, port)] = Endpoint(address, there)
                    bound.append((Endpoint(record.host, mine), Endpoint(address, there), peer))
        return enough

    @staticmethod
    def inside_port(record: FlowRecord, port: int) -> int:
        """A client behind a relay names the port by which the world knows it: its own is the flow's."""
        known = record.relay.mapped if record.relay is not None else None
        return record.host_port if known is not None and known.port == port else port

    def outside_of(self, record: FlowRecord, inside: Endpoint, peer: bytes, owner: Owner) -> Endpoint | None:
        """By which endpoint `peer` knows an inside one; a mapping made towards the other end of the signalling holds
        towards the media's peer as well, if that port is free there."""
        found = self.mappings.outside_of(UDP, inside, peer)
        if found is None and record.natted is not None:
            told = self.mappings.outside_of(UDP, inside, record.remote)
            if told is not None and self.mappings.note(UDP, inside, told, peer, owner):
                return told
        return found

    def behind_relay(self, record: FlowRecord, peer: bytes) -> Endpoint | None:
        """As what the relay sees the inside host, if that is behind us: what it tells its peers of itself."""
        known = record.relay.mapped if record.relay is not None else None
        if known is None or known.address == record.host or known.address not in self.settings.outside:
            return None
        inside = Endpoint(record.host, record.host_port)
        return known if self.mappings.note(UDP, inside, known, peer, record.id) else None

    def faces(self, inside: Endpoint, peer: bytes) -> bool:
        """Whether this peer knows that inside endpoint by a mapping of ours: both ends of a call are behind us."""
        return self.mappings.outside_of(UDP, inside, peer) is not None

    # -- ends and time -------------------------------------------------------------------------------------------

    def sweep(self, living: Container[int]) -> Iterator[Command]:
        """Signalling flows that are followed no more, however that came."""
        for owner in self.mappings.flows():
            if owner not in living:
                yield from self.release(owner)

    def release(self, owner: Owner) -> Iterator[Command]:
        """A dialog or a signalling flow is over."""
        for gone in self.mappings.release(owner):
            yield from self.unbind(gone.proto, gone.inside, gone.peer)


def _says(named: Iterable[Endpoint], natted: Natted, before: bool) -> bool:
    """Whether a flow's inside end calls itself by its outside address; as before where it names neither."""
    addresses = {one.address for one in named}
    if natted.inside.address in addresses:
        return False
    return before or natted.outside.address in addresses


def _told(record: FlowRecord, packet: int, result: Result) -> Report:
    return Report("translation", TranslationReport(record.id, packet, result))


def _described(text: bytes) -> Description | None:
    try:
        layer = sdp.decode(memoryview(text))
    except DecodeError:
        return None
    return layer.message if layer is not None and isinstance(layer.message, Description) else None
