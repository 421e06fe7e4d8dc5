"""Ports at which a phone listens beside the one that it sends from.

In: SIP that an inside host sends in datagrams. Out: its own ports to which the other end will send: Via's sent-by where
no `rport` asks for the source port (RFC 3261 section 18.2.2, RFC 3581 section 4), Contact (sections 8.1.1.8, 12.1).
What is named counts for the host itself, for the endpoint that was told, and for as long as there is a reason.
"""

from __future__ import annotations

import re
from collections import OrderedDict

from appid.alg.media import LOWEST_PORT
from appid.alg.registration import contact, contacts
from appid.decode import sip
from appid.wire import Endpoint, packed

MAX_PORTS = 4
"""That one message names."""
PER_HOST, MAX_NAMED = 64, 4096
"""Places: beyond its own share a host's oldest gives way, beyond that of all none is added."""
DEFAULT = 5060

_SENT_BY = re.compile(
    r"SIP\s{0,4}/\s{0,4}2\.0\s{0,4}/\s{0,4}UDP\s{1,16}(\[[0-9A-Fa-f:.]{2,45}\]|[\w.-]{1,255})(?:\s{0,4}:\s{0,4}(\d{1,5}))?(?=[\s;,]|$)",
    re.I,
)
_TRANSPORT = re.compile(r";transport=(?!udp(?:;|$))", re.I)


def listens(message: sip.Message, host: bytes, own: int) -> tuple[int, ...]:
    """Ports of `host` other than `own`, the one that the message comes from."""
    named: dict[int, None] = {}
    if message.method is not None:
        via = (message.header("via") or "").partition(",")[0]
        sent = _SENT_BY.match(via)
        if sent is not None and "rport" not in sip.parameters(via) and _may_be(sent[1], host):
            named[int(sent[2] or DEFAULT)] = None
    for value in contacts(message):
        uri = sip.address(value)
        there = contact(uri)
        plain = uri[:4].lower() == "sip:" and _TRANSPORT.search(uri) is None
        if plain and isinstance(there, Endpoint) and there.address == host:
            named[there.port] = None
    return tuple(port for port in named if port != own and LOWEST_PORT <= port <= 0xFFFF)[:MAX_PORTS]


def _may_be(sent_by: str, host: bytes) -> bool:
    """The answer goes to where the request came from, whatever name stands there (section 18.2.1); but who gives an
    address that is not his knows how the other end sees him, and asks for nothing here."""
    try:
        return packed(sent_by.strip("[]")) == host
    except ValueError:
        return True


class Listening:
    """What messages have named, by inside host: port, the endpoint that was told, Call-ID; each with a time."""

    def __init__(self) -> None:
        self._hosts: dict[bytes, OrderedDict[tuple[int, Endpoint, str], float]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def name(self, host: bytes, port: int, remote: Endpoint, call_id: str, until: float) -> None:
        """For the answer to this message, until then."""
        mine = self._hosts.get(host, OrderedDict())
        place = (port, remote, call_id)
        if place not in mine:
            if len(mine) >= PER_HOST:
                mine.popitem(last=False)
                self._count -= 1
            elif self._count >= MAX_NAMED:
                return
            self._count += 1
        mine[place] = until
        mine.move_to_end(place)
        self._hosts[host] = mine

    def named(self, host: bytes, port: int, remote: Endpoint) -> dict[str, float]:
        """Call-IDs for which this port was named to that end."""
        mine = self._hosts.get(host, OrderedDict[tuple[int, Endpoint, str], float]())
        return {each[2]: until for each, until in mine.items() if each[0] == port and each[1] == remote}

    def all(self) -> list[tuple[bytes, str, float]]:
        """Host, Call-ID, time of each place."""
        return [(host, place[2], until) for host, mine in self._hosts.items() for place, until in mine.items()]

    def forget(self, gone: set[tuple[bytes, str]]) -> None:
        """What was named by this host for that Call-ID."""
        for host in {host for host, _ in gone}:
            mine = self._hosts[host]
            for place in [place for place in mine if (host, place[2]) in gone]:
                del mine[place]
                self._count -= 1
            if not mine:
                del self._hosts[host]
