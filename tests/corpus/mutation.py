"""What makes FaceTime's conclusive signatures, byte by byte and field by field: `python -m tests.corpus.mutation`.

Each byte of a carrier is changed in several ways; a carrier's fields are dropped, doubled, swapped and given to others.
A mutant is FaceTime if a conclusive signature of it, any, still holds.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from appid.decode import peel
from appid.edge.rule_files import load_applications
from appid.identify.match import Matcher
from appid.wire import Fact
from tests.corpus import facetime2023 as modern
from tests.corpus import quic_bytes
from tests.corpus import stun_bytes as stun
from tests.corpus.carriers import Carrier, Field, carriers_2015, carriers_2023
from tests.corpus.stun_bytes import Attribute, Transaction

CHANGES = (0x01, 0x80, 0xFF)
"""A byte is changed by each of these (exclusive or): one bit at either end, and all."""


@lru_cache(maxsize=1)
def matcher() -> Matcher:
    return Matcher([load_applications()["facetime"]])


def holding(payload: bytes, proto: str = "udp") -> set[str]:
    """The conclusive signatures of FaceTime that hold for this packet alone, sent to a relay's port."""
    facts = [Fact("flow.destination_port", 3478), *peel(memoryview(payload), proto).facts()]
    found = matcher().match(facts, {})
    return {one.signature.name for one in found if not one.excludes and one.signature.strength == "conclusive"}


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
                still += bool(holding(bytes(mutant), carrier.proto))
        yield Measured(carrier, field, mutants, still)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a whole field: `wanted` says whether the packet must be FaceTime after it."""

    signature: str
    what: str
    payload: bytes
    wanted: bool
    proto: str = "udp"

    @property
    def found(self) -> bool:
        return bool(holding(self.payload, self.proto))


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
    exact = carrier in carriers_2023()
    kind, transaction, attributes = _attributes(carrier.payload, at)
    makes = {
        field.name.split()[0] for field in carrier.fields if field.name.endswith("number") and field.part == "makes"
    }

    def change(what: str, given: list[Attribute], wanted: bool, type_: int = kind) -> Change:
        message = stun.message(type_, 0, transaction, given)
        whole = stun.channel_data(0x4000, message) if at else message
        return Change(carrier.signature, what, whole, wanted)

    for n, (number, value) in enumerate(attributes):
        name, needed = f"{number:#06x}", f"{number:#06x}" in makes
        short_form = exact and kind == stun.BINDING and number == modern.LINK  # without it, the short form of a check
        request = kind == stun.BINDING and number == stun.USERNAME
        sized = exact or request or number == stun.RESERVATION_TOKEN  # the length is part of the signature
        yield change(f"{name} dropped", attributes[:n] + attributes[n + 1 :], not needed or short_form)
        yield change(f"{name} twice", [*attributes[: n + 1], *attributes[n:]], not exact)
        yield change(f"{name} longer", [*attributes[:n], (number, value + bytes(4)), *attributes[n + 1 :]], not sized)
        yield change(f"{name} other value", [*attributes[:n], (number, bytes(len(value))), *attributes[n + 1 :]], True)
        if n:
            order = [*attributes[: n - 1], attributes[n], attributes[n - 1], *attributes[n + 1 :]]
            yield change(f"{name} one earlier", order, not exact)
    yield change("SOFTWARE added", [*attributes, (stun.SOFTWARE, b"none")], not exact)
    yield change("other class", attributes, False, kind ^ 0x0110)
    yield change("other method", attributes, False, kind ^ 0x0004)


def _hello_changes() -> Iterator[Change]:
    def change(what: str, wanted: bool, hello: bytes, dcid: int = 8, scid: int = 0, size: int = 1200) -> Change:
        return Change(
            "relay-hello", what, quic_bytes.initial(hello, rng.randbytes(dcid), rng.randbytes(scid), size), wanted
        )

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


def _probe_changes() -> Iterator[Change]:
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
    )
    for what, wanted, *lines in rows:
        text = "".join(f"{one}\r\n" for one in lines) + "\r\n"
        yield Change("connectivity-probe", what, text.encode(), wanted, "tcp")


def _invite_changes(carrier: Carrier) -> Iterator[Change]:
    head, _, body = carrier.payload[4:].partition(b"\r\n\r\n")

    def change(what: str, wanted: bool, edit: Callable[[bytes, bytes], tuple[bytes, bytes]]) -> Change:
        lines, text = edit(head, body)
        sized = b"\r\n".join(
            f"{row.partition(b':')[0].decode()}: {len(text)}".encode()
            if row.split(b":")[0].lower() in (b"l", b"content-length") else row
            for row in lines.split(b"\r\n")
        )  # fmt: skip
        return Change("voice-chat-origin", what, stun.channel_data(0x4000, sized + b"\r\n\r\n" + text), wanted)

    yield change("another user agent", True, lambda h, b: (h.replace(b"Viceroy", b"Example"), b))
    yield change("another call ID", True, lambda h, b: (h.replace(b"\r\ni: ", b"\r\ni: x"), b))
    yield change("other ports and addresses in the SDP", True, lambda h, b: (h, b.replace(b"16402", b"16400")))
    yield change("another session name", True, lambda h, b: (h, b.replace(b"s=mobile", b"s=other")))
    yield change("another origin", False, lambda h, b: (h, b.replace(b"o=GKVoiceChatService ", b"o=alice ")))
    yield change("the origin in another line", False, lambda h, b: (
        h, b.replace(b"o=GKVoiceChatService ", b"o=alice ").replace(b"s=mobile", b"s=GKVoiceChatService")))  # fmt: skip
    yield change("no body", False, lambda h, b: (h, b""))
    yield Change("voice-chat-origin", "the SDP without SIP", carrier.payload[:4] + body, False)


def changes() -> list[Change]:
    """Every change of a field, of every conclusive signature."""
    found: list[Change] = []
    for carrier in (*carriers_2015(), *carriers_2023()):
        if carrier.signature == "voice-chat-origin":
            found += _invite_changes(carrier)
        elif carrier.proto == "udp" and carrier.signature != "relay-hello":
            found += _stun_changes(carrier)
    return [*found, *_probe_changes(), *_hello_changes()]


def main() -> int:
    wrong = 0
    print(f"{'signature':38}{'field':44}{'bytes':>6}{'mutants':>9}{'still':>7}  it")
    for carrier in (*carriers_2015(), *carriers_2023()):
        for one in bytes_of(carrier):
            size = one.field.end - one.field.start
            row = (
                f"{carrier.signature:38}{one.field.name[:42]:44}{size:6}{one.mutants:9}{one.still:7}  {one.field.part}"
            )
            print(row + ("" if one.agrees else "  BUT DOES NOT"))
            wrong += not one.agrees
    print(f"\n{'signature':38}{'change':60}{'is':>6}{'must':>6}")
    for change in changes():
        print(f"{change.signature:38}{change.what:60}{change.found!s:>6}{change.wanted!s:>6}")
        wrong += change.found != change.wanted
    print(f"\n{wrong} not as they must be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
