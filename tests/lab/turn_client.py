"""A program: an allocation with credentials on coturn by aioice's client, datagrams through it to an echo.

In: argv: server, user, password, echo address, echo port, count. Out: {"allocated": .., "echoed": ..} on stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

from aioice import turn

from tests.lab.turn_server import PORT


class _Counter(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.echoed = 0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.echoed += data.startswith(b"media ")


async def main(server: str, user: str, password: str, echo: str, port: str, count: str) -> None:
    """Gives up after some seconds: a firewall in between answers nothing."""
    counter = _Counter()
    relayed = None
    with contextlib.suppress(
        Exception
    ):  # whatever a cut connection makes of aioice: the line of JSON says how far it got
        async with asyncio.timeout(6):
            transport, _ = await turn.create_turn_endpoint(
                lambda: counter, server_addr=(server, PORT), username=user, password=password, transport="udp"
            )
            relayed = transport.get_extra_info("sockname")
            for number in range(int(count)):
                transport.sendto(b"media %d " % number + bytes(160), (echo, int(port)))
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
    print(json.dumps({"allocated": relayed, "echoed": counter.echoed}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
