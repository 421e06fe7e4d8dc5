"""Story -> JSON lines (docs/reference/json.md): those of `appid check`, and what explain adds to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from appid.story.step import Description, Effect, Fold, FoldLine, Step, Story, Stream, Tale
from appid.wire import Endpoint

Line = dict[str, Any]


def seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def lane(tale: Tale, end: Endpoint | None) -> str | None:
    """The name of the party at that end; one too many to have a lane stands with the peers."""
    return None if end is None else tale.parties[_lane(tale, end)].name


def _lane(tale: Tale, end: Endpoint) -> int:
    known = tale.lanes.get(end.address)
    if known is not None:
        return known
    return next((n for n, party in enumerate(tale.parties) if party.role == "peer"), len(tale.parties) - 1)


def ends(
    tale: Tale, src: Endpoint | None, dst: Endpoint | None, via: Endpoint | None
) -> tuple[str | None, str | None, str | None]:
    """Who speaks to whom, through whom. Relayed bytes come from, or go on to, the peer behind the channel."""
    here, there, peer = lane(tale, src), lane(tale, dst), lane(tale, via)
    if peer is None or src is None:
        return here, there, None
    relay_speaks = tale.parties[_lane(tale, src)].role == "relay"
    return (peer, there, here) if relay_speaks else (here, peer, there)


def described(media: Line) -> str:
    """A medium of a call as its description has it: "video 123 (H264), 100 (HEVC)"."""
    types, codecs = media["payload_types"], media["codecs"]
    if types and len(codecs) == len(types):
        beside = [f"{n} ({codec})" if codec else str(n) for n, codec in zip(types, codecs, strict=True)]
        return f"{media['kind']} {', '.join(beside)}"
    named = f" ({', '.join(codecs)})" if codecs else ""
    return f"{media['kind']} {', '.join(map(str, types)) or '-'}{named}"


def lines(story: Story) -> Iterator[Line]:
    """All of it. A line of `capture` and one of `summary` only where there was a capture."""
    if story.capture:
        yield story.capture
    for tale in story.tales:
        if tale.told["type"] == "call":
            yield tale.told
        yield from tale.flows
        yield from tale.pinholes
        yield from told(tale)
    yield from story.others
    if story.summary:
        yield story.summary


def told(tale: Tale) -> Iterator[Line]:
    """Parties, messages, streams and descriptions of one tale."""
    of = {tale.told["type"]: tale.told["id"]}
    for party in tale.parties:
        yield {"type": "party", **of, "name": party.name, "role": party.role, "addresses": list(party.addresses)}
    for item in tale.items:
        yield {**of, **(_step(tale, item) if isinstance(item, Step) else _fold(tale, item))}
    for stream in tale.streams:
        yield {**of, **_stream(tale, stream)}
    for description in tale.descriptions:
        yield {**of, **_description(description)}
    if tale.untold or tale.unseen:
        yield {"type": "untold", **of, "messages": tale.untold, "unseen": tale.unseen}


def _step(tale: Tale, step: Step) -> Line:
    here, there, through = ends(tale, step.src, step.dst, step.via)
    return {
        "type": "step", "packet": step.frame, "time": seconds(step.time or None), "flow": step.flow or None,
        "from": here, "to": there, "through": through, "protocol": step.kind, "what": step.what,
        "details": list(step.details), "effects": [_effect(effect) for effect in step.effects], "bytes": step.bytes,
        **_addresses(step),
    }  # fmt: skip


def _addresses(told: Step | FoldLine) -> Line:
    """The packet's own ends, and the peer behind a relay."""
    return {name: str(end) if end is not None else None
            for name, end in (("src", told.src), ("dst", told.dst), ("via", told.via))}  # fmt: skip


def _effect(effect: Effect) -> Line:
    because = [{"signature": signature, "facts": facts} for signature, facts in effect.reasons]
    return {"kind": effect.kind, "text": effect.text, "because": because}


def _fold(tale: Tale, fold: Fold) -> Line:
    return {
        "type": "fold", "first_packet": fold.frame, "last_packet": fold.last, "first": seconds(fold.time),
        "last": seconds(fold.last_time), "packets": fold.count, "bytes": fold.bytes,
        "lines": [_line(tale, line) for line in fold.lines.values()],
    }  # fmt: skip


def _line(tale: Tale, line: FoldLine) -> Line:
    here, there, through = ends(tale, line.src, line.dst, line.via)
    return {
        "flow": line.flow or None, "from": here, "to": there, "through": through, "what": line.what,
        "types": sorted(line.types), "packets": line.count, "bytes": line.bytes, "first_packet": line.first,
        "last_packet": line.last, "frames": line.frames, "first": seconds(line.first_time),
        "last": seconds(line.last_time), **_addresses(line),
    }  # fmt: skip


def _stream(tale: Tale, stream: Stream) -> Line:
    here, there, through = ends(tale, stream.src, stream.dst, stream.via)
    return {
        "type": "stream", "flow": stream.flow, "from": here, "to": there, "through": through,
        "src": str(stream.src), "dst": str(stream.dst), "ssrc": f"0x{stream.ssrc:08x}", "kind": stream.kind or None,
        "payload_types": list(stream.payload_types), "packets": stream.packets, "bytes": stream.bytes,
        "first_packet": stream.first, "last_packet": stream.last, "first": seconds(stream.first_time),
        "last": seconds(stream.last_time), "expected": stream.expected, "lost": stream.lost,
        "bits_per_second": stream.bits_per_second, "clock": stream.clock, "clock_from": stream.clock_from or None,
        "jitter": stream.jitter, "jitter_max": stream.jitter_max, "jitter_mean": stream.jitter_mean,
    }  # fmt: skip


def _description(description: Description) -> Line:
    return {"type": "description", "packet": description.frame, "role": description.role,
            "encoding": description.encoding or None, "text": description.text}  # fmt: skip
