"""Until when a registrar may call a phone: the flow that registered it is the way by which it does.

In: REGISTER of an inside host, and what answers it. Out: registrations, each with its end: the answer's `expires` for
our Contact, else its Expires, else what was asked for, else 3600 s (RFC 3261 sections 10.2.1.1, 10.2.4, 10.3, 20.10).
An answer counts that has the request's Call-ID, CSeq and tag, and comes from the very endpoint that was asked.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from appid.alg.headers import endpoint
from appid.decode import sip
from appid.flow.key import FlowKey
from appid.wire import Endpoint

DEFAULT, LONGEST = 3600, 86400
"""Seconds where nobody says, or says it badly (section 20.10); and at most."""
PER_HOST, MAX_FLOWS = 16, 8192
"""Flows with a registration: beyond its own share a host's oldest gives way, beyond that of all none is added."""
PER_FLOW = 64
"""Addresses of record that are registered on one flow; beyond it the one that ends first gives way."""
MAX_HOSTS, ASKED_PER_HOST = 4096, 32
"""Requests that wait for their answer."""
LISTED, LENGTH = 16, 4096
"""Contacts of a message that are looked at, and characters of all of them."""

_URI = re.compile(
    r"sips?:(?:[^@<>\s]{0,256}@)?(\[[0-9A-Fa-f:.]{2,45}\]|\d{1,3}(?:\.\d{1,3}){3})(?::(\d{1,5}))?(?=[;?]|$)", re.I
)

Contact = Endpoint | str
"""Where a URI leads: an endpoint, or the URI without its parameters where it names none."""


@dataclass(slots=True)
class Registration:
    """One flow to a registrar. `until`: by address of record, the time (seconds) at which it ends; `ports`: other ports
    of the host, at which it wants to be called (alg/listening.py)."""

    flow: FlowKey
    host: bytes
    until: dict[str, float] = field(default_factory=dict)
    ports: tuple[int, ...] = ()

    def lasts(self) -> float:
        return max(self.until.values(), default=0.0)

    def beside(self) -> list[FlowKey]:
        """The flows that the registrar may begin."""
        here, registrar = self.flow.source, self.flow.destination
        if here.address != self.host:
            here, registrar = registrar, here
        return [FlowKey(self.flow.proto, *registrar, here.address, port) for port in self.ports]


@dataclass(frozen=True, slots=True)
class _Asked:
    flow: FlowKey
    remote: Endpoint
    tag: str | None
    name: str
    contacts: frozenset[Contact]
    seconds: int
    ports: tuple[int, ...]


class Registrations:
    """Those of all inside hosts."""

    def __init__(self) -> None:
        self.flows: dict[FlowKey, Registration] = {}
        self._hosts: dict[bytes, dict[FlowKey, None]] = {}
        self._asked: OrderedDict[bytes, OrderedDict[tuple[str, int], _Asked]] = OrderedDict()

    def asked(
        self, message: sip.Message, flow: FlowKey, host: bytes, remote: Endpoint,
        outside_of: Callable[[Endpoint], Endpoint | None], ports: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        """The host sends a request. `outside_of`: as what the registrar knows an endpoint of the host, behind NAT;
        `ports`: where it listens beside."""
        cseq, call_id, values = message.cseq, message.header("call-id"), list(contacts(message))
        if message.method != "REGISTER" or cseq is None or not call_id or not values:
            return  # without a Contact it only asks what there is (section 10.2.3)
        named = {contact(sip.address(value)) for value in values}
        named |= {there for one in named if isinstance(one, Endpoint) and (there := outside_of(one)) is not None}
        default = seconds(message.header("expires"))
        default = DEFAULT if default is None else default
        lasts = [default if (own := seconds(sip.parameters(v).get("expires"))) is None else own for v in values]
        waiting = self._asked.setdefault(host, OrderedDict())
        self._asked.move_to_end(host)
        waiting.pop((call_id, cseq[0]), None)
        waiting[call_id, cseq[0]] = _Asked(
            flow, remote, message.from_tag, sip.address(message.header("to") or "")[:LENGTH], frozenset(named),
            0 if values[0] == "*" else max(lasts), ports,
        )  # fmt: skip
        if len(waiting) > ASKED_PER_HOST:
            waiting.popitem(last=False)
        if len(self._asked) > MAX_HOSTS:
            self._asked.popitem(last=False)

    def answered(self, message: sip.Message, host: bytes, remote: Endpoint, now: float) -> Registration | None:
        """The host gets an answer. Out: the registration that it makes, prolongs or ends (`until` in the past)."""
        cseq, waiting = message.cseq, self._asked.get(host)
        if cseq is None or cseq[1] != "REGISTER" or waiting is None or (message.status or 0) // 100 != 2:
            return None
        asked = waiting.get((message.header("call-id") or "", cseq[0]))
        if asked is None or asked.remote != remote or asked.tag != message.from_tag:
            return None
        lasts = min(_granted(asked, message), LONGEST)
        registration = self.flows.get(asked.flow)
        if registration is None:
            if not lasts:
                return None
            registration = self.put(Registration(asked.flow, host))
        if registration is not None:
            _prolong(registration, asked.name, now, now + lasts)
            registration.ports = asked.ports if lasts else registration.ports
        return registration

    def of(self, host: bytes) -> Iterator[Registration]:
        """Those of one host."""
        return (self.flows[flow] for flow in self._hosts.get(host, ()))

    def put(self, registration: Registration) -> Registration | None:
        """A new one; None if there is no room."""
        mine = self._hosts.get(registration.host, {})
        if registration.flow in self.flows:
            self.drop(registration.flow)
        elif len(mine) >= PER_HOST:
            self.drop(next(iter(mine)))
        elif len(self.flows) >= MAX_FLOWS:
            return None
        self.flows[registration.flow] = registration
        self._hosts.setdefault(registration.host, {})[registration.flow] = None
        return registration

    def drop(self, flow: FlowKey) -> None:
        """It has ended."""
        gone = self.flows.pop(flow, None)
        if gone is not None:
            mine = self._hosts[gone.host]
            del mine[flow]
            if not mine:
                del self._hosts[gone.host]


def _prolong(registration: Registration, name: str, now: float, until: float) -> None:
    """One address of record of the flow lasts until then."""
    known = registration.until
    known[name] = until
    for ended in [each for each, end in known.items() if end <= now]:
        del known[ended]
    if len(known) > PER_FLOW:
        del known[min(known, key=known.__getitem__)]


def _granted(asked: _Asked, message: sip.Message) -> int:
    """How long the registrar says that it lasts. It lists all phones of that name; where it has changed ours, and has
    but one, that is it."""
    if not asked.seconds:
        return 0
    listed = [(contact(sip.address(v)), seconds(sip.parameters(v).get("expires"))) for v in contacts(message)]
    default = seconds(message.header("expires"))
    default = asked.seconds if default is None else default
    told = [one for where, one in listed if where in asked.contacts] or [one for _, one in listed if len(listed) == 1]
    return max((default if one is None else one for one in told), default=default)


def contacts(message: sip.Message) -> Iterator[str]:
    """The values of Contact, each by itself (section 7.3.1)."""
    room, count = LENGTH, 0
    for value in message.values("contact"):
        for each in _listed(value[:room]):
            if count < LISTED:
                yield each
            count += 1
        room -= len(value)
        if room <= 0 or count >= LISTED:
            return


def _listed(value: str) -> Iterator[str]:
    """A comma in quotes or in <> parts nothing."""
    begun, closing, skip = 0, "", False
    for at, letter in enumerate(value):
        if skip:
            skip = False
        elif closing == '"' and letter == "\\":
            skip = True
        elif closing:
            closing = "" if letter == closing else closing
        elif letter in '"<':
            closing = '"' if letter == '"' else ">"
        elif letter == ",":
            yield value[begun:at].strip()
            begun = at + 1
    yield value[begun:].strip()


def contact(uri: str) -> Contact:
    """Where it leads."""
    found = _URI.match(uri)
    port = found[2].encode() if found is not None and found[2] is not None else None
    there = endpoint(found[1].encode(), port) if found is not None else None
    return there if there is not None else uri.partition(";")[0].lower()


def seconds(text: str | None) -> int | None:
    """What a text says; None where there is none."""
    if text is None:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else DEFAULT
