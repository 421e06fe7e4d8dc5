"""Packets that carry FaceTime's conclusive signatures, cut into their fields, with what each field is to the signature.

A Field `makes` the signature (any other bytes there, and it is gone), is `free` (may hold anything), or `frames` (its
bytes decide where others lie, so that a change may do either).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from tests.corpus import facetime2023 as modern
from tests.corpus import sessions
from tests.corpus import stun_bytes as stun
from tests.corpus.stun_bytes import Transaction
from tests.corpus.variation import Variation
from tests.corpus.writer import End

Part = Literal["makes", "free", "frames"]
UDP_HEADER, ETHERNET = 8, 14
TRANSPORT = frozenset({stun.REQUESTED_TRANSPORT})
"""One bit from EVEN-PORT, which never comes with a token (RFC 8656 section 7.1)."""


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    start: int
    end: int
    part: Part


@dataclass(frozen=True, slots=True)
class Carrier:
    """`payload` is a datagram to `port` or, with `proto` "tcp", a stream's beginning, or, with "ip", a whole packet."""

    signature: str
    payload: bytes
    fields: tuple[Field, ...]
    proto: str = "udp"
    application: str = "facetime"
    port: int = 3478


def stun_fields(
    payload: bytes, makes: Mapping[int, Part], at: int = 0, cookie: Part = "makes", near: frozenset[int] = frozenset()
) -> tuple[Field, ...]:
    """`makes`: attributes whose number makes the signature, and the part of their value; `near`: numbers one bit from
    another that counts too. An attribute's length frames what follows it; ChannelData's header stands before `at`."""
    found = [Field("channel", 0, 2, "frames"), Field("length of ChannelData", 2, 4, "frames")] if at else []
    found += [Field("type", at, at + 2, "makes"), Field("length", at + 2, at + 4, "makes")]
    found += [Field("cookie", at + 4, at + 8, cookie), Field("transaction", at + 8, at + 20, "free")]
    offset = at + 20
    while offset < len(payload):
        number, size = (int.from_bytes(payload[offset + n : offset + n + 2], "big") for n in (0, 2))
        name, end, padding = f"{number:#06x}", offset + 4 + size, -size % 4
        kind: Part = "frames" if number in near else "makes" if number in makes else "free"
        found.append(Field(f"{name} number", offset, offset + 2, kind))
        found.append(Field(f"{name} length", offset + 2, offset + 4, "frames"))
        found.append(Field(f"{name} value", offset + 4, end, makes.get(number, "free")))
        if padding:
            found.append(Field(f"{name} padding", end, end + padding, "free"))
        offset = end + padding
    return tuple(found)


def family_apart(field: Field) -> tuple[Field, ...]:
    """Of an XOR-RELAYED-ADDRESS, the family: it says how long the address is (RFC 8489 section 14.2)."""
    if field.name != "0x0016 value":
        return (field,)
    parts: tuple[tuple[str, int, int, Part], ...] = (
        ("first byte", field.start, field.start + 1, "free"),
        ("family", field.start + 1, field.start + 2, "makes"),
        ("port and address", field.start + 2, field.end, "free"),
    )
    return tuple(Field(f"0x0016 {name}", start, end, part) for name, start, end, part in parts)


def message_fields(payload: bytes, start: int, end: int) -> tuple[Field, ...]:
    """A control message at `start`: command, length, 16 zero bytes, elements, and the code's head."""
    marks = (("command", 2, "frames"), ("length of elements", 2, "frames"), ("zeros", 16, "makes"))
    found = []
    for name, size, part in (*marks, ("elements", end - start - 44, "free"), ("code's head", 4, "makes")):
        found.append(Field(name, start, start + size, part))  # type: ignore[arg-type]
        start += size
    return (*found, Field("code", start, end, "free"))


def control_fields(payload: bytes, makes: Mapping[int, Part]) -> tuple[Field, ...]:
    """A Data indication: its attributes, the last of which holds a control message."""
    fields = stun_fields(payload, {**makes, 0x000C: "frames"})
    value = next(field for field in fields if field.name == "0x0013 value")
    at = fields.index(value)
    return (*fields[:at], *message_fields(payload, value.start, value.end), *fields[at + 1 :])


def text_fields(payload: bytes, makes: tuple[bytes, ...], frames: tuple[bytes, ...]) -> tuple[Field, ...]:
    """Regular expressions for what makes and what frames; all else is free. Each line has its own free field."""
    parts: list[Part] = ["free"] * len(payload)
    for part, patterns in (("frames", frames), ("makes", makes)):
        for pattern in patterns:
            for match in re.finditer(pattern, payload):
                parts[match.start() : match.end()] = [part] * len(match[0])  # type: ignore[list-item]
    found, start = [], 0
    for at in range(1, len(payload) + 1):
        if at == len(payload) or parts[at] != parts[start] or payload[at - 1 : at] == b"\n":
            text = payload[start:at].decode("latin-1").strip()
            found.append(Field(repr(text[:40]), start, at, parts[start]))
            start = at
    return tuple(found)


def of_session(packet: int, encoding: str = "identity") -> bytes:
    """A payload of session 1 of the report."""
    case = sessions.build(1, replace(Variation.from_seed(0), encoding=encoding))  # type: ignore[arg-type]
    frame = case.capture.frames[packet - 1][1]
    transport = ETHERNET + (frame[ETHERNET] & 15) * 4
    header = UDP_HEADER if frame[ETHERNET + 9] == 17 else (frame[transport + 12] >> 4) * 4
    return frame[transport + header :]


def carriers_2015() -> list[Carrier]:
    private: dict[int, Part] = dict.fromkeys((stun.USERNAME, 0x8001, 0x8002, 0x8003, 0x8009), "free")
    answered: dict[int, Part] = dict.fromkeys((0x8001, 0x8003, 0x8004, 0x8005, 0x8009), "free")
    token: dict[int, Part] = {0x0016: "free", 0x0022: "free"}
    allocate, probe, asked, told, invite = (of_session(packet) for packet in (60, 64, 122, 160, 169))
    family = [part for field in stun_fields(allocate, token, 0, "free", TRANSPORT) for part in family_apart(field)]
    sip = text_fields(
        invite,
        (rb"o=GKVoiceChatService ",),
        (
            rb"^.{4}",
            rb"INVITE sip:[^\r]*",
            rb"(?m)^m=[^\r]*",
            rb"(?m)^[a-zA-Z-]+: ?[^\r]*\r?\n?",
            rb"\r\n\r\n",
            rb"(?m)^[a-z]=",
            rb"\r\n",
        ),
    )
    return [
        Carrier("allocate-with-relayed-address", allocate, tuple(family)),
        Carrier("check-with-private-attributes", asked, stun_fields(asked, private, 4, "frames")),
        Carrier("check-answer-with-private-attributes", told, stun_fields(told, answered, 4, "frames")),
        Carrier("voice-chat-origin", invite, sip),
        Carrier(
            "connectivity-probe", probe,
            text_fields(
                probe, (rb"^GET /connectivity\.txt ", rb"(?<=\n)Host: ?static\.ess\.apple\.com(:80)?"),
                (rb"HTTP/1\.1\r\n", rb"\r\n", rb"(?<=80)\r"),
            ),
            "tcp",
        ),
    ]  # fmt: skip


def carriers_2023() -> list[Carrier]:
    rng = random.Random("carriers")
    t = Transaction(stun.COOKIE, rng.randbytes(12))
    every: dict[int, Part] = dict.fromkeys((0x0008, 0x000C, 0x0013, 0x0020, 0x8007, 0x8008), "free")
    long, short = modern.check(rng, t), modern.check(rng, t, link=False)
    answers = [modern.answer(rng, t, End("71.15.163.132", 20699), v6) for v6 in (False, True)]
    controls = [modern.control(rng, t, size) for size in (50, 66)]
    relayed = modern.controlled(rng)
    hello = modern.relay_hello(rng)
    return [
        Carrier("relay-hello", hello, (Field("header and sealed packet", 0, len(hello), "makes"),)),
        *(Carrier("check-by-link", one, stun_fields(one, every)) for one in (long, short)),
        *(Carrier("check-by-link-answered", one, stun_fields(one, every)) for one in answers),
        *(Carrier("control-indication", one, control_fields(one, every)) for one in controls),
        Carrier(
            "control-through-the-relay",
            relayed,
            (
                Field("channel", 0, 2, "makes"),
                Field("length of ChannelData", 2, 4, "makes"),
                Field("flags", 4, 6, "frames"),
                Field("word, participant", 6, 16, "free"),
                *message_fields(relayed, 16, len(relayed)),
            ),
        ),
    ]
