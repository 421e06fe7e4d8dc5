"""What two ends of a dialog say to each other, in few words, as its keeper hears it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from appid.alg.dialog import Change, Dialog, Key, Signal
from appid.alg.dialogs import Dialogs
from appid.decode import sdp
from appid.decode.sdp import Description
from appid.wire import packed

ALICE, BOB, MALLORY = packed("192.0.2.101"), packed("203.0.113.201"), packed("198.51.100.66")
CALL_ID = "3848276298220188511@atlanta.example.com"
A_TAG, B_TAG = "9fxced76sl", "8321234356"


def description(port: int, address: str = "192.0.2.101") -> Description:
    text = f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"
    layer = sdp.decode(memoryview(text.encode()))
    assert layer is not None
    return cast(Description, layer.message)


OFFER, ANSWER = description(49172), description(3456, "203.0.113.201")


@dataclass
class Talk:
    """Alice is inside and calls Bob; `flipped`: Alice is inside, and Bob calls. Times in seconds."""

    flipped: bool = False
    dialogs: Dialogs = field(default_factory=Dialogs)
    now: float = 0.0

    def say(
        self, words: str, cseq: int, body: Description | None = None, *, by_caller: bool = True,
        caller_tag: str = A_TAG, callee_tag: str = B_TAG, peer: bytes = BOB, call_id: str = CALL_ID,
    ) -> list[str]:  # fmt: skip
        """A request "BYE", or a response "200 INVITE"; the first INVITE and its CANCEL have `callee_tag=""`."""
        first, _, method = words.partition(" ")
        request = not method
        forward = by_caller == request  # From and To swap for requests of the callee, not for responses
        tags = (caller_tag, callee_tag) if forward else (callee_tag, caller_tag)
        outward = by_caller != self.flipped
        signal = Signal(
            first if request else None, None if request else int(first), call_id, cseq, method or first, *tags,
            body, ALICE, peer, outward,
        )  # fmt: skip
        return [told(change) for change in self.dialogs.handle(signal, self.now)]

    def call(self, offer: Description | None = OFFER, cseq: int = 1) -> list[str]:
        return self.say("INVITE", cseq, offer, callee_tag="")

    def connect(self) -> Dialog:
        self.call()
        self.say("180 INVITE", 1, by_caller=False)
        self.say("200 INVITE", 1, ANSWER, by_caller=False)
        self.say("ACK", 1)
        return self.dialog

    @property
    def dialog(self) -> Dialog:
        return self.dialogs.known[Key(CALL_ID, ALICE, A_TAG, not self.flipped)]

    @property
    def session(self) -> tuple[Description | None, Description | None]:
        """The caller's description and the callee's."""
        dialog = self.dialog
        if dialog.pair is None:
            return None, None
        inside, outside, _ = dialog.pair
        return (outside, inside) if self.flipped else (inside, outside)


def told(change: Change) -> str:
    return f"{change.what} {change.end}" if change.what == "ended" else change.what
