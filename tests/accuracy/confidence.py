"""What our confidence is worth: of the flows called conclusive, strong, supporting, the share that is right.

Two counts. Names: what a flow is called in the end. Evidence: every application that any signature spoke for on a flow,
by the strongest of them, whether it named the flow or was overruled; a single circumstance, such as a network or a
port, names nothing, and is a claim of the weakest kind all the same.

Who says what is right, in this order: facetime_flows.tsv; for base protocols nDPI where it agrees and tshark (or a
person) where it does not (compare.py); for applications nDPI's name of the application, or the application that a
capture of one call is named after. A flow of which nobody says anything is not counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

from tests.accuracy import truth
from tests.accuracy.compare import Pair, outcome
from tests.accuracy.labels import Label, Tuple
from tests.accuracy.ours import NAMES, Named, Run
from tests.accuracy.verdicts import Verdicts

STRENGTHS = ("conclusive", "strong", "supporting")
BASE = NAMES | {"webrtc": "DTLS"}
RIGHT = frozenset({"agreed", "appid right", "both right"})
THEIRS: Mapping[str, frozenset[str]] = {
    "whatsapp-call": frozenset({"WhatsAppCall"}),
    "meta-call": frozenset({"WhatsAppCall", "FacebookVoip"}),
    "facebook-messenger-call": frozenset({"FacebookVoip", "FacebookMessenger"}),
    "microsoft-teams": frozenset({"Skype_TeamsCall", "Teams", "Microsoft365", "Microsoft"}),
    "zoom": frozenset({"Zoom"}),
    "discord": frozenset({"Discord"}),
    "google-meet": frozenset({"GoogleCall", "GoogleMeet", "Google"}),
    "signal-call": frozenset({"SignalVoip"}),
    "telegram-call": frozenset({"TelegramVoip", "Telegram"}),
    "apple-push": frozenset({"ApplePush"}),
    "netbios-ns": frozenset({"NetBIOS"}),
    "teredo": frozenset({"Teredo"}),
    "gtp": frozenset({"GTP", "GTP_U", "GTP_C"}),
    "vxlan": frozenset({"VXLAN"}),
    "esp": frozenset({"IPSec", "IPsec"}),
}
"""Our application -> nDPI's names for it."""
OTHERS = frozenset({"apple-push", "netbios-ns", "teredo", "gtp", "vxlan", "esp"})
"""What a capture of a call may hold besides."""
NAMED_AFTER = {"messenger_": "facebook-messenger-call", "discord_": "discord"}
"""Captures of one call, by the beginning of the file's name."""
GENERAL = frozenset({"STUN", "TLS", "QUIC", "DTLS", "RTP", "SRTP", "RTCP", "DNS", "HTTP", "Unknown"})
"""nDPI's names that are no application's: it does not say."""
Z = 1.96
"""Of a confidence interval of 95 %."""


def judge(
    run: Run,
    key: Tuple,
    life: Named,
    pair: Pair | None,
    label: Label | None,
    decided: Verdicts,
    rows: list[truth.Truth],
) -> bool | None:
    """Whether a name is right; None: nobody says."""
    said = truth.label_of(rows, run.capture, key)
    if said is not None:
        return life.application != truth.FACETIME if said == "not-facetime" else life.application == said
    if life.application == truth.FACETIME:
        return False
    if life.application in NAMES or life.application == "webrtc":
        return None if pair is None else outcome(pair, decided.get((run.capture, key))) in RIGHT
    after = next((name for start, name in NAMED_AFTER.items() if run.capture.startswith(start)), None)
    if after is not None and life.application in THEIRS.keys() - OTHERS:
        return life.application in (after, "meta-call")
    wanted = THEIRS.get(life.application)
    if wanted is None or label is None:
        return None
    theirs = {part for word in label.text.split("/") for part in word.split(".")}
    if theirs & wanted:
        return True
    return None if label.guessed or theirs <= GENERAL else False


def count(
    runs: Iterable[Run],
    pairs: Mapping[tuple[str, Tuple], Pair],
    labels: Mapping[tuple[str, Tuple], Label],
    decided: Verdicts,
) -> tuple[dict[str, Counter[bool]], list[str]]:
    """Strength -> how many names are right and wrong; the wrong ones, one line each."""
    rows = truth.read()
    counts: dict[str, Counter[bool]] = {strength: Counter() for strength in STRENGTHS}
    wrong = []
    for run in runs:
        for key, flow in run.flows.items():
            for life in flow.lives:
                if life.confidence is None:
                    continue
                place = run.capture, key
                right = judge(run, key, life, pairs.get(place), labels.get(place), decided, rows)
                if right is None:
                    continue
                counts[life.confidence][right] += 1
                if not right:
                    told = labels[place].text if place in labels else "-"
                    wrong.append(f"{life.confidence:10} {run.capture} {' '.join(key)}: {life.application}, nDPI {told}")
    return counts, wrong


def evidence(
    runs: Iterable[Run],
    pairs: Mapping[tuple[str, Tuple], Pair],
    labels: Mapping[tuple[str, Tuple], Label],
    decided: Verdicts,
) -> tuple[dict[str, Counter[bool]], list[str]]:
    """Strength -> how many claims of evidence are right and wrong; the wrong ones, one line each."""
    rows = truth.read()
    counts: dict[str, Counter[bool]] = {strength: Counter() for strength in STRENGTHS}
    wrong = []
    for run in runs:
        for key, flow in run.flows.items():
            place, names = (run.capture, key), {life.application for life in flow.lives}
            for application, strength in flow.spoken.items():
                life = Named(application, strength, None, flow.first_packet)
                label, verdict = labels.get(place), decided.get(place)
                if application in names or application not in BASE or truth.label_of(rows, *place) is not None:
                    right = judge(run, key, life, pairs.get(place), label, decided, rows)
                else:  # overruled: was the protocol there?
                    base = BASE[application]
                    right = None if label is None else base == label.base or base in (verdict or {})
                if right is None:
                    continue
                counts[strength][right] += 1
                if not right:
                    wrong.append(f"{strength:10} {run.capture} {' '.join(key)}: spoke for {application}")
    return counts, wrong


def share(counted: Counter[bool]) -> float:
    return counted[True] / counted.total() if counted.total() else 0.0


def least(counted: Counter[bool]) -> float:
    """The lower end of Wilson's interval for the share."""
    n, p = counted.total(), share(counted)
    if not n:
        return 0.0
    return (p + Z * Z / (2 * n) - Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))) / (1 + Z * Z / n)


def table(counts: Mapping[str, Counter[bool]], what: str = "names") -> str:
    """With the least share that so many judged flows prove (Wilson's interval)."""
    lines = [f"{what:12}{'judged':>9}{'right':>9}{'share':>10}{'at least':>10}"]
    for strength, counted in counts.items():
        shares = f"{100 * share(counted):10.2f}{100 * least(counted):10.2f}"
        lines.append(f"{strength:12}{counted.total():9}{counted[True]:9}{shares}")
    return "\n".join(lines)


def unordered(names: Mapping[str, Counter[bool]], spoken: Mapping[str, Counter[bool]]) -> list[str]:
    """What names are worth must not rise where the strength falls; what evidence is worth must fall with it."""
    wrong = []
    given = [share(names[strength]) for strength in STRENGTHS if names[strength].total()]
    if given != sorted(given, reverse=True):
        wrong.append("the share of right names rises where the confidence falls")
    said = [share(spoken[strength]) for strength in STRENGTHS]
    if any(stronger <= weaker for stronger, weaker in pairwise(said)):
        wrong.append("the share of right evidence does not fall with its strength")
    return wrong
