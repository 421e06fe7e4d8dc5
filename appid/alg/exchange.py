"""What one message changes in its dialog: offers and answers, branches, the end (RFC 3261 sections 9, 12 to 15;
RFC 3262, 3264, 3311, 6141).

In: a dialog, a signal whose tags and path are its own. Out: Change values; what they say stands in the dialog.
"""

from __future__ import annotations

from appid.alg.dialog import MAX_TAGS, Asked, Change, Dialog, Pair, Signal
from appid.decode.sdp import Description


def hear(dialog: Dialog, signal: Signal, now: float) -> list[Change]:
    """What this message changes."""
    if signal.method is not None:
        return _request(dialog, signal, now)
    return _response(dialog, signal, now)


def _request(dialog: Dialog, signal: Signal, now: float) -> list[Change]:
    _, branch = dialog.tags(signal)
    if branch in dialog.others and signal.method not in ("ACK", "BYE"):
        return []
    match signal.method:
        case "INVITE" | "UPDATE":
            _offered(dialog, signal)
        case "ACK":
            if dialog.answered and signal.cseq == dialog.cseqs.get(("INVITE", signal.outward)):
                if branch in dialog.others and signal.outward == dialog.caller_inside:
                    dialog.others[branch] = True
                return _answer(dialog, signal, ("INVITE", signal.outward, signal.cseq), True)
        case "PRACK":  # RFC 3262 section 5: it may answer a reliable response's offer, or make one
            if signal.to_tag and signal.to_tag in dialog.to_tags:
                return _acknowledged(dialog, signal, branch)
        case "CANCEL":
            mine = signal.outward == dialog.caller_inside and signal.cseq == dialog.inviting
            if mine and not dialog.answered and not dialog.cancelled:
                dialog.cancelled, dialog.cancel_at = True, now
                return [Change("leaving", dialog, "cancelled")]
        case "BYE":
            nameless = not branch and dialog.answered and not dialog.to_tags  # a callee of RFC 2543's times: no tag
            if nameless or branch in dialog.to_tags or branch in dialog.others:
                return _bye(dialog, branch, now)
    return []


def _acknowledged(dialog: Dialog, signal: Signal, branch: str) -> list[Change]:
    """PRACK: the provisional response was a reliable one, so its answer binds."""
    asked = ("INVITE", signal.outward, dialog.cseqs.get(("INVITE", signal.outward), -1))
    waiting, pair = dialog.offers.get((asked, branch)), dialog.pairs.get(branch)
    if waiting is None or waiting.outward == signal.outward or (pair and pair.offer.serial >= waiting.serial):
        if signal.description is not None:
            asked_here = ("PRACK", signal.outward, signal.cseq)
            dialog.note_offer(asked_here, "", signal.description, signal.outward)
        before = dialog.standing
        _commit(dialog, asked)
        return [Change("media", dialog)] if dialog.standing != before else []
    return _answer(dialog, signal, asked, True)


def _bye(dialog: Dialog, branch: str, now: float) -> list[Change]:
    """A BYE is one branch's: of those that ring, or have answered as well, another may go on (RFC 3261 sections 15
    and 13.2.2.4)."""
    before, heirs = dialog.standing, [tag for tag, acknowledged in dialog.others.items() if acknowledged]
    if branch in dialog.others:
        del dialog.others[branch]
    elif not dialog.answered and len(dialog.to_tags) > 1:
        return _left(dialog, branch)
    elif heirs and dialog.bye_at is None:
        dialog.branch, dialog.trying = heirs[0], None
        dialog.to_tags = {dialog.branch}
        dialog.firm = dialog.pairs.get(dialog.branch)
        del dialog.others[dialog.branch]
    else:
        if dialog.bye_at is None:
            dialog.bye_at = now
        return [Change("leaving", dialog)]
    dialog.left.add(branch)
    dialog.pairs.pop(branch, None)
    return [Change("media", dialog)] if dialog.standing != before else []


def _left(dialog: Dialog, branch: str) -> list[Change]:
    """One of those that ring is over, the others go on: by its BYE, or as a proxy says of it (199, RFC 6228)."""
    before = dialog.standing
    dialog.to_tags.discard(branch)
    dialog.left.add(branch)
    dialog.pairs.pop(branch, None)
    if dialog.branch == branch:
        dialog.branch = next((tag for tag in dialog.pairs if tag in dialog.to_tags), "")
    return [Change("media", dialog)] if dialog.standing != before else []


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


def _response(dialog: Dialog, signal: Signal, now: float) -> list[Change]:
    status = signal.status or 0
    asked = (signal.cseq_method, not signal.outward, signal.cseq)
    if signal.cseq_method == "BYE":
        if dialog.bye_at is not None and status >= 200 and status not in (401, 407):  # then it is sent again
            dialog.end(now)
            return [Change("ended", dialog)]
        return []
    if signal.cseq_method == "PRACK":
        return _answer(dialog, signal, asked, True) if 200 <= status < 300 else []
    if signal.cseq != dialog.cseqs.get((signal.cseq_method, not signal.outward)):
        return []
    if status >= 300:
        return _refused(dialog, signal, now)
    if status <= 100 or signal.to_tag in dialog.left:
        return []
    if status == 199:
        return _left(dialog, signal.to_tag) if not dialog.answered and signal.to_tag in dialog.to_tags else []
    if dialog.answers_too(signal) and len(dialog.others) + len(dialog.left) < MAX_TAGS:
        dialog.others.setdefault(signal.to_tag, False)
    if signal.to_tag and not dialog.answered and len(dialog.to_tags) + len(dialog.left) < MAX_TAGS:
        dialog.to_tags.add(signal.to_tag)
    if status < 200 or signal.cseq_method != "INVITE" or dialog.answered:
        return _answer(dialog, signal, asked, status >= 200)
    dialog.answered = True
    if dialog.cancelled and dialog.bye_at is None:  # the answer was quicker (RFC 3261 section 9.1)
        dialog.cancelled = False
    before = dialog.pair
    if signal.to_tag:
        dialog.to_tags = {signal.to_tag}  # of several branches this one won (RFC 3261 section 13.2.2.4)
        dialog.branch = signal.to_tag
    changes = _answer(dialog, signal, asked, True)
    if not changes and dialog.pair not in (None, before):  # agreed when it still rang; another was heard since
        changes = [Change("media", dialog)]
    dialog.firm, dialog.trying = dialog.pair, None
    return [Change("answered", dialog), *changes]


def _answer(dialog: Dialog, signal: Signal, asked: Asked, binds: bool) -> list[Change]:
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
        _commit(dialog, asked)
    news = dialog.asleep or words(dialog.standing) != words(before)
    return [Change("media", dialog)] if news else []


def _commit(dialog: Dialog, asked: Asked) -> None:
    """What this transaction changed for now is changed for good."""
    if dialog.trying == asked:
        dialog.firm, dialog.trying = dialog.pair, None


def _refused(dialog: Dialog, signal: Signal, now: float) -> list[Change]:
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
        return [Change("media", dialog)] if words(dialog.standing) != words(before) else []
    dialog.end(now)
    dialog.refused = True
    return [Change("ended", dialog, "cancelled" if dialog.cancelled else "refused")]


def words(pairs: tuple[Pair, ...]) -> list[tuple[Description, Description]]:
    return [(pair.inside, pair.outside) for pair in pairs]
