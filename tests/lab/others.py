"""Traffic that is no FaceTime, from the client: coturn with credentials, random UDP, plain TCP, web, a push connection.

In: a Lab with its Actors. Out: how much of each got through, counted at the far end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.lab.courier import Push
from tests.lab.net import Lab
from tests.lab.web import http_get
from tests.lab.wire_facetime import Address

UDP_COUNT = 40
TURN_COUNT = 20
TCP_COUNT = 20
RANDOM_PORT = 16402
"""One of Apple's: within `application-default`, so only the name can refuse it."""


class World:
    """Echoes: UDP on two ports, TCP on one. Counts what arrives from where."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.udp_arrived: dict[str, int] = {}
        self.tcp_arrived = 0
        self.server: asyncio.Server | None = None
        self.socks = [lab.udp("world", lab.scenario.world, port) for port in (RANDOM_PORT, lab.scenario.echo_port)]

    async def __aenter__(self) -> World:
        loop = asyncio.get_running_loop()
        for sock in self.socks:
            loop.add_reader(sock, self._echo, sock)
        s = self.lab.scenario
        self.server = await asyncio.start_server(self._serve, sock=self.lab.listener("world", s.world, s.echo_port))
        return self

    async def __aexit__(self, *_: object) -> None:
        for sock in self.socks:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        if self.server is not None:
            self.server.close()

    def _echo(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            data, source = sock.recvfrom(65535)
            self.udp_arrived[source[0]] = self.udp_arrived.get(source[0], 0) + 1
            sock.sendto(data, source)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while line := await reader.readline():
                self.tcp_arrived += 1
                writer.write(line)


@dataclass
class Others:
    """`*_arrived`: at the far end; `*_back`: at the client again."""

    turn_allocated: bool
    turn_echoed: int
    turn_arrived: int
    udp_arrived: int
    udp_back: int
    tcp_arrived: int
    web_status: int
    push: bool


async def try_others(lab: Lab, world: World) -> Others:
    """All of them at once, some seconds."""
    turn, udp_back, _, web, push = await asyncio.gather(_turn(lab), _random_udp(lab), _tcp(lab), _web(lab), _push(lab))
    s = lab.scenario
    return Others(
        turn["allocated"] is not None, turn["echoed"], world.udp_arrived.get(s.coturn, 0),
        world.udp_arrived.get(s.public, 0), udp_back, world.tcp_arrived, web, push,
    )  # fmt: skip


async def _turn(lab: Lab) -> dict[str, Any]:
    s = lab.scenario
    arguments = s.coturn, s.turn_user, s.turn_password, s.world, str(s.echo_port), str(TURN_COUNT)
    _, output = await lab.ask("client", sys.executable, "-m", "tests.lab.turn_client", *arguments)
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


async def _random_udp(lab: Lab) -> int:
    """Random bytes; what came back."""
    s = lab.scenario
    rng = Random(s.turn_password)
    back = 0
    with lab.udp("client", s.client) as sock:
        for _ in range(UDP_COUNT):
            with contextlib.suppress(OSError):
                sock.sendto(rng.randbytes(rng.randrange(40, 400)), (s.world, RANDOM_PORT))
            await asyncio.sleep(0.05)
            with contextlib.suppress(OSError):
                while sock.recv(2048):
                    back += 1
    return back


async def _tcp(lab: Lab) -> None:
    """Lines of no known protocol to a port of no known application."""
    s = lab.scenario
    with contextlib.suppress(OSError, EOFError, TimeoutError):
        async with asyncio.timeout(5):
            reader, writer = await lab.connect("client", s.client, (s.world, s.echo_port))
            try:
                for number in range(TCP_COUNT):
                    writer.write(b"line %d of nothing known\n" % number)
                    await reader.readline()
            finally:
                writer.transport.abort()


async def _web(lab: Lab) -> int:
    """Another host, another path; the status, 0 for none."""
    with contextlib.suppress(OSError, TimeoutError):
        address: Address = (lab.scenario.web, 80)
        reply = await http_get(lab, lab.scenario.client, address, "www.example.org", "/index.html")
        return int(reply.split()[1]) if reply else 0
    return 0


async def _push(lab: Lab) -> bool:
    """A push connection that serves no call: a device that writes to itself."""
    push = None
    try:
        async with asyncio.timeout(5):
            push = await Push.connect(lab, "client", lab.scenario.client, lab.scenario, "bystander")
            push.send({"to": "bystander"})
            return bool(await push.receive())
    except (OSError, EOFError, TimeoutError):
        return False
    finally:
        if push is not None:
            push.close()
