"""One case played by sipp through a gateway, and what the witnesses say of it.

In: a Case, a Town, a Place in it, a way (out: the caller is inside; in: the callee; within: both; behind: both, and a
proxy outside between them). Out: the faults. Watched: both parties end as their scenario says; each media packet
arrives, its bytes unchanged; under NAT nothing outside names an address of the inside, and what comes in names the
phone's own again (RFC 3261 section 18.1.2: an answer whose topmost Via is another's is dropped).
"""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.netns.net import Namespace, until
from tests.sip import media
from tests.sip.cases import Case
from tests.sip.conversations import Leg
from tests.sip.pieces import Pieces
from tests.sip.sipp import MEDIA, PATIENCE, SIP, Sipp, host_port
from tests.sip.steps import REMOTE, Party, register, registrar, scenario
from tests.sip.town import Place, Town
from tests.sip.witness import Seen, Witness

_WHO = re.compile(rb"(caller|callee)-(\d)-")
LATE_IN, LATE_OUT = (b"\x80" + bytes(11) + text for text in (b"late in", b"late out"))
NEVER_SENT = "never sent"
_VIA = re.compile(rb"^(?:Via|v):[^\r\n]*?SIP/2.0/\w+ ([^;\r\n]+)", re.MULTILINE | re.IGNORECASE)


class Wire:
    """What of a witness's packets is to or from one party of a place, from now on."""

    def __init__(self, witness: Witness, party: str) -> None:
        self._witness, self._party, self._start = witness, party, len(witness.seen)

    @property
    def seen(self) -> list[Seen]:
        return [seen for seen in self._witness.seen[self._start :] if self._party in (seen.src, seen.dst)]


class Played:
    """A case as it is played: processes, witnesses, faults."""

    def __init__(self, case: Case, where: Town, place: Place, way: str, folder: Path) -> None:
        self.case, self.where, self.addresses, self.way, self.folder = case, where, place, way, folder
        self.within, self.behind = way in ("within", "behind"), way == "behind"
        self.outer = where.other if self.within else where.peer
        self.party = place.other if self.within else place.peer
        self.nat = where.nat and not self.within
        self.outside = Wire(where.witnesses[self.outer], self.party)
        self.inside = Wire(where.witnesses[where.client], place.phones[0] if self.behind else self.party)
        folder.mkdir(parents=True, exist_ok=True)
        self.faults: list[str] = []
        self.running: list[tuple[Sipp, subprocess.Popen[bytes]]] = []
        self.call_id = f"{os.getpid()}-{time.monotonic_ns() // 1000}"
        self.forked = len({leg.port for leg in case.legs}) > 1

    # -- processes

    def start(self, sipp: Sipp, text: str) -> None:
        """With a relay in between, its own ends are on the loop."""
        (self.folder / f"{sipp.name}.xml").write_text(text)
        at, to = (sipp.address, sipp.port), sipp.to
        if self.case.pieces is not None:
            at, to = (
                ((self._loop, self._relay + 1), None) if to is None else ((at[0], SIP + 10), (self._loop, self._relay))
            )
        call_id = self.call_id if self.forked or self.behind else f"{self.call_id}-{sipp.name}"
        keys = {"held_ip": self.addresses.held, "own": host_port(sipp.address, sipp.port)}
        if sipp.to is not None:
            keys["far"] = host_port(*sipp.to)
        self.running.append((sipp, sipp.start(self.folder, at, to, call_id, keys, self.case.tcp)))
        if sipp.to is None:
            self._wait_for(sipp, *at)

    def _wait_for(self, sipp: Sipp, address: str, port: int) -> None:
        flags = "-Htln" if self.case.tcp else "-Huln"
        wanted = host_port(address, port)
        if not until(lambda: wanted in sipp.space.run("ss", flags), 3):
            self.faults.append(f"{sipp.name} does not listen")

    def wait(self) -> None:
        """Both end; one that fails leaves the other a second."""
        end = time.monotonic() + PATIENCE + 1
        waiting = dict(enumerate(self.running))
        while waiting:
            for number, (sipp, child) in list(waiting.items()):
                if child.poll() is None and time.monotonic() < end:
                    continue
                del waiting[number]
                if child.poll() is None:
                    child.kill()
                    child.wait()
                    self.faults.append(f"{sipp.name} does not end")
                elif child.returncode:
                    end = min(end, time.monotonic() + 1)
                    self.faults.append(f"{sipp.name} fails{sipp.last_error(self.folder)}")
            time.sleep(0.01)

    # -- parties

    @property
    def _relay(self) -> int:
        """The relay's port inside; outside it is the next one."""
        return 7000 + 2 * self.addresses.number

    @property
    def _loop(self) -> str:
        return "::1" if ":" in self.addresses.public else "127.0.0.1"

    @staticmethod
    def _text(name: str, steps: list[str]) -> str:
        """Literal ports where sipp would take [media_port] for a media line's."""
        return re.sub(r"\{port\+(\d+)\}", lambda m: str(MEDIA + int(m[1])), scenario(name, steps))

    def _both_behind(self) -> tuple[Sipp, Sipp, list[str], list[str]]:
        """The callee has registered at the proxy, the caller calls it there."""
        a, (leg,) = self.addresses, self.case.legs
        user = f"callee-{a.number}"
        parties = [
            Party(role, f"sip:{user}@{REMOTE}", self.case.compact, "", True, user) for role in ("caller", "callee")
        ]
        to = (a.proxy, SIP)
        outside = Sipp(self.outer, "outside-0", self.party, SIP, to)
        inside = Sipp(self.where.client, "inside-0", a.phones[0], SIP, to)
        return outside, inside, [*register(parties[1]), *leg.callee(parties[1])], leg.caller(parties[0])

    def legs(self) -> Iterable[tuple[Leg, Sipp, Sipp, list[str], list[str]]]:
        """Each leg with its outside and its inside party and their steps."""
        if self.behind:
            yield (self.case.legs[0], *self._both_behind())
            return
        tag = "fork" if self.forked else ""
        caller, callee = Party("caller", compact=self.case.compact, tag=tag), Party("callee", compact=self.case.compact)
        for number, leg in enumerate(self.case.legs):
            inside = Sipp(self.where.client, f"inside-{number}", self.addresses.phones[leg.phone], SIP,
                          (self.party, leg.port))  # fmt: skip
            outside = Sipp(self.outer, f"outside-{number}", self.party, leg.port, None)
            if self.way != "in":
                yield leg, outside, inside, leg.callee(callee), leg.caller(caller)
            else:
                called = replace(caller, target="[$target]")
                yield (
                    leg,
                    outside,
                    inside,
                    [*registrar(), *leg.caller(called)],
                    [*register(callee), *leg.callee(callee)],
                )

    def play(self) -> None:
        for who, phase in {*self.case.media, *((w, p) for w in ("caller", "callee") for p in (1, 2, 3))}:
            media.write(self.folder, who, phase)
        legs = list(self.legs())
        with ExitStack() as stack:
            servers: dict[int, int] = {}
            for leg, *_ in legs:
                servers[leg.port] = servers.get(leg.port, 0) + 1
            for leg, server, _, steps, _ in legs:
                if calls := servers.pop(leg.port, 0):
                    self.start(replace(server, calls=calls), self._text(self.case.name, steps))
            if self.behind and not until(self._registered, 3):
                self.faults.append("the callee is not registered")
            if self.case.pieces is not None:
                self._relays(stack)
            for _, _, client, _, steps in legs:
                self.start(client, self._text(self.case.name, steps))
            if self.case.rtcp is not None:
                self._control()
            self.wait()
        if self.case.cut:
            self._cut()

    def _relays(self, stack: ExitStack) -> None:
        a, size = self.addresses, self.case.pieces or 0
        own = (self._loop, 0)
        stack.enter_context(Pieces(self.outer, size, (self.party, SIP), own, (self._loop, self._relay + 1)))
        phone = (a.phones[0], SIP)
        stack.enter_context(Pieces(self.where.client, size, (self._loop, self._relay), phone, (self.party, SIP)))

    def _registered(self) -> bool:
        return any(s.arriving and s.payload.startswith(b"SIP/2.0 200") for s in self.outside.seen)

    # -- probes

    def _mapped(self) -> int:
        """The phone's media port as its last description says outside."""
        found = MEDIA
        for seen in self.outside.seen:
            if seen.arriving and (named := re.search(rb"^m=audio (\d+) ", seen.payload, re.MULTILINE)):
                found = int(named[1]) or found
        return found

    @staticmethod
    def _probe(space: Namespace, own: tuple[str, int], to: tuple[str, int], what: bytes) -> None:
        """By a raw socket, as sipp has the port."""
        family = socket.AF_INET6 if ":" in own[0] else socket.AF_INET

        def send() -> None:
            with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP) as sock:
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 6)
                sock.bind((own[0], 0))
                sock.sendto(struct.pack(">HHHH", own[1], to[1], 8 + len(what), 0) + what, (to[0], 0))

        space.call(send)

    def _control(self) -> None:
        """RTCP while the call is up: from outside first, then from inside."""
        a, offset = self.addresses, self.case.rtcp or 0
        both = {("caller", 1), ("callee", 1)}
        if not until(lambda: both <= _media(self.inside, self.outside, True).keys(), PATIENCE):
            return  # told by the media that is missing
        port = self._mapped() + (offset if offset < 7 or not self.nat else 0)
        if offset > 1:
            named = [re.search(rb"^a=rtcp:(\d+)", s.payload, re.MULTILINE) for s in self.outside.seen if s.arriving]
            port = int(next((n[1] for n in reversed(named) if n), b"0"))
        for space, own, to, what, witness in (
            (
                self.outer,
                (self.party, MEDIA + offset),
                (a.public if self.nat else a.phones[0], port),
                b"in",
                self.inside,
            ),
            (self.where.client, (a.phones[0], MEDIA + offset), (self.party, MEDIA + offset), b"out", self.outside),
        ):
            report = b"\x80\xc9\0\1" + what.ljust(4)
            if port:
                self._probe(space, own, to, report)
            if not until(lambda w=witness, r=report: any(s.payload == r and s.arriving for s in w.seen), 0.5):  # type: ignore[misc]
                self.faults.append(f"RTCP {what.decode()} is lost")

    def _cut(self) -> None:
        """A second after the end: from the peer's media port to the phone's, as it was, and back."""
        time.sleep(1)
        a = self.addresses
        to = (a.public if self.nat else a.phones[0], self._mapped())
        self._probe(self.outer, (self.party, MEDIA), to, LATE_IN)
        self._probe(self.where.client, (a.phones[0], MEDIA), (self.party, MEDIA), LATE_OUT)
        time.sleep(0.15)
        for witness, what in ((self.inside, LATE_IN), (self.outside, LATE_OUT)):
            if any(seen.payload == what and seen.arriving for seen in witness.seen):
                self.faults.append(f"passes after the end: {what[12:].decode()}")

    # -- what the witnesses say

    def judge(self) -> None:
        """Media: each packet that a party sent came to the other, once, unchanged; with two phones, to both of them."""
        sent = _media(self.inside, self.outside, False)
        for who, phase in self.lost():
            self.faults.append(f"media of {who} {phase} is {'lost' if sent.get((who, phase)) else NEVER_SENT}")
        phones = {leg.phone for leg in self.case.legs}
        if len(phones) > 1 and not self.forked:
            self._both_hear(phones)
        if self.nat or (self.behind and self.where.nat):
            self._names()

    def lost(self) -> list[tuple[str, int]]:
        """Whose media is missing as yet, and which."""
        sent, arrived = (_media(self.inside, self.outside, arriving) for arriving in (False, True))
        return [m for m in self.case.media if not sent.get(m) or +(sent[m] - arrived.get(m, Counter()))]

    def _both_hear(self, phones: set[int]) -> None:
        for phone in phones:
            own = self.addresses.phones[phone]
            heard = Counter(
                s.payload for s in self.inside.seen if s.arriving and s.dst == own and _WHO.match(s.payload[12:])
            )
            if not heard or max(heard.values()) > 1:
                self.faults.append(f"phone {phone} hears {'another one' if heard else 'nothing'}")

    def _names(self) -> None:
        """Addresses that SIP tells on either side of the NAT."""
        own = re.compile("|".join(map(re.escape, self.addresses.inside)).encode())
        for line in (line for text in self._told_outside() for line in text.split(b"\r\n") if own.search(line)):
            self.faults.append(f"outside is told {line.decode(errors='replace')}")
            break
        for seen in (*self.inside.seen, *(self.outside.seen if self.behind else ())):
            if not (seen.arriving and seen.payload.startswith(b"SIP/2.0")):
                continue
            via = _VIA.search(seen.payload)
            if via and via[1].decode() != host_port(seen.dst, seen.dport) and self.case.pieces is None:
                self.faults.append(f"an answer's Via names {via[1].decode()}, not {seen.dst}:{seen.dport}")
                return

    def _told_outside(self) -> list[bytes]:
        """SIP that came to the outside: to the party there, or to the proxy with this call's name in it."""
        if not self.behind:
            return [s.payload for s in self.outside.seen if s.arriving and _is_sip(s)]
        seen, mine = self.where.witnesses[self.where.peer].seen, self.call_id.encode()
        return [s.payload for s in seen if s.arriving and s.dst == self.addresses.proxy and mine in s.payload]


def _is_sip(seen: Seen) -> bool:
    return 5060 in (seen.sport, seen.dport) or 5062 in (seen.sport, seen.dport)


def _media(inside: Wire, outside: Wire, arriving: bool) -> dict[tuple[str, int], Counter[bytes]]:
    """Packets by who sent them and when, as their senders' or their receivers' wires saw them."""
    found: dict[tuple[str, int], Counter[bytes]] = {}
    for seen in (*inside.seen, *outside.seen):
        named = _WHO.match(seen.payload[12:]) if seen.arriving == arriving else None
        if named:
            found.setdefault((named[1].decode(), int(named[2])), Counter())[seen.payload] += 1
    return found


def run(case: Case, where: Town, place: Place, way: str, folder: Path) -> list[str]:
    """The faults of one case. On a busy machine sipp now and then keeps a phase's media to itself: then once more."""
    faults = _run(case, where, place, way, folder)
    if faults and all(fault.endswith(NEVER_SENT) for fault in faults):
        return _run(case, where, place, way, folder / "again")
    return faults


def _run(case: Case, where: Town, place: Place, way: str, folder: Path) -> list[str]:
    played = Played(case, where, place, way, folder)
    try:
        played.play()
        until(lambda: not played.lost(), 1)  # a witness may be behind
    finally:
        for _, child in played.running:
            if child.poll() is None:
                child.kill()
                child.wait()
    played.judge()
    return played.faults
