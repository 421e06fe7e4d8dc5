"""What only several messages together say: which answers which, what is sent again, whose USERNAME it is, where a
channel leads.

In: the layers of one message after another, of one call. Out: further details for its words. Bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import NamedTuple

from appid.story.words import Facts
from appid.wire import Endpoint, Layer

MAX_KNOWN = 4096
AGAIN = "sent again, same transaction as"
FURTHER = "same transaction as"
"""Another sender's: the message on its next leg, or one that took over the other's transaction."""
LATE = 500_000_000
"""ns: an answer that takes longer is worth a word."""


@dataclass(slots=True)
class Budget:
    """What all tales of one story may keep together; each takes its part of it."""

    tales: int = 4000
    items: int = 100_000
    known: int = 300_000
    streams: int = 20_000
    characters: int = 16_000_000

    def take(self, what: str, amount: int = 1) -> bool:
        """Whether there was enough left."""
        left: int = getattr(self, what) - amount
        if left < 0:
            return False
        setattr(self, what, left)
        return True


class _Asked(NamedTuple):
    sender: bytes
    frame: int
    time: int
    username: bytes | None


class Exchange:
    """What has been asked so far in one call."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self.asked: dict[object, _Asked] = {}
        self.channels: dict[tuple[int, int], Endpoint] = {}
        self.unanswered: dict[tuple[int, int], int] = {}
        """Channel -> frame of its ChannelBind, until that is answered."""
        self.bound: dict[int, tuple[int, int]] = {}
        """Frame of a ChannelBind -> channel."""
        self.used: set[tuple[int, int]] = set()
        self.usernames: dict[bytes, int] = {}
        self._sender = b""

    def peer(self, flow: int, layers: Sequence[Layer]) -> Endpoint | None:
        """Whom relayed bytes come from or go to."""
        if not layers or layers[0].name != "turn":
            return None
        channel = Facts(layers[0].facts).one("turn.channel")
        return self.channels.get((flow, channel)) if isinstance(channel, int) else None

    def details(self, flow: int, frame: int, time: int, sender: bytes, layers: Sequence[Layer]) -> Iterator[str]:
        """What this message says beside the others; books it. One that says no more than another began with AGAIN."""
        self._sender = sender
        for layer in layers:
            if layer.name == "stun":
                yield from self._stun(flow, frame, time, Facts(layer.facts))
            elif layer.name == "turn":
                yield from self._channel(flow, Facts(layer.facts))
            elif layer.name == "sip":
                yield from self._sip(frame, time, Facts(layer.facts))

    def _stun(self, flow: int, frame: int, time: int, facts: Facts) -> Iterator[str]:
        method, transaction = facts.one("stun.method"), facts.one("stun.transaction")
        key = ("stun", method, transaction)
        name = facts.one("stun.username")
        username = name if isinstance(name, bytes) else None
        if facts.one("stun.class") in ("request", "indication"):
            if method == "channel-bind":
                self._bind(flow, frame, facts)
            yield from self._ask(key, frame, time, username)
            if username is not None and b":" not in username:
                yield from self._whose(username, frame)
            return
        if method == "channel-bind" and (asked := self.asked.get(key)) is not None:
            self.unanswered.pop(self.bound.get(asked.frame, (0, 0)), None)
        yield from self._answer(key, time, username)

    def _room(self, known: Sized) -> bool:
        return len(known) < MAX_KNOWN and self.budget.take("known")

    def _bind(self, flow: int, frame: int, facts: Facts) -> None:
        channel, peer = facts.one("stun.channel_number"), facts.one("stun.peer_address")
        if isinstance(channel, int) and isinstance(peer, Endpoint) and self._room(self.channels):
            if (flow, channel) not in self.channels:
                self.unanswered[flow, channel] = frame
                self.bound[frame] = (flow, channel)
            self.channels[flow, channel] = peer

    def _channel(self, flow: int, facts: Facts) -> Iterator[str]:
        channel = facts.one("turn.channel")
        if not isinstance(channel, int) or (flow, channel) in self.used or not self._room(self.used):
            return
        self.used.add((flow, channel))
        bound = self.unanswered.get((flow, channel))
        if bound is not None:
            yield f"before ChannelBind {bound} is answered"

    def _whose(self, username: bytes, frame: int) -> Iterator[str]:
        half = len(username) // 2
        for other, words in ((username[half:] + username[:half], "halves swapped"), (username[::-1], "bytes reversed")):
            if other in self.usernames and other != username:
                yield f"USERNAME of {self.usernames[other]}, {words}"
                return
        if username in self.usernames:
            return
        if self.usernames:
            yield "another USERNAME than before"
        if self._room(self.usernames):
            self.usernames[username] = frame

    def _sip(self, frame: int, time: int, facts: Facts) -> Iterator[str]:
        method, of = facts.one("sip.method"), facts.one("sip.cseq_method")
        key = ("sip", facts.one("sip.call_id"), facts.one("sip.cseq"), method or of)
        if method is None:
            yield from self._answer(key, time, None)
        elif method != "ACK":
            yield from self._ask(key, frame, time, None)

    def _ask(self, key: object, frame: int, time: int, username: bytes | None) -> Iterator[str]:
        asked = self.asked.get(key)
        if asked is not None:
            yield f"{AGAIN} {asked.frame}" if asked.sender == self._sender else f"{FURTHER} {asked.frame}"
        elif self._room(self.asked):
            self.asked[key] = _Asked(self._sender, frame, time, username)

    def _answer(self, key: object, time: int, username: bytes | None) -> Iterator[str]:
        asked = self.asked.get(key)
        if asked is None:
            return
        late = f" after {(time - asked.time) / 1e9:.1f} s" if time - asked.time > LATE else ""
        yield f"answers {asked.frame}{late}"
        if username is None or asked.username is None or username == asked.username:
            return
        half = len(asked.username) // 2
        if username == asked.username[half:] + asked.username[:half]:
            yield f"USERNAME of {asked.frame}, halves swapped"
        elif username == asked.username[::-1]:
            yield f"USERNAME of {asked.frame}, bytes reversed"
