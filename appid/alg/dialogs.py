"""All dialogs (RFC 3261 section 12): which one a SIP message belongs to, and what it changes.

In: Signal, one SIP message with its direction, the peer it came from or goes to, and its SDP. Out: Change values.

A message counts only if its dialog's own words match: Call-ID, CSeq, tags, the direction, and the peer. Anything else
changes nothing: a 200 from another address, a BYE with wrong tags, an INVITE replayed after the end.
"""

from __future__ import annotations

from collections import Counter

from appid.alg.dialog import MAX_CARRIERS, Change, Dialog, Key, Signal
from appid.alg.exchange import hear
from appid.alg.shares import Shares
from appid.flow.call import MAX_PEERS
from appid.flow.key import FlowKey

REMEMBERED = 64.0
"""Seconds for which an ended dialog is kept, so that a replay is known as one."""
MAX_VIEWS = 64
"""Dialogs of one Call-ID: the places to which a proxy forked it, and whoever else uses the same."""


class Dialogs:
    """By Key; in the shares of Shares."""

    def __init__(self, shares: Shares | None = None) -> None:
        self.known: dict[Key, Dialog] = {}
        self.leaving: dict[Key, float] = {}
        """When each is given up, in the order in which they began to leave."""
        self.shares = shares or Shares()
        self._views: dict[str, list[Dialog]] = {}
        self._carried: Counter[FlowKey] = Counter()

    def handle(self, signal: Signal, now: float) -> list[Change]:
        """What this message changes; nothing, if it belongs to no dialog or breaks its dialog's own words."""
        dialog = self.find(signal) or self._asked_anew(signal)
        if dialog is None or (dialog.ended and (now - dialog.ended_time > REMEMBERED or _again(dialog, signal))):
            if signal.method != "INVITE" or signal.to_tag or not signal.from_tag:
                return []
            return self._begin(signal, dialog, now)
        if _elsewhere(dialog, signal):
            dialog.peers.add(signal.peer)
        if not dialog.owns(signal):
            return []
        self.carry(dialog, signal.flow)
        changes = hear(dialog, signal, now)
        self._note(dialog)
        return changes

    def find(self, signal: Signal) -> Dialog | None:
        """The dialog that these tags name, seen from this host, over or not."""
        for caller_inside in (True, False):
            forward = (signal.outward == caller_inside) == (signal.method is not None)
            tag = signal.from_tag if forward else signal.to_tag
            dialog = self.known.get(Key(signal.call_id, signal.host, tag, caller_inside))
            if dialog is not None:
                return dialog
        return None

    def put(self, dialog: Dialog) -> None:
        """A dialog, new or known from before, in the place of any other of its key."""
        before = self.known.get(dialog.key)
        if before is not None:
            self._drop(before)
        self.known[dialog.key] = dialog
        self._views.setdefault(dialog.call_id, []).append(dialog)
        self.shares.add(dialog)
        self._note(dialog)

    def expired(self, now: float) -> list[Change]:
        """Dialogs whose BYE was never answered, or whose INVITE was not, after its CANCEL."""
        changes = []
        for key, due in list(self.leaving.items()):
            if now < due:
                break  # they wait in the order in which they began to
            dialog = self.known[key]
            self._end(dialog, now)
            changes.append(Change("ended", dialog, "bye" if dialog.bye_at is not None else "cancelled"))
        return changes

    def next_deadline(self) -> float | None:
        """When the next of them is given up; None if none waits."""
        return next(iter(self.leaving.values()), None)

    # -- of one call -------------------------------------------------------------------------------------------------

    def views(self, call_id: str) -> list[Dialog]:
        """What inside hosts see of this Call-ID, over or not; they need not be of one call."""
        return self._views.get(call_id, [])

    def living(self, call_id: str | None, call: int) -> list[Dialog]:
        """What goes on of this call, seen from its inside hosts."""
        return [d for d in self.views(call_id or "") if d.call == call and not d.ended]

    def at(self, call_id: str, host: bytes) -> list[Dialog]:
        """What goes on of this Call-ID, seen from this host, of whatever call."""
        return [d for d in self.views(call_id) if d.host == host and not d.ended]

    def beside(self, dialog: Dialog) -> list[Dialog]:
        """What goes on of the call that this dialog is part of."""
        return [d for d in self.views(dialog.call_id) if d is not dialog and not d.ended and dialog.shares(d)]

    def forget(self, call_id: str, call: int, now: float) -> None:
        """The call is over for other reasons (silence): its dialogs end as well."""
        for dialog in self.living(call_id, call):
            self._end(dialog, now)

    # -- the flows that they need ------------------------------------------------------------------------------------

    def carry(self, dialog: Dialog, flow: FlowKey | None) -> None:
        """This flow takes the dialog's signalling."""
        if flow is not None and flow not in dialog.carriers and len(dialog.carriers) < MAX_CARRIERS:
            dialog.carriers.add(flow)
            self._carried[flow] += 1

    def carries(self, flow: FlowKey) -> bool:
        """Whether a dialog that goes on needs this flow: what its other end says next may come on it."""
        return flow in self._carried

    # -- beginning and end -------------------------------------------------------------------------------------------

    def _begin(self, signal: Signal, before: Dialog | None, now: float) -> list[Change]:
        dialog = Dialog(
            signal.call_id, signal.host, signal.peer, signal.outward, signal.from_tag,
            {("INVITE", signal.outward): signal.cseq},
        )  # fmt: skip
        if signal.description is not None:
            dialog.note_offer(("INVITE", signal.outward, signal.cseq), "", signal.description, signal.outward)
        if before is not None:
            self._drop(before)
        changes = self._make_room(dialog, now)
        if changes and changes[-1].what == "crowded":
            return changes
        self.put(dialog)
        self.carry(dialog, signal.flow)
        return [*changes, Change("invited", dialog)]

    def _make_room(self, new: Dialog, now: float) -> list[Change]:
        """Who gives way to the new one, in whose share there are too many; what was answered and goes on does not."""
        changes: list[Change] = []
        views = self.views(new.call_id)
        if len(views) >= MAX_VIEWS:
            over = next((dialog for dialog in views if dialog.ended), None)
            if over is None:
                return [Change("crowded", new, "lost", f"{MAX_VIEWS} dialogs have its Call-ID")]
            self._drop(over)
        while (holder := self.shares.full(new)) is not None:
            gone = self.shares.first(holder)
            if gone is None:
                return [*changes, Change("crowded", new, "lost", f"too many dialogs of {holder}")]
            if not gone.ended:
                self._end(gone, now)
                changes.append(Change("ended", gone, "lost", f"too many dialogs of {holder}"))
            self._drop(gone)
        return changes

    def _asked_anew(self, signal: Signal) -> Dialog | None:
        """The dialog whose challenged INVITE comes once more, with a From tag of its own: RFC 3261 section 22.2 says
        the same one, and some clients take another."""
        if signal.method != "INVITE" or signal.to_tag or not signal.from_tag:
            return None
        for dialog in self.at(signal.call_id, signal.host):
            if dialog.challenged and _anew(dialog, signal):
                carriers = dialog.carriers.copy()
                self._drop(dialog)
                dialog.from_tag = signal.from_tag
                self.put(dialog)
                for flow in carriers:
                    self.carry(dialog, flow)
                return dialog
        return None

    def _note(self, dialog: Dialog) -> None:
        """What has changed of it: whether it waits for its end, is answered, is over."""
        due = dialog.gives_up
        if self.leaving.get(dialog.key) != due:
            self.leaving.pop(dialog.key, None)
            if due is not None:
                self.leaving[dialog.key] = due
        self.shares.moved(dialog)
        if dialog.ended:
            self._let_go(dialog)

    def _end(self, dialog: Dialog, now: float) -> None:
        dialog.end(now)
        self._note(dialog)

    def _let_go(self, dialog: Dialog) -> None:
        for flow in dialog.carriers:
            self._carried[flow] -= 1
            if not self._carried[flow]:
                del self._carried[flow]
        dialog.carriers.clear()

    def _drop(self, dialog: Dialog) -> None:
        self._let_go(dialog)
        del self.known[dialog.key]
        self.leaving.pop(dialog.key, None)
        self.shares.drop(dialog)
        views = self._views[dialog.call_id]
        views.remove(dialog)
        if not views:
            del self._views[dialog.call_id]


def _elsewhere(dialog: Dialog, signal: Signal) -> bool:
    """The inside caller sends his INVITE to the next server as well, since the first is silent or will not (RFC 3263
    section 4.3): the same request. Only he says to whom he speaks."""
    return (
        signal.method == "INVITE" and not signal.to_tag and signal.outward and dialog.caller_inside
        and not (dialog.answered or dialog.ended) and signal.cseq >= dialog.inviting and len(dialog.peers) < MAX_PEERS
    )  # fmt: skip


def _again(dialog: Dialog, signal: Signal) -> bool:
    """The caller asks once more after a refusal, elsewhere or otherwise: the same words, a higher CSeq (RFC 3261
    sections 8.1.3.4 and 8.1.3.5), or, from inside to the next server, the same (RFC 3263 section 4.3). A replay has the
    old one."""
    next_server = signal.outward and signal.peer != dialog.peer and signal.cseq == dialog.inviting
    return (
        dialog.refused and signal.method == "INVITE" and signal.outward == dialog.caller_inside
        and signal.from_tag == dialog.from_tag and (signal.cseq > dialog.inviting or next_server)
    )  # fmt: skip


def _anew(dialog: Dialog, signal: Signal) -> bool:
    return (
        not dialog.answered and signal.outward == dialog.caller_inside and signal.cseq > dialog.inviting
        and (signal.peer == dialog.peer or signal.peer in dialog.peers)
    )  # fmt: skip
