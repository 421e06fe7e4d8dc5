"""The report's TURN relay: token, XOR-RELAYED-ADDRESS in the request, no challenge, late bind answer.

In: a client's TURN messages and ChannelData on one port, a peer's bare datagrams on the relayed port. Out: the other's.
Also answers the 16-byte probe on port 16403.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass

from tests.lab.net import Lab
from tests.lab.scenario import Scenario
from tests.lab.wire_facetime import (
    ALLOCATE,
    CHANNEL_BIND,
    CHANNEL_NUMBER,
    ERROR,
    ERROR_CODE,
    LIFETIME,
    REFRESH,
    RESERVATION_TOKEN,
    SUCCESS,
    XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS,
    Address,
    Stun,
    allocated,
    channel_data,
    read_channel_data,
    read_stun,
    snatmap_reply,
    stun,
    u32,
)

SNATMAP_PORT = 16403
ALLOCATE_DELAY = 0.4
"""Seconds: the client's web request fits in between, as packets 60, 64, 82 of the report."""


@dataclass
class Allocation:
    token: bytes
    channels: dict[int, Address]
    binds: dict[bytes, int]


class Relay:
    """One relay address: a TURN port and a relayed port, shared by its allocations and told apart by the peer."""

    def __init__(self, lab: Lab, scenario: Scenario) -> None:
        self.loop = asyncio.get_running_loop()
        self.relayed = (scenario.relay, scenario.relayed_port)
        self.server = lab.udp("apple", scenario.relay, scenario.relay_port)
        self.outer = lab.udp("apple", *self.relayed)
        self.allocations: dict[Address, Allocation] = {}
        self.peers: dict[Address, tuple[Address, int]] = {}
        self.loop.add_reader(self.server, self._from_client)
        self.loop.add_reader(self.outer, self._from_peer)

    def close(self) -> None:
        for sock in (self.server, self.outer):
            self.loop.remove_reader(sock)
            sock.close()

    def _from_client(self) -> None:
        for data, client in _drain(self.server):
            if (framed := read_channel_data(data)) is not None:
                peer = self.allocations[client].channels.get(framed[0]) if client in self.allocations else None
                if peer is not None:
                    _send(self.outer, framed[1], peer)
            elif (message := read_stun(data)) is not None:
                self._turn(message, client)

    def _from_peer(self) -> None:
        for data, peer in _drain(self.outer):
            if peer in self.peers:
                client, channel = self.peers[peer]
                _send(self.server, channel_data(channel, data), client)

    def _turn(self, message: Stun, client: Address) -> None:
        if message.type == ALLOCATE:
            self._allocate(message, client)
        elif client not in self.allocations:
            self._refuse(message, client, 437, b"Allocation Mismatch")
        elif message.type == CHANNEL_BIND:
            self._bind(message, client, self.allocations[client])
        elif message.type == REFRESH:
            _send(self.server, stun(REFRESH | SUCCESS, message.transaction, (LIFETIME, u32(0))), client)
            if message.number(LIFETIME) == 0:
                self._release(client)

    def _allocate(self, message: Stun, client: Address) -> None:
        token = message.get(RESERVATION_TOKEN)
        if token is None or message.address(XOR_RELAYED_ADDRESS) != self.relayed:
            return self._refuse(message, client, 400, b"Bad Request")
        if client not in self.allocations:
            self.allocations[client] = Allocation(token, {}, {})
            answer = allocated(message.transaction, self.relayed, client)
            self.loop.call_later(ALLOCATE_DELAY, _send, self.server, answer, client)
        return None

    def _bind(self, message: Stun, client: Address, allocation: Allocation) -> None:
        """Takes effect at once; the first request's answer is lost, its repetition's is not (packets 121, 156, 158)."""
        channel = message.number(CHANNEL_NUMBER) >> 16
        peer = message.address(XOR_PEER_ADDRESS)
        if peer is None:
            return self._refuse(message, client, 400, b"Bad Request")
        allocation.channels[channel] = peer
        self.peers[peer] = (client, channel)
        allocation.binds[message.transaction] = allocation.binds.get(message.transaction, 0) + 1
        if allocation.binds[message.transaction] > 1:
            _send(self.server, stun(CHANNEL_BIND | SUCCESS, message.transaction), client)
        return None

    def _release(self, client: Address) -> None:
        del self.allocations[client]
        self.peers = {peer: to for peer, to in self.peers.items() if to[0] != client}

    def _refuse(self, message: Stun, client: Address, code: int, reason: bytes) -> None:
        value = struct.pack(">HBB", 0, code // 100, code % 100) + reason
        _send(self.server, stun(message.type | ERROR, message.transaction, (ERROR_CODE, value)), client)


class Snatmap:
    """Answers probes with the address it saw."""

    def __init__(self, lab: Lab) -> None:
        self.loop = asyncio.get_running_loop()
        self.sock = lab.udp("apple", lab.scenario.snatmap, SNATMAP_PORT)
        self.loop.add_reader(self.sock, self._readable)

    def close(self) -> None:
        self.loop.remove_reader(self.sock)
        self.sock.close()

    def _readable(self) -> None:
        for data, source in _drain(self.sock):
            if len(data) == 16:
                _send(self.sock, snatmap_reply(data, source), source)


def _drain(sock: socket.socket) -> list[tuple[bytes, Address]]:
    taken: list[tuple[bytes, Address]] = []
    with contextlib.suppress(OSError):
        while len(taken) < 64:
            data, source = sock.recvfrom(65535)
            taken.append((data, source[:2]))
    return taken


def _send(sock: socket.socket, data: bytes, where: Address) -> None:
    with contextlib.suppress(OSError):
        sock.sendto(data, where)
