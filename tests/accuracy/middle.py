"""The same captures from the middle of their flows, as a gateway that has just started sees them.

In: a capture, how many of each flow's packets with payload are gone. Out: its Run. No flow may be called FaceTime there
that is not, and those that are must be; a name given from the middle is right if the whole flow has it, or may shift to
it, or both stand for one base protocol.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from appid.edge.capture import CaptureError, Writer, frames
from appid.edge.rule_files import load_applications
from appid.identify.naming import Lineage
from appid.packet import parse
from appid.packet.link import strip
from appid.wire import TCP, UDP, DecodeError, FlowKey
from tests.accuracy import ours, truth
from tests.accuracy.ours import Run

GONE = (1, 3, 12)
"""Packets with payload that are missing of each flow."""


def cut(path: Path, out: Path, gone: int) -> None:
    """`path` without the first packets of each flow, up to the `gone`-th with payload; raw IP."""
    seen: Counter[tuple[int, frozenset[tuple[bytes, int]]]] = Counter()
    with Writer(out) as writer:
        try:
            for _, time, linktype, frame in frames(path):
                data = strip(linktype, frame)
                if data is None or len(data) < 20:
                    continue
                key, payload = _flow(data)
                if key is not None:
                    flow = key.proto, frozenset({(key.src, key.sport), (key.dst, key.dport)})
                    if seen[flow] < gone:
                        seen[flow] += payload
                        continue
                writer.write(time, data)
        except CaptureError:
            pass  # the rest is damaged, as in the whole one


def _flow(data: memoryview) -> tuple[FlowKey | None, bool]:
    try:
        packet = parse(data)
    except DecodeError:
        return None, False
    if packet is None or packet.key.proto not in (TCP, UDP) or packet.fragment or packet.encapsulation is not None:
        return None, False
    return packet.key, bool(packet.payload)


def run(path: Path, gone: int) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / path.name
        cut(path, out, gone)
        return ours.safe_run(out)


def runner(gone: int) -> partial[Run]:
    return partial(run, gone=gone)


def compare(whole: Iterable[Run], from_middle: Iterable[Run]) -> tuple[Counter[bool], list[str], list[str]]:
    """How many names agree with the whole flow's; those that do not; FaceTime where there is none, and failures."""
    lineage, rows = Lineage(load_applications()), truth.read()
    agree: Counter[bool] = Counter()
    differ, wrong = [], []
    for full, part in zip(whole, from_middle, strict=True):
        wrong += [f"{part.capture} from the middle: {part.failure}"] if part.failure is not None else []
        for key, flow in part.flows.items():
            known = full.flows.get(key)
            place = f"{part.capture} {' '.join(key)}"
            if (truth.FACETIME in flow.applications) is not (truth.label_of(rows, part.capture, key) == truth.FACETIME):
                wrong.append(f"{place}: named {'/'.join(flow.applications)} from the middle")
            for life in flow.lives:
                if life.confidence is None or known is None or all(one.confidence is None for one in known.lives):
                    continue
                name = life.application
                right = name in known.applications or bool(flow.bases & known.bases)
                right = right or any(
                    lineage.leads_to(name, one) for one in known.applications if one in lineage.descendants
                )
                agree[right] += 1
                if not right:
                    differ.append(f"{place}: {name} ({life.confidence}), whole {'/'.join(known.applications)}")
    return agree, differ, wrong
