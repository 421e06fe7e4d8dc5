"""What makes each application's conclusive signatures, byte by byte and field by field:
`python -m tests.corpus.mutation` prints both tables.

Each byte of a carrier is changed in several ways, each of its fields replaced as a whole; FaceTime's are dropped,
doubled, swapped and given to others besides. A mutant is the application's if any conclusive signature of it holds.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from appid.edge.rule_files import load_applications
from appid.engine.read import read
from appid.engine.record import FlowRecord
from appid.identify.match import Matcher
from appid.packet import Packet, parse
from appid.wire import TCP, UDP, DecodeError, Fact, FlowKey, packed
from tests.corpus import facetime2023 as modern
from tests.corpus import quic_bytes
from tests.corpus import stun_bytes as stun
from tests.corpus.carriers import Carrier, Field, carriers_2015, carriers_2023
from tests.corpus.carriers_others import carriers_others
from tests.corpus.stun_bytes import Attribute, Transaction

CHANGES = (0x01, 0x80, 0xFF)
"""A byte is changed by each of these (exclusive or): one bit at either end, and all."""


ALLOCATED = frozenset({stun.XOR_RELAYED_ADDRESS, stun.RESERVATION_TOKEN})

OWN, FAR = packed("172.16.42.187"), packed("203.0.113.20")


@lru_cache(maxsize=64)
def matcher(application: str) -> Matcher:
    return Matcher([load_applications()[application]])


def carriers() -> list[Carrier]:
    return [*carriers_2015(), *carriers_2023(), *carriers_others()]


def holding(carrier: Carrier, payload: bytes) -> set[str]:
    """The conclusive signatures of the carrier's application that hold for this packet alone."""
    facts = _facts(carrier, payload)
    found = matcher(carrier.application).match(facts, {})
    return {one.signature.name for one in found if not one.excludes and one.signature.strength == "conclusive"}


def _facts(carrier: Carrier, payload: bytes) -> list[Fact]:
    """What the engine reads of it, as the first packet of its flow."""
    if carrier.proto == "ip":
        try:
            packet = parse(memoryview(payload))
        except DecodeError:
            packet = None
        if packet is None:
            return []
    else:
        proto = {"udp": UDP, "tcp": TCP}[carrier.proto]
        key = FlowKey(proto, OWN, 50122, FAR, carrier.port)
        packet = Packet(key, memoryview(payload), 20 + len(payload), tcp_seq=1)
    return read(FlowRecord(1, packet.key, True, 1, None), packet, True).facts


@dataclass(frozen=True, slots=True)
class Measured:
    """One field: how many mutants of its bytes there were, and how many were FaceTime still."""

    carrier: Carrier
    field: Field
    mutants: int
    still: int

    @property
    def agrees(self) -> bool:
        match self.field.part:
            case "makes":
                return self.still == 0
            case "free":
                return self.still == self.mutants
        return True


def bytes_of(carrier: Carrier) -> Iterator[Measured]:
    """Every byte of every field, one at a time."""
    for field in carrier.fields:
        mutants = still = 0
        for at in range(field.start, field.end):
            for change in CHANGES:
                mutant = bytearray(carrier.payload)
                mutant[at] ^= change
                mutants += 1
                still += bool(holding(carrier, bytes(mutant)))
        yield Measured(carrier, field, mutants, still)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a whole field: `wanted` says whether the packet must be the application's after it."""

    carrier: Carrier
    what: str
    payload: bytes
    wanted: bool

    @property
    def signature(self) -> str:
        return self.carrier.signature

    @property
    def found(self) -> bool:
        return bool(holding(self.carrier, self.payload))


def replaced(carrier: Carrier) -> Iterator[Change]:
    """Each field that makes or is free, as a whole: zeros, ones, and other bytes in its place."""
    rng = random.Random(carrier.signature)
    for field in carrier.fields:
        size = field.end - field.start
        if field.part == "frames" or not size:
            continue
        for what, value in (("zeros", bytes(size)), ("ones", b"\xff" * size), ("others", rng.randbytes(size))):
            changed = carrier.payload[: field.start] + value + carrier.payload[field.end :]
            if changed != carrier.payload:
                yield Change(carrier, f"{field.name[:40]}: {what}", changed, field.part == "free")


def _attributes(payload: bytes, at: int = 0) -> tuple[int, Transaction, list[Attribute]]:
    offset, found = at + 20, []
    while offset < len(payload):
        number, size = (int.from_bytes(payload[offset + n : offset + n + 2], "big") for n in (0, 2))
        found.append((number, payload[offset + 4 : offset + 4 + size]))
        offset += 4 + size + -size % 4
    return (
        int.from_bytes(payload[at : at + 2], "big"),
        Transaction(payload[at + 4 : at + 8], payload[at + 8 : at + 20]),
        found,
    )


def _stun_changes(carrier: Carrier) -> Iterator[Change]:
    """Each attribute dropped, doubled, longer by four, and before its neighbour; a stranger added; other types."""
    at = 4 if carrier.payload[0] & 0xC0 else 0
    control = carrier.signature == "control-indication"  # known by what it holds, whatever is beside it
    exact = carrier in carriers_2023() and not control
    kind, transaction, attributes = _attributes(carrier.payload, at)
    makes = {
        field.name.split()[0] for field in carrier.fields if field.name.endswith("number") and field.part == "makes"
    }

    def change(what: str, given: list[Attribute], wanted: bool, type_: int = kind) -> Change:
        message = stun.message(type_, 0, transaction, given)
        whole = stun.channel_data(0x4000, message) if at else message
        return Change(carrier, what, whole, wanted)

    for n, (number, value) in enumerate(attributes):
        name, needed = f"{number:#06x}", f"{number:#06x}" in makes
        short_form = exact and kind == stun.BINDING and number == modern.LINK  # without it, the short form of a check
        request = kind == stun.BINDING and number == stun.USERNAME
        sized = exact or control or request or number in ALLOCATED  # the length is part of the signature
        told = (control and number == modern.DATA) or number == stun.XOR_RELAYED_ADDRESS  # its family byte
        yield change(f"{name} dropped", attributes[:n] + attributes[n + 1 :], not needed or short_form)
        once = exact or (kind == stun.ALLOCATE and needed)
        yield change(f"{name} twice", [*attributes[: n + 1], *attributes[n:]], not once)
        yield change(f"{name} longer", [*attributes[:n], (number, value + bytes(4)), *attributes[n + 1 :]], not sized)
        yield change(
            f"{name} other value", [*attributes[:n], (number, bytes(len(value))), *attributes[n + 1 :]], not told
        )
        if n:
            order = [*attributes[: n - 1], attributes[n], attributes[n - 1], *attributes[n + 1 :]]
            yield change(f"{name} one earlier", order, not exact)
    yield change("SOFTWARE added", [*attributes, (stun.SOFTWARE, b"none")], not exact)
    yield change(
        "MESSAGE-INTEGRITY added",
        [*attributes, (stun.MESSAGE_INTEGRITY, bytes(20))],
        not exact and kind != stun.ALLOCATE,
    )
    if not at:
        yield Change(carrier, "four bytes behind it", carrier.payload + bytes(4), not exact)
    yield change("other class", attributes, False, kind ^ 0x0110)
    yield change("other method", attributes, False, kind ^ 0x0004)


def _hello_changes(carrier: Carrier) -> Iterator[Change]:
    def change(what: str, wanted: bool, hello: bytes, dcid: int = 8, scid: int = 0, size: int = 1200) -> Change:
        return Change(carrier, what, quic_bytes.initial(hello, rng.randbytes(dcid), rng.randbytes(scid), size), wanted)

    rng = random.Random("hello")
    for n in range(4):
        yield change(f"other random, key, ticket, connection ID ({n + 1})", True, quic_bytes.client_hello(rng))
    hello = quic_bytes.client_hello(rng)
    yield change("a longer datagram", True, hello, size=1252)
    yield change("server name added", False, quic_bytes.client_hello(rng, "example.org"))
    yield change("another ALPN", False, quic_bytes.client_hello(rng, alpn="doq"))
    yield change("no session to resume: strong, not conclusive", False, quic_bytes.client_hello(rng, resumes=False))
    yield change("a connection ID of the client's", False, hello, scid=8)
    yield change("a longer connection ID for the server", False, hello, dcid=20)
    for what, old, new in (
        ("one cipher less", "13021303", "13021302"), ("another group", "001d00170018", "001d00170019"),
        ("another signature algorithm", "0805080505", "0805080605"),
    ):  # fmt: skip
        changed = hello.replace(bytes.fromhex(old), bytes.fromhex(new))
        assert changed != hello
        yield change(what, False, changed)


def _probe_changes(carrier: Carrier) -> Iterator[Change]:
    line, host = "GET /connectivity.txt HTTP/1.1", "Host: static.ess.apple.com:80"
    rows = (
        ("more headers, before and after", True, line, "Accept: */*", host, "Connection: close"),
        ("the host without its port", True, line, "Host: static.ess.apple.com"),
        ("the host in capitals", True, line, "HOST: STATIC.ESS.APPLE.COM:80"),
        ("HTTP/1.0", True, "GET /connectivity.txt HTTP/1.0", host),
        ("POST", False, "POST /connectivity.txt HTTP/1.1", host),
        ("another path", False, "GET /connectivity.txt.bak HTTP/1.1", host),
        ("a query", False, "GET /connectivity.txt?x=1 HTTP/1.1", host),
        ("another host", False, line, "Host: static.ess.apple.com.example.net:80"),
        ("the host in another header", False, line, "X-Host: static.ess.apple.com:80", "Host: example.net"),
        ("no host", False, line),
        ("the host twice", False, line, host, host),
    )
    for what, wanted, *lines in rows:
        text = "".join(f"{one}\r\n" for one in lines) + "\r\n"
        yield Change(carrier, what, text.encode(), wanted)


def _invite_changes(carrier: Carrier) -> Iterator[Change]:
    head, _, body = carrier.payload[4:].partition(b"\r\n\r\n")

    def change(what: str, wanted: bool, edit: Callable[[bytes, bytes], tuple[bytes, bytes]]) -> Change:
        lines, text = edit(head, body)
        sized = b"\r\n".join(
            f"{row.partition(b':')[0].decode()}: {len(text)}".encode()
            if row.split(b":")[0].lower() in (b"l", b"content-length") else row
            for row in lines.split(b"\r\n")
        )  # fmt: skip
        return Change(carrier, what, stun.channel_data(0x4000, sized + b"\r\n\r\n" + text), wanted)

    yield change("another user agent", True, lambda h, b: (h.replace(b"Viceroy", b"Example"), b))
    yield change("another call ID", True, lambda h, b: (h.replace(b"\r\ni: ", b"\r\ni: x"), b))
    yield change("other ports and addresses in the SDP", True, lambda h, b: (h, b.replace(b"16402", b"16400")))
    yield change("another session name", True, lambda h, b: (h, b.replace(b"s=mobile", b"s=other")))
    yield change("another origin", False, lambda h, b: (h, b.replace(b"o=GKVoiceChatService ", b"o=alice ")))
    yield change("a space before the origin", False, lambda h, b: (h, b.replace(b"o=GK", b"o= GK")))
    yield change("the origin in another line", False, lambda h, b: (
        h, b.replace(b"o=GKVoiceChatService ", b"o=alice ").replace(b"s=mobile", b"s=GKVoiceChatService")))  # fmt: skip
    yield change("no body", False, lambda h, b: (h, b""))
    yield Change(carrier, "the SDP without SIP", carrier.payload[:4] + body, False)


def _control_changes(carrier: Carrier) -> Iterator[Change]:
    """The control message at 16: shorter, longer, of another command, in another frame."""
    head, message = carrier.payload[4:16], carrier.payload[16:]

    def change(what: str, wanted: bool, text: bytes, channel: int = 0x6000) -> Change:
        return Change(carrier, what, stun.channel_data(channel, text), wanted)

    yield change("another participant", True, head[:4] + bytes(8) + message)
    yield change("acknowledged", True, head + bytes([message[0] | 0x80]) + message[1:])
    yield change("one element more", True, head + message[:20] + b"\0\x0c\0\0" + message[20:])
    yield change("another channel", False, head + message, 0x6001)
    yield change("without its code", False, head + message[:-24])
    yield change("a frame of media", False, b"\0\x44" + head[2:] + message)
    yield change("command 0", False, head + bytes(2) + message[2:])


OWN_CHANGES: dict[str, Callable[[Carrier], Iterator[Change]]] = {
    "voice-chat-origin": _invite_changes,
    "connectivity-probe": _probe_changes,
    "relay-hello": _hello_changes,
    "control-through-the-relay": _control_changes,
}


def changes() -> list[Change]:
    """Every change of a field, of every conclusive signature."""
    found: list[Change] = []
    for carrier in (*carriers_2015(), *carriers_2023()):
        found += OWN_CHANGES.get(carrier.signature, _stun_changes)(carrier)
    return [*found, *(change for carrier in carriers() for change in replaced(carrier))]


def main() -> int:
    wrong = 0
    print(f"{'application':24}{'signature':38}{'field':44}{'bytes':>6}{'mutants':>9}{'still':>7}  it")
    for carrier in carriers():
        for one in bytes_of(carrier):
            size = one.field.end - one.field.start
            row = (
                f"{carrier.application:24}{carrier.signature:38}{one.field.name[:42]:44}{size:6}{one.mutants:9}"
                f"{one.still:7}  {one.field.part}"
            )
            print(row + ("" if one.agrees else "  BUT DOES NOT"))
            wrong += not one.agrees
    print(f"\n{'application':24}{'signature':38}{'change':60}{'is':>6}{'must':>6}")
    for change in changes():
        names = f"{change.carrier.application:24}{change.signature:38}"
        print(f"{names}{change.what:60}{change.found!s:>6}{change.wanted!s:>6}")
        wrong += change.found != change.wanted
    print(f"\n{wrong} not as they must be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
