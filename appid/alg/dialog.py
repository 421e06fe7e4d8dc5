"""A dialog (RFC 3261 section 12) as values: its messages, what was offered and agreed (RFC 3264), what changed.

In: nothing but values. Out: Signal, Change, Dialog; alg/dialogs.py keeps them, alg/exchange.py changes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from appid.alg.media import MediaPort, agreed
from appid.decode.sdp import Description
from appid.flow.key import FlowKey

BYE_TIMEOUT = 32.0
"""Seconds after an unanswered BYE, or a CANCEL: 64*T1, RFC 3261 sections 17.1.2.2 (timer F) and 9.1."""
MAX_CARRIERS = 8
"""Flows that one dialog's signalling is known to take."""
MAX_TAGS = 16
"""To tags of one dialog before its answer: one for each place to which a proxy forked the INVITE."""

What = Literal["invited", "answered", "media", "leaving", "ended", "crowded"]


@dataclass(frozen=True, slots=True)
class Signal:
    """One SIP message as the ALG sees it.

    method      of the request, or None of a response; `status` the other way round
    host        the inside host; `outward`: it is the sender
    peer        the other end: a channel's peer, or the packet's remote address (packed)
    flow        the flow that it came on
    """

    method: str | None
    status: int | None
    call_id: str
    cseq: int
    cseq_method: str
    from_tag: str
    to_tag: str
    description: Description | None
    host: bytes
    peer: bytes
    outward: bool
    flow: FlowKey | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What a signal changed: `end` for "ended" and "leaving" (bye, cancelled, refused; lost: it gave way to another).
    "crowded": the dialog finds no room; `why`, in words, also of one that gave way."""

    what: What
    dialog: Dialog
    end: Literal["bye", "cancelled", "refused", "lost"] = "bye"
    why: str = ""


class Key(NamedTuple):
    """What tells one dialog from another: who else knows a Call-ID has no part in it. `tag` is the caller's; one that
    comes back to the host that called (a spiral, RFC 3261 section 6) is another by its direction."""

    call_id: str
    host: bytes
    tag: str
    caller_inside: bool


Asked = tuple[str, bool, int]
"""A transaction: its method, whether the inside host asks, and the CSeq."""


class Offer(NamedTuple):
    """A description that waits for its answer; `serial` counts the offers of the dialog."""

    description: Description
    outward: bool
    serial: int


class Pair(NamedTuple):
    """What an answer left of an offer; `offer` is the one it answers."""

    inside: Description
    outside: Description
    offer: Offer

    @property
    def told(self) -> tuple[Description, Description]:
        """The offer, then the answer."""
        return (self.inside, self.outside) if self.offer.outward else (self.outside, self.inside)


@dataclass(slots=True, eq=False)
class Dialog:
    """One dialog between an inside host and a peer. `caller_inside`: the INVITE was sent by the inside host;
    `peers`: addresses of the same peer that its call has shown (a BYE may take the relay or the direct path).
    `cseqs`: the last INVITE and UPDATE of each sender, by (method, outward): the two sides count on their own
    (RFC 3261 section 12.2.1.1).

    offers     that may be answered, by transaction and branch ("": of all branches, the request's own)
    pairs      what each branch has agreed, by the callee's tag; `branch` is the one whose pair stands
    firm       the pair that a final or a reliable answer has left; `trying`: who has changed it only for now (RFC 6141)
    others     branches that answered after `branch`, and whether the caller has acknowledged them; `left`: had a BYE
    carriers   the flows that its signalling takes
    call       the number of the call that it is of; 0: of none yet
    """

    call_id: str
    host: bytes
    peer: bytes
    caller_inside: bool
    from_tag: str
    cseqs: dict[tuple[str, bool], int]
    peers: set[bytes] = field(default_factory=set)
    to_tags: set[str] = field(default_factory=set)
    offers: dict[tuple[Asked, str], Offer] = field(default_factory=dict)
    serial: int = 0
    pairs: dict[str, Pair] = field(default_factory=dict)
    branch: str = ""
    firm: Pair | None = None
    trying: Asked | None = None
    others: dict[str, bool] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    challenged: bool = False
    answered: bool = False
    cancelled: bool = False
    bye_at: float | None = None
    cancel_at: float | None = None
    ended: bool = False
    refused: bool = False
    asleep: bool = False
    """Its call was lost by silence: an answer is news, even the one of before."""
    ended_time: float = 0.0
    carriers: set[FlowKey] = field(default_factory=set)
    call: int = 0

    @property
    def key(self) -> Key:
        return Key(self.call_id, self.host, self.from_tag, self.caller_inside)

    @property
    def gives_up(self) -> float | None:
        """When it is over, should nobody answer its BYE or its CANCEL; None if none waits for that."""
        if self.ended or self.bye_at is not None:
            return None if self.ended or self.bye_at is None else self.bye_at + BYE_TIMEOUT
        return self.cancel_at + BYE_TIMEOUT if self.cancelled and self.cancel_at is not None else None

    def end(self, now: float) -> None:
        self.ended, self.ended_time = True, now

    @property
    def inviting(self) -> int:
        """CSeq of the caller's last INVITE."""
        return self.cseqs["INVITE", self.caller_inside]

    @property
    def pair(self) -> Pair | None:
        """What is agreed, for now or for good."""
        return self.pairs.get(self.branch)

    @property
    def standing(self) -> tuple[Pair, ...]:
        """What was agreed before, as long as it may come back, and what is now."""
        back = self.firm if self.answered and self.trying is not None else None
        return tuple(pair for pair in (back, self.pair) if pair is not None)

    def places(self) -> Iterator[MediaPort]:
        """The ports at which the inside host is to receive."""
        for pair in self.standing:
            yield from agreed(pair.inside, pair.outside, self.host, self.peer or None)

    def settled(self, signal: Signal) -> bool:
        """Whether a request about the session has had its last answer; unknown of one from before a restart."""
        last = (signal.status or 0) >= 200 and signal.cseq_method in ("INVITE", "UPDATE")
        return (last or signal.method in ("ACK", "PRACK")) and self.firm is not None and not self.ended

    def spoken(self) -> Iterator[Description]:
        """The inside host's descriptions that still count, answered or not."""
        yield from (offer.description for offer in self.offers.values() if offer.outward)
        yield from (pair.inside for pair in (*self.standing, *self.pairs.values()))

    def tags(self, signal: Signal) -> tuple[str, str]:
        """The caller's tag and the callee's, that of the branch, whoever sends what."""
        by_caller = signal.outward == self.caller_inside
        forward = by_caller == (signal.method is not None)
        return (signal.from_tag, signal.to_tag) if forward else (signal.to_tag, signal.from_tag)

    def shares(self, other: Dialog) -> bool:
        """Whether both are of one call: the same INVITE, by its Call-ID and its caller's tag, and it forked at the same
        peer, or one host calls by it and the other is called. Who only knows the Call-ID begins a call of his own."""
        if (self.call_id, self.from_tag) != (other.call_id, other.from_tag):
            return False
        if self.caller_inside != other.caller_inside:
            return True
        return self.peer == other.peer or self.peer in other.peers or other.peer in self.peers

    def owns(self, signal: Signal) -> bool:
        """Whether a message with its Key is its own, while it goes on: the path, and the tags. From and To keep their
        sense in the caller's requests and all answers to them (RFC 3261 section 12.2)."""
        if self.ended or (signal.peer != self.peer and signal.peer not in self.peers):
            return False
        caller_tag, callee_tag = self.tags(signal)
        if caller_tag != self.from_tag:
            return False
        if not callee_tag or not self.to_tags or callee_tag in self.to_tags or callee_tag in self.others:
            return True
        return not self.answered or self.answers_too(signal)

    def answers_too(self, signal: Signal) -> bool:
        """A 2xx of another branch of the INVITE that was answered (RFC 3261 section 13.2.2.4)."""
        return (
            self.answered and signal.cseq_method == "INVITE" and 200 <= (signal.status or 0) < 300
            and signal.outward != self.caller_inside and signal.cseq == self.inviting and signal.to_tag != ""
            and signal.to_tag not in self.to_tags and signal.to_tag not in self.left
        )  # fmt: skip

    def note_offer(self, asked: Asked, branch: str, description: Description, outward: bool) -> None:
        """An offer, in place of those of the same sender's earlier requests."""
        for known in [each for each in self.offers if each[0][:2] == asked[:2] and each[0] != asked]:
            del self.offers[known]
        self.serial += 1
        self.offers[asked, branch] = Offer(description, outward, self.serial)
