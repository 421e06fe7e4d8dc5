"""Dialogs (RFC 3261 section 12, 3264 offer and answer): which call a SIP message belongs to, and what it changes.

In: Signal, one SIP message with its direction, the peer it came from or goes to, and its SDP. Out: Change values.

A message counts only if its dialog's own words match: Call-ID, CSeq, tags, the direction, and the peer. Anything else
changes nothing: a 200 from another address, a BYE with wrong tags, an INVITE replayed after the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple

from appid.alg.media import MediaPort, agreed
from appid.decode.sdp import Description
from appid.flow.key import FlowKey

BYE_TIMEOUT = 32.0
"""Seconds after an unanswered BYE, or a CANCEL: 64*T1, RFC 3261 sections 17.1.2.2 (timer F) and 9.1."""
REMEMBERED = 64.0
"""Seconds for which an ended dialog's Call-ID is kept, so that a replay is known as one."""
MAX_DIALOGS = 8192
MAX_CARRIERS = 8
"""Flows that one dialog's signalling is known to take."""
MAX_TAGS = 16
"""To tags of one dialog before its answer: one for each place to which a proxy forked the INVITE."""

What = Literal["invited", "answered", "media", "leaving", "ended"]


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
    """What a signal changed: `end` for "ended" and "leaving" (bye, cancelled, refused)."""

    what: What
    dialog: Dialog
    end: Literal["bye", "cancelled", "refused"] = "bye"


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
            yield from agreed(pair.inside, pair.outside, self.host)

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

    def note_offer(self, asked: Asked, branch: str, description: Description, outward: bool) -> None:
        """An offer, in place of those of the same sender's earlier requests."""
        for known in [each for each in self.offers if each[0][:2] == asked[:2] and each[0] != asked]:
            del self.offers[known]
        self.serial += 1
        self.offers[asked, branch] = Offer(description, outward, self.serial)


class Dialogs:
    """All dialogs, by Call-ID and inside host; at most MAX_DIALOGS, ended ones give way first."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, bytes], Dialog] = {}
        self.leaving: dict[tuple[str, bytes], Dialog] = {}
        self.by_call_id: dict[str, list[Dialog]] = {}
        self._over: dict[tuple[str, bytes], None] = {}
        self._carried: Counter[FlowKey] = Counter()

    def handle(self, signal: Signal, now: float) -> list[Change]:
        """What this message changes; nothing, if it belongs to no dialog or breaks its dialog's own words."""
        key = (signal.call_id, signal.host)
        dialog = self.known.get(key)
        if dialog is None or (dialog.ended and (now - dialog.ended_time > REMEMBERED or _again(dialog, signal))):
            if signal.method != "INVITE" or signal.to_tag or not signal.from_tag:
                return []
            if not self._make_room(now):
                return []
            if dialog is not None:
                self._drop(key)
            self.known[key] = dialog = self._create(signal)
            self.by_call_id.setdefault(signal.call_id, []).append(dialog)
            self.carry(dialog, signal.flow)
            return [Change("invited", dialog)]
        if dialog.challenged and _anew(dialog, signal):
            dialog.from_tag = signal.from_tag
        if dialog.ended or not self._same_tags(dialog, signal):
            return []
        if signal.peer != dialog.peer and signal.peer not in dialog.peers:
            return []
        self.carry(dialog, signal.flow)
        if signal.method is not None:
            return self._request(dialog, signal, now)
        return self._response(dialog, signal, now)

    def carry(self, dialog: Dialog, flow: FlowKey | None) -> None:
        """This flow takes the dialog's signalling."""
        if flow is not None and flow not in dialog.carriers and len(dialog.carriers) < MAX_CARRIERS:
            dialog.carriers.add(flow)
            self._carried[flow] += 1

    def carries(self, flow: FlowKey) -> bool:
        """Whether a dialog that goes on needs this flow: what its other end says next may come on it."""
        return flow in self._carried

    def put(self, dialog: Dialog) -> None:
        """A dialog known from before, in the place of any other of its Call-ID and host."""
        key = (dialog.call_id, dialog.host)
        if key in self.known:
            self._drop(key)
        self.known[key] = dialog
        self.by_call_id.setdefault(dialog.call_id, []).append(dialog)
        if dialog.bye_at is not None:
            self.leaving[key] = dialog

    def expired(self, now: float) -> list[Change]:
        """Dialogs whose BYE was never answered, or whose INVITE was not, after its CANCEL."""
        changes = []
        for dialog in list(self.leaving.values()):
            if now < _given_up(dialog):
                break  # they wait in the order in which they began to
            self._end(dialog, now)
            changes.append(Change("ended", dialog, "bye" if dialog.bye_at is not None else "cancelled"))
        return changes

    def next_deadline(self) -> float | None:
        """When the next of them is given up; None if none waits."""
        return _given_up(next(iter(self.leaving.values()))) if self.leaving else None

    def living(self, call_id: str) -> bool:
        """Whether another inside host's view of this Call-ID goes on."""
        return any(not d.ended for d in self.by_call_id.get(call_id, ()))

    def views(self, call_id: str) -> list[Dialog]:
        """What the inside hosts of this Call-ID each see of it."""
        return self.by_call_id.get(call_id, [])

    def forget(self, call_id: str, now: float) -> None:
        """The call is over for other reasons (silence): its dialogs end as well."""
        for dialog in self.by_call_id.get(call_id, ()):
            if not dialog.ended:
                self._end(dialog, now)

    @staticmethod
    def _create(signal: Signal) -> Dialog:
        cseqs = {("INVITE", signal.outward): signal.cseq}
        dialog = Dialog(signal.call_id, signal.host, signal.peer, signal.outward, signal.from_tag, cseqs)
        if signal.description is not None:
            dialog.note_offer(("INVITE", signal.outward, signal.cseq), "", signal.description, signal.outward)
        return dialog

    @staticmethod
    def _same_tags(dialog: Dialog, signal: Signal) -> bool:
        """RFC 3261 section 12.2: From and To keep their sense in the caller's requests and all answers to them."""
        caller_tag, callee_tag = dialog.tags(signal)
        if caller_tag != dialog.from_tag:
            return False
        if not callee_tag or not dialog.to_tags or callee_tag in dialog.to_tags or callee_tag in dialog.others:
            return True
        return not dialog.answered or _answers_too(dialog, signal)

    def _request(self, dialog: Dialog, signal: Signal, now: float) -> list[Change]:
        _, branch = dialog.tags(signal)
        if branch in dialog.others and signal.method not in ("ACK", "BYE"):
            return []
        match signal.method:
            case "INVITE" | "UPDATE":
                self._offered(dialog, signal)
            case "ACK":
                if dialog.answered and signal.cseq == dialog.cseqs.get(("INVITE", signal.outward)):
                    if branch in dialog.others and signal.outward == dialog.caller_inside:
                        dialog.others[branch] = True
                    return self._answer(dialog, signal, ("INVITE", signal.outward, signal.cseq), True)
            case "PRACK":  # RFC 3262 section 5: it may answer a reliable response's offer, or make one
                if signal.to_tag and signal.to_tag in dialog.to_tags:
                    return self._acknowledged(dialog, signal, branch)
            case "CANCEL":
                mine = signal.outward == dialog.caller_inside and signal.cseq == dialog.inviting
                if mine and not dialog.answered and not dialog.cancelled:
                    dialog.cancelled, dialog.cancel_at = True, now
                    self.leaving[dialog.call_id, dialog.host] = dialog
                    return [Change("leaving", dialog, "cancelled")]
            case "BYE":
                if signal.to_tag and (branch in dialog.to_tags or branch in dialog.others):
                    return self._bye(dialog, branch, now)
        return []

    def _acknowledged(self, dialog: Dialog, signal: Signal, branch: str) -> list[Change]:
        """PRACK: the provisional response was a reliable one, so its answer binds."""
        asked = ("INVITE", signal.outward, dialog.cseqs.get(("INVITE", signal.outward), -1))
        waiting, pair = dialog.offers.get((asked, branch)), dialog.pairs.get(branch)
        if waiting is None or waiting.outward == signal.outward or (pair and pair.offer.serial >= waiting.serial):
            if signal.description is not None:
                asked_here = ("PRACK", signal.outward, signal.cseq)
                dialog.note_offer(asked_here, "", signal.description, signal.outward)
            before = dialog.standing
            self._commit(dialog, asked)
            return [Change("media", dialog)] if dialog.standing != before else []
        return self._answer(dialog, signal, asked, True)

    def _bye(self, dialog: Dialog, branch: str, now: float) -> list[Change]:
        """A BYE is one branch's: of those that ring, or have answered as well, another may go on (RFC 3261 sections 15
        and 13.2.2.4)."""
        before, heirs = dialog.standing, [tag for tag, acknowledged in dialog.others.items() if acknowledged]
        if branch in dialog.others:
            del dialog.others[branch]
        elif not dialog.answered and len(dialog.to_tags) > 1:
            dialog.to_tags.remove(branch)
            if dialog.branch == branch:
                dialog.branch = next((tag for tag in dialog.pairs if tag in dialog.to_tags), "")
        elif heirs and dialog.bye_at is None:
            dialog.branch, dialog.trying = heirs[0], None
            dialog.to_tags = {dialog.branch}
            dialog.firm = dialog.pairs.get(dialog.branch)
            del dialog.others[dialog.branch]
        else:
            if dialog.bye_at is None:
                dialog.bye_at = now
                self.leaving.pop((dialog.call_id, dialog.host), None)
                self.leaving[dialog.call_id, dialog.host] = dialog
            return [Change("leaving", dialog)]
        dialog.left.add(branch)
        dialog.pairs.pop(branch, None)
        return [Change("media", dialog)] if dialog.standing != before else []

    @staticmethod
    def _offered(dialog: Dialog, signal: Signal) -> None:
        """A further INVITE or UPDATE: one within the dialog, or, before any answer, the first once more (RFC 3261
        section 22.2, with credentials). Without a description the offer is to come in the answer (section 14.1)."""
        asked = (str(signal.method), signal.outward)
        again = signal.method == "INVITE" and signal.outward == dialog.caller_inside and not dialog.answered
        if signal.cseq <= dialog.cseqs.get(asked, -1) or not (signal.to_tag or again):
            return
        dialog.cseqs[asked] = signal.cseq
        dialog.challenged = False
        if signal.description is not None:
            dialog.note_offer((*asked, signal.cseq), "", signal.description, signal.outward)

    def _response(self, dialog: Dialog, signal: Signal, now: float) -> list[Change]:
        status = signal.status or 0
        asked = (signal.cseq_method, not signal.outward, signal.cseq)
        if signal.cseq_method == "BYE":
            if dialog.bye_at is not None and status >= 200 and status not in (401, 407):  # then it is sent again
                self._end(dialog, now)
                return [Change("ended", dialog)]
            return []
        if signal.cseq_method == "PRACK":
            return self._answer(dialog, signal, asked, True) if 200 <= status < 300 else []
        if signal.cseq != dialog.cseqs.get((signal.cseq_method, not signal.outward)):
            return []
        if status >= 300:
            return self._refused(dialog, signal, now)
        if status <= 100 or signal.to_tag in dialog.left:
            return []
        if _answers_too(dialog, signal) and len(dialog.others) + len(dialog.left) < MAX_TAGS:
            dialog.others.setdefault(signal.to_tag, False)
        if signal.to_tag and not dialog.answered and len(dialog.to_tags) + len(dialog.left) < MAX_TAGS:
            dialog.to_tags.add(signal.to_tag)
        if status < 200 or signal.cseq_method != "INVITE" or dialog.answered:
            return self._answer(dialog, signal, asked, status >= 200)
        dialog.answered = True
        if dialog.cancelled and dialog.bye_at is None:  # the answer was quicker (RFC 3261 section 9.1)
            dialog.cancelled = False
            self.leaving.pop((dialog.call_id, dialog.host), None)
        before = dialog.pair
        if signal.to_tag:
            dialog.to_tags = {signal.to_tag}  # of several branches this one won (RFC 3261 section 13.2.2.4)
            dialog.branch = signal.to_tag
        changes = self._answer(dialog, signal, asked, True)
        if not changes and dialog.pair not in (None, before):  # agreed when it still rang; another was heard since
            changes = [Change("media", dialog)]
        dialog.firm, dialog.trying = dialog.pair, None
        return [Change("answered", dialog), *changes]

    def _answer(self, dialog: Dialog, signal: Signal, asked: Asked, binds: bool) -> list[Change]:
        """RFC 3264: the first description is the offer, the one that comes back on it the answer. `binds`: it cannot be
        taken back by a refusal. What an older offer's answer says over again does not count."""
        branch, before = dialog.tags(signal)[1] or dialog.branch, dialog.standing
        description = signal.description
        offer = dialog.offers.get((asked, branch)) or dialog.offers.get((asked, ""))
        if branch and branch not in dialog.to_tags and branch not in dialog.others:
            return []
        if description is not None and offer is None:
            if asked[0] == "INVITE" and signal.method is None:
                dialog.note_offer(asked, branch, description, signal.outward)
            return []
        if description is not None and offer is not None and signal.outward != offer.outward:
            ours, theirs = (offer.description, description) if offer.outward else (description, offer.description)
            known = dialog.pairs.get(branch)
            if known is None or known.offer.serial <= offer.serial:
                dialog.pairs[branch] = Pair(ours, theirs, offer)
                if branch not in dialog.others:
                    dialog.branch, dialog.trying = branch, asked
        if binds and branch not in dialog.others:
            self._commit(dialog, asked)
        news = dialog.asleep or _words(dialog.standing) != _words(before)
        return [Change("media", dialog)] if news else []

    @staticmethod
    def _commit(dialog: Dialog, asked: Asked) -> None:
        """What this transaction changed for now is changed for good."""
        if dialog.trying == asked:
            dialog.firm, dialog.trying = dialog.pair, None

    def _refused(self, dialog: Dialog, signal: Signal, now: float) -> list[Change]:
        first = signal.cseq_method == "INVITE" and not dialog.answered
        if not first or signal.status in (401, 407, 422, 491):
            # a refused re-INVITE leaves the session as it was (RFC 3261 section 14.1); a challenge is asked again
            asked, before = (signal.cseq_method, not signal.outward, signal.cseq), dialog.standing
            for known in [each for each in dialog.offers if each[0] == asked]:
                del dialog.offers[known]
            dialog.challenged = first
            if dialog.trying == asked and dialog.answered:
                dialog.trying = None
                if dialog.firm is not None:
                    dialog.pairs[dialog.branch] = dialog.firm
            return [Change("media", dialog)] if _words(dialog.standing) != _words(before) else []
        self._end(dialog, now)
        dialog.refused = True
        return [Change("ended", dialog, "cancelled" if dialog.cancelled else "refused")]

    def _end(self, dialog: Dialog, now: float) -> None:
        dialog.ended, dialog.ended_time = True, now
        self.leaving.pop((dialog.call_id, dialog.host), None)
        self._over[dialog.call_id, dialog.host] = None
        self._left(dialog)

    def _left(self, dialog: Dialog) -> None:
        for flow in dialog.carriers:
            self._carried[flow] -= 1
            if not self._carried[flow]:
                del self._carried[flow]
        dialog.carriers.clear()

    def _make_room(self, now: float) -> bool:
        """Whether there is room for one more; what was answered and goes on does not give way."""
        if len(self.known) < MAX_DIALOGS:
            return True
        while self._over and now - self.known[next(iter(self._over))].ended_time > REMEMBERED:
            self._drop(next(iter(self._over)))
        if len(self.known) >= MAX_DIALOGS:
            first = islice(self.known.items(), MAX_TAGS)
            gone = next(iter(self._over), None) or next((key for key, d in first if not d.answered), None)
            if gone is None:
                return False
            self._drop(gone)
        return True

    def _drop(self, key: tuple[str, bytes]) -> None:
        dialog = self.known.pop(key)
        self._left(dialog)
        self.leaving.pop(key, None)
        self._over.pop(key, None)
        views = self.by_call_id[dialog.call_id]
        views.remove(dialog)
        if not views:
            del self.by_call_id[dialog.call_id]


def _given_up(dialog: Dialog) -> float:
    since = dialog.bye_at if dialog.bye_at is not None else dialog.cancel_at
    return (since if since is not None else 0.0) + BYE_TIMEOUT


def _again(dialog: Dialog, signal: Signal) -> bool:
    """The caller asks once more after a refusal, elsewhere or otherwise: the same words, a higher CSeq (RFC 3261
    sections 8.1.3.4 and 8.1.3.5). A replay has the old one."""
    return (
        dialog.refused and signal.method == "INVITE" and signal.outward == dialog.caller_inside
        and signal.from_tag == dialog.from_tag and signal.cseq > dialog.inviting
    )  # fmt: skip


def _anew(dialog: Dialog, signal: Signal) -> bool:
    """The challenged INVITE once more, with a From tag of its own: RFC 3261 section 22.2 says the same one, and some
    clients take another."""
    return (
        signal.method == "INVITE" and not signal.to_tag and signal.from_tag != "" and not dialog.answered
        and signal.outward == dialog.caller_inside and signal.cseq > dialog.inviting
        and (signal.peer == dialog.peer or signal.peer in dialog.peers)
    )  # fmt: skip


def _answers_too(dialog: Dialog, signal: Signal) -> bool:
    """A 2xx of another branch of the INVITE that was answered (RFC 3261 section 13.2.2.4)."""
    return (
        dialog.answered and signal.cseq_method == "INVITE" and 200 <= (signal.status or 0) < 300
        and signal.outward != dialog.caller_inside and signal.cseq == dialog.inviting and signal.to_tag != ""
        and signal.to_tag not in dialog.to_tags and signal.to_tag not in dialog.left
    )  # fmt: skip


def _words(pairs: tuple[Pair, ...]) -> list[tuple[Description, Description]]:
    return [(pair.inside, pair.outside) for pair in pairs]
