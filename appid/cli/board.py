"""What `appid top` shows: the gateway's answers with rates, in order. In: one answer set a time. Out: rows' answers.

A flow's rate is the difference of its bytes between two looks; a call's bytes and rate are those of its flows, a
pinhole's those of the flows that it let in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from appid.cli.shown import Answer, Column, Filter

VIEWS = ("calls", "flows", "pinholes")


class Look(NamedTuple):
    """One look at the gateway. time: seconds, of any clock."""

    time: float
    flows: tuple[Answer, ...]
    calls: tuple[Answer, ...]
    pinholes: tuple[Answer, ...]
    stats: Answer
    faults: tuple[str, ...] = ()
    """Why some of it is missing: a worker that does not serve just now."""


Identity = tuple[Any, ...]


def identity(flow: Answer) -> Identity:
    """A flow's 5-tuple: foreseen flows, which the kernel let through alone, have no number of their own."""
    return (flow["proto"], flow["src"], flow["sport"], flow["dst"], flow["dport"])


class Board:
    """The latest look, beside the one before."""

    def __init__(self) -> None:
        self.stats: Answer = {}
        self.faults: tuple[str, ...] = ()
        self.packets: float | None = None
        """Packets that userspace was asked about, a second."""
        self._answers: dict[str, list[Answer]] = {view: [] for view in VIEWS}
        self._bytes: dict[Identity, int] = {}
        self._time: float | None = None

    def take(self, look: Look) -> None:
        since = look.time - self._time if self._time is not None else 0.0
        flows, now = [], {}
        for flow in look.flows:
            key, count = identity(flow), flow.get("bytes")
            rate = None
            if count is not None:
                now[key] = count
                rate = max(0, count - self._bytes.get(key, 0 if self._bytes else count)) / since if since > 0 else None
            flows.append({**flow, "rate": rate})
        asked = self.stats.get("packets")
        if asked is not None and since > 0:
            self.packets = max(0, look.stats.get("packets", asked) - asked) / since
        self._time, self._bytes, self.stats, self.faults = look.time, now, look.stats, look.faults
        of_call: dict[Any, list[Answer]] = {}
        for flow in flows:
            of_call.setdefault(flow.get("call"), []).append(flow)
        calls = [{**call, **_sums(of_call.get(call["id"], ()))} for call in look.calls]
        pinholes = [{**hole, **_sums(_through(hole, of_call.get(hole["call"], ())))} for hole in look.pinholes]
        self._answers = {"flows": flows, "calls": calls, "pinholes": pinholes}

    def rows(self, view: str, wanted: Filter, column: Column, reverse: bool) -> list[Answer]:
        """A view's answers, sorted; those that are over (ended, closed) after those that are not."""
        kept = [answer for answer in self._answers[view] if wanted.keeps(answer)]
        kept.sort(key=column.key, reverse=reverse)
        kept.sort(key=_over)
        return kept

    def call(self, number: int) -> Answer | None:
        return next((call for call in self._answers["calls"] if call["id"] == number), None)


def _over(answer: Answer) -> bool:
    return answer.get("alive") is False or answer.get("closed_at") is not None or answer.get("ended_at") is not None


def _sums(flows: Iterable[Answer]) -> Answer:
    flows = list(flows)
    rates = [flow["rate"] for flow in flows if flow["rate"] is not None]
    return {"bytes": sum(flow.get("bytes") or 0 for flow in flows), "rate": sum(rates) if rates else None}


def _through(hole: Answer, flows: Iterable[Answer]) -> list[Answer]:
    inside, peer = (hole["inside"], hole["port"]), hole["peer"]
    return [
        flow
        for flow in flows
        if ((flow["src"], flow["sport"]) == inside and flow["dst"] == peer)
        or ((flow["dst"], flow["dport"]) == inside and flow["src"] == peer)
    ]
