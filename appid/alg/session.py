"""Addresses in a session description, translated. In: an SDP body as sent, Names. Out: the body.

o=, c= at both levels, m= ports, a=rtcp (RFC 3605), a=candidate (RFC 8839 section 5.1), iChat's a=RTCP (RFC 8866 for the
rest). A port is asked for together with the address that holds for it; an address follows the ports that go by it, so
that a line never names one host and its port another. Lines that name nothing of ours stay byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from appid.alg.names import Names
from appid.decode.sdp import LINES
from appid.wire import Endpoint, packed, text

_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_ORIGIN = re.compile(rb"(o=[^\r\n]{0,1024}?\sIN\s+IP)([46])(\s+)([0-9A-Fa-f:.]{2,45})(?=\s|$)")
_CONNECTION = re.compile(rb"(c=\s*IN\s+IP)([46])(\s+)([0-9A-Fa-f:.]{2,45})(?=[\s/]|$)", re.I)
_MEDIA = re.compile(rb"(m=\s*\S{1,64}\s+)(\d{1,5})(?=[\s/])")
_STREAM = re.compile(rb"m=\s*\S{1,64}\s+\S{1,16}\s+TCP(?=[\s/]|$)", re.I)
_RTCP = re.compile(rb"(a=rtcp:\s*)(\d{1,5})(?:(\s+IN\s+IP)([46])(\s+)([0-9A-Fa-f:.]{2,45}))?(?=\s|$)", re.I)
_NAMED_RTCP = re.compile(rb"a=rtcp:\s*(?:[a-z]+\s+\d{1,5}\s*)+$", re.I)
_NAMED_PORT = re.compile(rb"([A-Za-z]+\s+)(\d{1,5})")
_CANDIDATE = re.compile(rb"(a=candidate:(?:\S{1,64}\s+){4})([0-9A-Fa-f:.]{2,45})(\s+)(\d{1,5})(?=\s)", re.I)
_RELATED = re.compile(rb"(\sraddr\s+)([0-9A-Fa-f:.]{2,45})(\s+rport\s+)(\d{1,5})(?=\s|$)", re.I)


@dataclass(slots=True)
class _Section:
    """Lines from one m= to the next; `where` is the address that its ports go by, `moved` what it is over there.
    `lost`: its port is nobody's over there, so its address must stay as well: it would name another's."""

    lines: list[bytes] = field(default_factory=list)
    own: bytes | None = None
    where: bytes | None = None
    moved: bytes | None = None
    lost: bool = False


def translate_session(body: bytes, names: Names) -> bytes:
    """The description with the addresses of the other side."""
    lines = _LINE.findall(body)
    if len(lines) > LINES:
        return body
    sections = _sections(lines)
    session = sections[0]
    for section in sections[1:]:
        section.where = section.own or session.own
        section.lines = [_ports(line, section, names) for line in section.lines]
    moved = {section.where: section.moved for section in sections[1:] if section.moved is not None}
    following = [section for section in sections[1:] if section.own is None]
    session.where = session.own
    session.moved = next((each.moved for each in following if each.moved), None)
    session.lost = session.moved is None and any(each.lost for each in following)
    session.lines = [_ports(line, session, names) for line in session.lines]
    out = []
    for section in sections:
        stays = section.lost and section.moved is None
        out += [
            line if stays and line.startswith(b"c=") else _address(line, section.moved, moved, names)
            for line in section.lines
        ]
    return b"".join(out)


def _sections(lines: list[bytes]) -> list[_Section]:
    sections = [_Section()]
    for line in lines:
        if line.startswith(b"m="):
            sections.append(_Section())
        current = sections[-1]
        current.lines.append(line)
        found = _CONNECTION.match(line)
        if found is not None and current.own is None:
            current.own = _packed(found[4])
    return sections


def _ports(line: bytes, section: _Section, names: Names) -> bytes:
    """A line with its ports, and those addresses that stand beside their port, translated."""
    where = section.where
    if line.startswith(b"m="):
        found = _MEDIA.match(line)
        there = _asked(where, found[2], names) if found is not None else None
        if found is None or there is None:
            section.lost = found is not None and int(found[2]) > 0 and _STREAM.match(line) is None
            return line
        section.moved = there.address
        return found[1] + str(there.port).encode() + line[found.end() :]
    head = line[:12].lower()
    if head.startswith(b"a=rtcp:"):
        return _rtcp(line, section, names)
    if head.startswith(b"a=candidate:"):
        return _related(_candidate(line, names), names)
    return line


def _rtcp(line: bytes, section: _Section, names: Names) -> bytes:
    found = _RTCP.match(line)
    if found is not None:
        where = _packed(found[6]) if found[6] is not None else section.where
        there = _asked(where, found[2], names)
        if there is None:
            return line
        address = b""
        if found[6] is not None:
            address = found[3] + _family(there.address) + found[5] + text(there.address).encode()
        else:
            section.moved = section.moved or there.address
        return found[1] + str(there.port).encode() + address + line[found.end() :]
    if _NAMED_RTCP.match(line) is None:
        return line

    def renamed(each: re.Match[bytes]) -> bytes:
        there = _asked(section.where, each[2], names)
        return each[0] if there is None else each[1] + str(there.port).encode()

    return line[:7] + _NAMED_PORT.sub(renamed, line[7:])


def _candidate(line: bytes, names: Names) -> bytes:
    found = _CANDIDATE.match(line)
    there = _asked(_packed(found[2]), found[4], names) if found is not None else None
    if found is None or there is None:
        return line
    return found[1] + text(there.address).encode() + found[3] + str(there.port).encode() + line[found.end() :]


def _related(line: bytes, names: Names) -> bytes:
    """raddr and rport (RFC 8839 section 5.1): the base of a reflexive candidate."""
    found = _RELATED.search(line)
    there = _asked(_packed(found[2]), found[4], names) if found is not None else None
    if found is None or there is None:
        return line
    return (
        line[: found.start()] + found[1] + text(there.address).encode() + found[3] + str(there.port).encode()
        + line[found.end() :]
    )  # fmt: skip


def _address(line: bytes, follows: bytes | None, moved: Mapping[bytes | None, bytes | None], names: Names) -> bytes:
    """c= goes where its ports went, o= where the media at its address went; else it is what its host is called."""
    found = _ORIGIN.match(line) or _CONNECTION.match(line)
    here = _packed(found[4]) if found is not None else None
    if found is None or here is None:
        return line
    there = (follows if line.startswith(b"c=") else moved.get(here)) or names.session(here)
    if there is None:
        return line
    return found[1] + _family(there) + found[3] + text(there).encode() + line[found.end() :]


def _asked(address: bytes | None, port: bytes, names: Names) -> Endpoint | None:
    number = int(port)
    if address is None or not 0 < number <= 0xFFFF:
        return None
    return names.media(Endpoint(address, number))


def _family(address: bytes) -> bytes:
    return b"6" if len(address) == 16 else b"4"


def _packed(word: bytes) -> bytes | None:
    try:
        return packed(word.decode("ascii"))
    except ValueError:
        return None
