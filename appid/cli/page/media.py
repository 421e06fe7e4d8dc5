"""RTP streams as a table with their rates, and SDP offers beside their answers."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import zip_longest

from appid.cli.page.markup import Html, el, join
from appid.story import Description, Stream, Tale
from appid.story.plain import ends

ALIGNED = 300
"""Lines up to which two descriptions are aligned; more are shown one beside the other."""
NUMBERS = ("packets", "lost", "jitter, ms", "kbit/s")


def streams(tale: Tale) -> Html | None:
    if not tale.streams:
        return None
    heads = ("way", "types", "SSRC", *NUMBERS, "rate over time")
    head = el("tr", [el("th", name, scope="col", class_="num" if name in NUMBERS else None) for name in heads])
    guessed = any(stream.clock_from == "estimated" for stream in tale.streams)
    note = "Loss and jitter by RFC 3550, appendix A.3 and section 6.4.1; rates count IP packets." + (
        " ~: no clock rate was described, it is estimated from the packets." if guessed else ""
    )
    return join([
        el("h3", "RTP streams"),
        el("div", el("table", el("thead", head), el("tbody", [_stream(tale, each) for each in tale.streams]),
                     class_="streams"), class_="scroll", tabindex="0", role="region", aria_label="RTP streams"),
        el("p", note, class_="quiet"),
    ])  # fmt: skip


def _stream(tale: Tale, stream: Stream) -> Html:
    here, there, through = ends(tale, stream.src, stream.dst, stream.via)
    share = f" ({100 * stream.lost / stream.expected:.1f} %)" if stream.lost > 0 else ""
    guess = "~" if stream.clock_from == "estimated" else ""
    rate = f"{stream.bits_per_second / 1000:.1f}" if stream.bits_per_second is not None else "-"
    largest = f", most {stream.jitter_max * 1000:.2f}" if stream.jitter_max is not None else ""
    return el(
        "tr",
        el("td", f"{here} > {there}", el("span", f" through {through}" if through else "", class_="quiet"),
           el("br"), el("span", f"packets {stream.first} to {stream.last}", class_="quiet")),
        el("td", f"{stream.kind} {' '.join(map(str, stream.payload_types))}".strip()),
        el("td", el("code", f"{stream.ssrc:08x}")),
        el("td", f"{stream.packets:,}", class_="num"),
        el("td", f"{stream.lost:,}{share}", class_="num"),
        el("td", guess, _ms(stream.jitter), el("span", largest, class_="quiet"), class_="num"),
        el("td", rate, class_="num"),
        el("td", _rates(stream)),
        data_ssrc=f"0x{stream.ssrc:08x}", data_packets=stream.packets, data_lost=stream.lost, data_bytes=stream.bytes,
    )  # fmt: skip


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f}"


def _rates(stream: Stream) -> Html:
    """Bits per second in each bucket, as an area over the stream's time."""
    rates = list(over_time(stream))
    highest = max((rate for _, rate in rates), default=0) or 1
    whole = sum(seconds for seconds, _ in rates) or 1
    points, at = [], 0.0
    for seconds, rate in rates:
        until = at + 160 * seconds / whole
        points += [f"{round(x, 1)} {round(28 - 26 * rate / highest, 1)}" for x in (at, until)]
        at = until
    said = f"at most {highest / 1000:.1f} kbit/s in {stream.bucket / 1e9:g} s"
    return el("svg", el("title", said), el("path", d=f"M0 28L{'L'.join(points)}L160 28z"), viewbox="0 0 160 28",
              preserveaspectratio="none", class_="rates", role="img", aria_label=said)  # fmt: skip


def over_time(stream: Stream) -> Iterator[tuple[float, float]]:
    """(seconds, bits per second) of each bucket. The last one is as long as the stream filled it; of less than a
    quarter it is counted with the one before."""
    size, rates = stream.bucket / 1e9, list(stream.rates)
    last = (stream.last_time - stream.first_time) / 1e9 - (len(rates) - 1) * size
    lengths = [size] * (len(rates) - 1) + [last if last > 0 else size]
    if len(rates) > 1 and lengths[-1] < size / 4:
        lengths[-2:], rates[-2:] = [lengths[-2] + lengths[-1]], [rates[-2] + rates[-1]]
    for length, count in zip(lengths, rates, strict=True):
        yield length, count * 8 / length


def descriptions(tale: Tale) -> Html | None:
    """Each offer beside the answer that follows it."""
    if not tale.descriptions:
        return None
    pairs: list[tuple[Description | None, Description | None]] = []
    for description in tale.descriptions:
        if description.role == "offer":
            pairs.append((description, None))
        elif pairs and pairs[-1][1] is None:
            pairs[-1] = (pairs[-1][0], description)
        else:
            pairs.append((None, description))
    return join([el("h3", "SDP offer and answer"), [_pair(*pair) for pair in pairs]])


def _pair(offer: Description | None, answer: Description | None) -> Html:
    left = offer.text.splitlines() if offer is not None else []
    right = answer.text.splitlines() if answer is not None else []
    both = offer is not None and answer is not None
    rows = [
        el("tr", [el("td", el("code", line or ""), class_=kind if both else None) for line in (one, two)])
        for one, two, kind in aligned(left, right)
    ]
    heads = [el("th", _title(each, role), scope="col") for each, role in ((offer, "offer"), (answer, "answer"))]
    table = el("table", el("thead", el("tr", heads)), el("tbody", rows), class_="sdp")
    return el("div", table, class_="scroll", tabindex="0", role="region", aria_label="SDP offer and answer")


def _title(description: Description | None, role: str) -> str:
    if description is None:
        return f"no {role}"
    packed = f", inflated ({description.encoding})" if description.encoding else ""
    return f"{role} in packet {description.frame}{packed}"


def aligned(left: list[str], right: list[str]) -> list[tuple[str | None, str | None, str]]:
    """Lines that say the same thing stand side by side: (left, right, same | changed | alone)."""
    if max(len(left), len(right)) > ALIGNED:
        return [(one, two, "same" if one == two else "changed") for one, two in zip_longest(left, right)]
    found: list[tuple[str | None, str | None, str]] = []
    matcher = SequenceMatcher(
        None, [_subject(line) for line in left], [_subject(line) for line in right], autojunk=False
    )
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            pairs = zip(left[a:b], right[c:d], strict=True)
            found += [(one, two, "same" if one == two else "changed") for one, two in pairs]
        else:
            found += [(line, None, "alone") for line in left[a:b]] + [(None, line, "alone") for line in right[c:d]]
    return found


OF_FORMAT = frozenset({"rtpmap", "fmtp", "rtcp-fb", "imageattr", "extmap", "ssrc", "candidate", "X_FLS"})
"""Attributes of which there are many, each about its first word."""


def _subject(line: str) -> str:
    """What a line is about: "a=fmtp:104", "a=rtcp", "m=audio", "o="."""
    kind, value = line[:2], line[2:]
    if kind == "m=":
        return kind + value.partition(" ")[0]
    if kind != "a=":
        return kind
    name = value.partition(":")[0]
    return kind + (value.partition(" ")[0] if name in OF_FORMAT else name)
