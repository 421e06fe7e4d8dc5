"""Datagrams that keep a path open and say nothing: they do not spend the budget of an undecided flow.

In: a datagram, its layers, its flow. Out: whether it is only that. A phone registers once an hour and keeps its path
alive every 15 to 30 s; a gateway that comes up in between would otherwise give its flow up before the first message.
What counts: line ends or zero bytes alone (RFC 5626 section 3.5.1, as phones send it over UDP), and messages of the
protocols by which an application's file says that its path is kept (RFC 5626 section 3.5.2: STUN), on its own ports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from appid.engine.record import FlowRecord
from appid.identify.application import Application, PortRange
from appid.packet import Packet
from appid.wire import UDP, Layer

MAX_BLANK: Final = 8
"""Bytes of a datagram of line ends or zeros."""
MAX_MESSAGE: Final = 128
"""Bytes of a message that keeps a path: a Binding response with its addresses, SOFTWARE and FINGERPRINT."""
PACKETS: Final = 1024
"""Packets of a flow, both directions, after which these count as any other: some hours of them."""
_BLANK: Final = b"\r\n\0"


class Keepalives:
    """Which ports are kept alive by messages of which protocol."""

    def __init__(self, applications: Iterable[Application]) -> None:
        self._ports: dict[str, tuple[PortRange, ...]] = {}
        for one in applications:
            for name in one.kept_alive_by:
                self._ports[name] = (*self._ports.get(name, ()), *one.default_ports)

    def only(self, record: FlowRecord, packet: Packet, layers: tuple[Layer, ...]) -> bool:
        """Whether this packet of the flow is only that."""
        key, payload = record.key, packet.payload
        if key.proto != UDP or packet.fragment or record.userspace_packets > PACKETS:
            return False
        if not layers:
            return 0 < len(payload) <= MAX_BLANK and not bytes(payload).strip(_BLANK)
        if len(layers) > 1 or layers[0].inner is not None or len(payload) > MAX_MESSAGE:
            return False
        server = record.far.port
        ports = self._ports.get(layers[0].name, ())
        return any(one.proto == UDP and one.first <= server <= one.last for one in ports)
