"""Source NAT of calls: what the inside host's endpoints are called outside, bound in the kernel before they are told.

In: SIP messages of allowed flows, and what the host's conntrack says of these flows. Out: bindings, and per message the
payload with the other side's names (alg/translate.py). Only endpoints of the sender itself are translated going out,
and only what stands for one of ours coming in: a public address that is nobody's mapping is left alone.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import NamedTuple

from appid.alg.headers import translate_head
from appid.alg.host import Host
from appid.alg.mappings import Mappings, Owner
from appid.alg.media import LOWEST_PORT, MAX_PORTS, runs
from appid.alg.names import Natted
from appid.alg.neighbours import Asking, Neighbours
from appid.alg.session import translate_session
from appid.alg.sides import Inward, Named, Outward
from appid.alg.translate import Result, translate_datagram
from appid.dataplane.command import BindNat, Command, Report, RewritePayload
from appid.decode import sdp, sip
from appid.decode.sdp import Description
from appid.engine.record import FlowRecord, Settings, Topology
from appid.engine.report import AnomalyReport, TranslationReport
from appid.engine.standing import Standing
from appid.policy.rule import holds
from appid.wire import TCP, UDP, DecodeError, Endpoint, Layer

BINDINGS = 4
"""So many mappings of an inside host for each pinhole that it may have: offers that nobody answered, signalling."""
MAX_CONTACTS = 4
"""Ports beside its own that one signalling flow may name for later requests (Contact, Via)."""
FIRST_PACKET = 10
"""Seconds for which the binding of a signalling flow's own port stands."""
MAX_RENAMED = 256
"""Bytes of a stream's first line that may have gone out before it was known for SIP."""

OPENS_MEDIA = "opens-media-flows"
"""The characteristic of applications that only signal."""


class Carried(NamedTuple):
    """One SIP message after translation: what must be done first, the description as the inside knows it."""

    commands: list[Command]
    description: Description | None
    bound: tuple[tuple[Endpoint, Endpoint, bytes], ...] = ()
    """Media ports that it names: inside, outside, peer. To be bound if the message counts."""


class NatKeeper:
    """The mappings of all calls and of their signalling, and the bindings that stand for signalling."""

    def __init__(self, settings: Settings, topology: Topology) -> None:
        self.mappings = Mappings(settings.share)
        self.neighbours = Neighbours(self.mappings, settings.outside)
        self.bindings = Standing()
        self._said: dict[Owner, dict[Endpoint, Endpoint]] = {}
        """What each dialog's descriptions have named, and which inside endpoint that is."""
        self.reload(settings, topology)

    def reload(self, settings: Settings, topology: Topology) -> None:
        """New settings; what is mapped stays."""
        self.settings = settings
        self.topology = topology
        self.neighbours.ours = settings.outside
        self.mappings.per_host = BINDINGS * settings.limits.pinholes_per_host
        self.ports = frozenset(
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
        by_host: bool, packet: int, host: Host,
    ) -> Carried:  # fmt: skip
        """One SIP message of an allowed flow, before anyone hears of it."""
        commands: list[Command] = []
        natted = self.natted(record, by_host, host, commands)
        message = layer.message
        if natted is None or not isinstance(message, sip.Message):
            return Carried(commands, description)
        call_id = str(next((fact.value for fact in layer.facts if fact.name == "sip.call_id"), ""))
        names = self.names(natted, by_host, host, peer, call_id)
        bound: list[tuple[Endpoint, Endpoint, bytes]] = []
        if by_host:
            owner = (call_id, record.host)
            by_call = message.method == "INVITE"
            enough = self.contacts(record, natted, message.head, owner if by_call else record.id, host, commands)
            if description is not None:
                enough = self._reserve(record, natted, description, peer, owner, host, bound) and enough
            if not enough:
                commands.append(told(record, packet, "no-port"))
                if self.mappings.full(record.host):
                    reason = f"not bound: a host has {self.mappings.per_host} ports"
                    commands.append(Report("anomaly", AnomalyReport(record.id, packet, "alg", reason, record.key)))
        elif description is not None and layer.inner is not None:
            description = _described(translate_session(bytes(layer.inner), names)) or description
            named = (media.connection or description.connection for media in description.media)
            self.neighbours.heard((call_id, record.host), (address for address in named if address is not None))
        if record.key.proto == UDP:
            commands += self._rewrite(record, payload, layer, names, packet)
        elif record.spliced is None:
            commands.append(told(record, packet, "partial"))
        return Carried(commands, description, tuple(bound))

    def names(
        self, natted: Natted, by_host: bool, host: Host, peer: bytes = b"", call_id: str = ""
    ) -> Outward | Inward:  # fmt: skip
        if by_host:
            return Outward(self.neighbours, natted)
        return Inward(self.neighbours, natted, Asking(host), peer, call_id)

    def settle(self, carried: Carried, now: float) -> Iterator[Command]:
        """The message has counted: what it named is bound before it goes on, so that what the other side sends at once
        comes to us, behind its answer, and not to the gateway itself."""
        for inside, outside, peer in carried.bound:
            if self.mappings.outside_of(UDP, inside, peer) == outside:
                yield from self.bindings.bind(UDP, inside, outside, peer, now)

    def _rewrite(
        self, record: FlowRecord, payload: memoryview, layer: Layer, names: Outward | Inward, packet: int
    ) -> Iterator[Command]:
        found = translate_datagram(bytes(payload), names, read=layer)
        if found is None or found.result == "unchanged":
            return
        if found.result == "translated":
            yield RewritePayload(packet, found.payload)
        yield told(record, packet, found.result)

    # -- signalling ----------------------------------------------------------------------------------------------

    def natted(self, record: FlowRecord, by_host: bool, host: Host, commands: list[Command]) -> Natted | None:
        """Where the flow's inside end is seen outside. Conntrack knows once a packet has passed; before that the host's
        rules say whether, and a binding of ours as what."""
        if record.placed:
            return record.natted
        inside, remote = Endpoint(record.host, record.host_port), record.far
        if self.topology.inside(remote.address):
            record.placed = True
            return None
        key = record.key if record.host_first else record.key.reversed()
        outside = host.mapped(key)
        if outside is not None:
            record.placed = True
            if outside == inside:
                return None
            self.mappings.note(key.proto, inside, outside, remote.address, record.id)
        elif not any(holds(network, record.host) for network in self.settings.masqueraded):
            return None
        else:
            address = min((a for a in self.settings.outside if len(a) == len(record.host)), default=None)
            if address is None:
                return None
            if not by_host:  # a port forwarding of the host's: its outside port is not known yet, ours is as good
                return Natted(key.proto, inside, Endpoint(address, inside.port), remote)
            ports = self._hold(key.proto, inside, address, remote, record.id, host)
            if ports is None:
                return None
            outside, record.placed = Endpoint(address, ports[0]), True
            # Only the first packet needs it: the entry that this makes keeps the mapping from then on.
            commands.append(BindNat(key.proto, *inside, *outside, remote.address, FIRST_PACKET, ()))
        record.natted = Natted(key.proto, inside, outside, remote)
        return record.natted

    def _hold(
        self, proto: int, inside: Endpoint, address: bytes, remote: Endpoint, owner: Owner, host: Host
    ) -> tuple[int, ...] | None:  # fmt: skip
        """An outside port towards one endpoint, which no flow of another host to that has."""

        def free(here: Endpoint, port: int) -> bool:
            there = Endpoint(address, port)
            return self.may(proto, inside.address, there, host) and host.behind(proto, there, remote) in (None, here)

        return self.mappings.hold(
            proto, inside.address, (inside.port,), address, remote.address, owner, free, media=False
        )

    def may(self, proto: int, inside: bytes, outside: Endpoint, host: Host) -> bool:
        """Whether an outside port may stand for one of this inside host, whoever says so: it is no service's (RFC 6335
        section 6), nobody's whom the host's own rules send it to, and not the gateway's own."""
        return (
            outside.port >= LOWEST_PORT
            and not any(
                each.first <= outside.port <= each.last and each.proto in (None, proto) and each.target != inside
                for each in self.settings.forwarded
            )
            and not host.owns(proto, outside)
        )

    def _fit(self, proto: int, inside: Endpoint, peer: bytes, host: Host) -> bool:
        """The same of the port that the host gave it already, if it has: for one flow, not for all of that peer."""
        known = self.mappings.outside_of(proto, inside, peer)
        return known is None or self.may(proto, inside.address, known, host)

    def contacts(
        self, record: FlowRecord, natted: Natted, head: bytes, owner: Owner, host: Host, commands: list[Command]
    ) -> bool:  # fmt: skip
        """Ports beside the flow's own, at which its sender wants to be called: a Contact of a TCP client, mostly. Out:
        whether there were enough."""
        named = Named()
        translate_head(head, named)
        address, proto, remote = natted.outside.address, natted.proto, natted.remote
        natted.knows = _says(named.found, natted, natted.knows)
        natted.knows_via = _says(named.vias, natted, natted.knows_via)
        others = [one for one in (*named.found, *named.vias) if one.address == record.host and one != natted.inside]
        given = 0
        for inside in others[:MAX_CONTACTS]:
            fit = inside.port >= LOWEST_PORT and self._fit(proto, inside, remote.address, host)
            ports = self._hold(proto, inside, address, remote, owner, host) if fit else None
            if ports is not None:
                given += 1
                outside = Endpoint(address, ports[0])
                commands += self.bindings.bind(proto, inside, outside, remote.address, record.last_seen)
        return given == len(others)

    # -- bindings ------------------------------------------------------------------------------------------------

    def held(self, owner: Owner) -> list[BindNat]:
        """The bindings that stand for this owner."""
        mine = ((each.proto, each.inside, each.peer) for each in self.mappings.held(owner))
        return [self.bindings.standing[key] for key in mine if key in self.bindings.standing]

    def restore(self, binding: BindNat, owner: Owner, now: float) -> None:
        """One known from before: its mapping holds again."""
        inside, outside = Endpoint(binding.inside, binding.port), Endpoint(binding.outside, binding.outside_port)
        if self.mappings.note(binding.proto, inside, outside, binding.peer, owner):
            self.bindings.put(binding, now)

    # -- media ---------------------------------------------------------------------------------------------------

    def _reserve(
        self, record: FlowRecord, natted: Natted, description: Description, peer: bytes, owner: Owner, host: Host,
        bound: list[tuple[Endpoint, Endpoint, bytes]],
    ) -> bool:  # fmt: skip
        """Outside ports for those that the inside host's description names. Out: whether there were enough."""
        address, enough = natted.outside.address, True
        application = self.settings.applications.get(record.naming.name or "")

        def fit(port: int) -> bool:
            opens = application is None or not application.media_ports or application.opens(port)
            return opens and self._fit(UDP, Endpoint(record.host, port), peer, host)

        def free(_here: Endpoint, port: int) -> bool:
            there = Endpoint(address, port)
            return _untaken(record, there, peer, host) and self.may(UDP, record.host, there, host)

        if len(natted.renamed) > MAX_RENAMED:
            natted.renamed.clear()
        named: set[int] = set()
        for media in description.media:
            for where, ports in runs(media):
                if where == record.host:
                    here = ports
                elif where == address:
                    here = tuple(self.inside_port(record, port) for port in ports)
                else:
                    continue
                named.update(here)
                if len(named) > MAX_PORTS:  # no call opens more
                    enough = False
                    continue
                if where == address:
                    ends = [(Endpoint(record.host, i), Endpoint(where, p)) for i, p in zip(here, ports, strict=True)]
                    if all(fit(inside.port) and free(inside, outside.port) for inside, outside in ends) and all(
                        self.mappings.note(UDP, inside, outside, peer, owner) for inside, outside in ends
                    ):
                        self._said.setdefault(owner, {}).update((outside, inside) for inside, outside in ends)
                        bound += [(inside, outside, peer) for inside, outside in ends]
                        continue
                given = None
                if all(map(fit, here)):
                    given = self.mappings.hold(UDP, record.host, here, address, peer, owner, free)
                enough = enough and given is not None
                for port, mine, there in zip(ports, here, given or (), strict=False):
                    natted.renamed[Endpoint(where, port)] = Endpoint(address, there)
                    self._said.setdefault(owner, {})[Endpoint(where, port)] = Endpoint(record.host, mine)
                    bound.append((Endpoint(record.host, mine), Endpoint(address, there), peer))
        return enough

    @staticmethod
    def inside_port(record: FlowRecord, port: int) -> int:
        """A client behind a relay names the port by which the world knows it: its own is the flow's."""
        known = record.relay.mapped if record.relay is not None else None
        return record.host_port if known is not None and known.port == port else port

    def outside_of(
        self, record: FlowRecord, inside: Endpoint, peer: bytes, owner: Owner, host: Host
    ) -> Endpoint | None:  # fmt: skip
        """By which endpoint `peer` knows an inside one; a mapping made towards the other end of the signalling holds
        towards the media's peer as well, if that port is free there."""
        found = self.mappings.outside_of(UDP, inside, peer)
        if found is None and record.natted is not None:
            told = self.mappings.outside_of(UDP, inside, record.remote)
            if told is not None and _untaken(record, told, peer, host):
                return told if self.mappings.note(UDP, inside, told, peer, owner) else None
        return found

    def served_by(
        self, record: FlowRecord, port: int, server: Endpoint, owner: Owner, host: Host, packet: int, now: float
    ) -> Iterator[Command]:  # fmt: skip
        """Media goes to a server of its own: what the inside host sends there leaves by the port that it was said to
        have, so that what comes back finds it. What the server sends first is judged by policy, as ever."""
        inside = Endpoint(record.host, self.inside_port(record, port))
        if record.natted is None:
            return
        outside = self.outside_of(record, inside, server.address, owner, host)
        if outside is None:
            yield told(record, packet, "no-port")
        else:
            yield from self.bindings.bind(UDP, inside, outside, server.address, now, (server.port,))

    def behind_relay(self, record: FlowRecord, peer: bytes, host: Host) -> Endpoint | None:
        """As what the relay sees the inside host, if that is behind us: what it tells its peers of itself. A relay may
        say anything; conntrack knows."""
        known = record.relay.mapped if record.relay is not None else None
        if known is None or known.address == record.host or known.address not in self.settings.outside:
            return None
        inside, key = (
            Endpoint(record.host, record.host_port),
            record.key if record.host_first else record.key.reversed(),
        )
        if host.mapped(key) not in (None, known) or not self.may(UDP, record.host, known, host):
            return None
        return known if self.mappings.note(UDP, inside, known, peer, record.id) else None

    def faces(self, inside: Endpoint, peer: bytes) -> bool:
        """Whether this peer knows that inside endpoint for media, by a mapping of ours: both ends are behind us."""
        return self.neighbours.faces(inside, peer)

    # -- ends and time -------------------------------------------------------------------------------------------

    def sweep(self, living: Container[int]) -> Iterator[Command]:
        """Signalling flows that are followed no more, however that came."""
        for owner in self.mappings.flows():
            if owner not in living:
                yield from self.release(owner)

    def trim(self, owner: Owner, spoken: Iterable[Description]) -> Iterator[Command]:
        """A dialog has agreed anew, or has not: what its descriptions named, and none that counts does, is free."""
        said = self._said.get(owner)
        if not said:
            return
        named = {
            Endpoint(where, port)
            for description in spoken for media in description.media
            for where, ports in runs(media) if where is not None for port in ports
        }  # fmt: skip
        for place in [place for place in said if place not in named]:
            inside = said.pop(place)
            if inside not in said.values():
                for gone in self.mappings.release(owner, (inside,)):
                    yield from self.bindings.unbind(gone.proto, gone.inside, gone.peer)

    def release(self, owner: Owner) -> Iterator[Command]:
        """A dialog or a signalling flow is over."""
        self._said.pop(owner, None)
        self.neighbours.forget(owner)
        for gone in self.mappings.release(owner):
            yield from self.bindings.unbind(gone.proto, gone.inside, gone.peer)


def _untaken(record: FlowRecord, outside: Endpoint, peer: bytes, host: Host) -> bool:
    """Whether no other host's flow to that peer has this outside endpoint."""
    holder = host.taken(UDP, outside.address, peer).get(outside.port)
    return holder is None or holder.address == record.host


def _says(named: Iterable[Endpoint], natted: Natted, before: bool) -> bool:
    """Whether a flow's inside end calls itself by its outside address; as before where it names neither."""
    addresses = {one.address for one in named}
    if natted.inside.address in addresses:
        return False
    return before or natted.outside.address in addresses


def told(record: FlowRecord, packet: int, result: Result) -> Report:
    return Report("translation", TranslationReport(record.id, packet, result))


def _described(text: bytes) -> Description | None:
    try:
        layer = sdp.decode(memoryview(text))
    except DecodeError:
        return None
    return layer.message if layer is not None and isinstance(layer.message, Description) else None
