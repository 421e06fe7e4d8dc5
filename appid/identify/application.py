"""Applications as data: what one file of rules/apps says, loaded. No parsing here (edge/rule_files.py reads TOML)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from appid.identify.identification import Confidence
from appid.wire import UDP, FactValue

Operator = Literal["is", "in", "has", "lacks", "prefix", "suffix", "length", "within"]
AlgFunction = Literal["expectations", "translation", "channel-bind"]
"""expectations  media that a dialog announces is let in       translation  addresses in payloads, and their bindings
channel-bind  a peer's check on the client's own channel lets its direct one in"""
ALG: Final[frozenset[AlgFunction]] = frozenset(get_args(AlgFunction))
Scope = Literal["packet", "flow", "host", "call"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One fact and what must hold of it.

    is      a fact of that name has this value          in      ... one of these values (a tuple)
    has     the name occurs with this value among others (same as `is`, reads better for repeated facts), but
            the value True means: occurs at all
    lacks   the name does not occur with this value (True: does not occur at all)
    prefix / suffix   of a str or bytes value           length  len(value) is this
    within  an int in [low, high], or an address in this network ((packed network, prefix length))
    """

    fact: str
    operator: Operator
    value: FactValue


@dataclass(frozen=True, slots=True)
class Signature:
    """A conjunction of conditions. `scope` says over what they must hold together:
    one packet's facts, all facts of the flow so far, of the inside host, of the call.

    `date`: when its source last showed it, ISO 8601. `watch`: of a flow named by it the signalling can be read; False
    for a generation that can not (docs/decisions/0012), and for what any generation shows."""

    name: str
    strength: Confidence
    scope: Scope
    conditions: tuple[Condition, ...]
    source: str
    era: str
    date: str = ""
    watch: bool = True


@dataclass(frozen=True, slots=True)
class PortRange:
    proto: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Implicit:
    """A flow of `application` serves the application whose file says so (policy.md point 8): to one of these ports
    (empty: any), and, with `provisional`, only while its name may still shift."""

    application: str
    ports: tuple[PortRange, ...] = ()
    provisional: bool = False


@dataclass(frozen=True, slots=True)
class Application:
    """One file of rules/apps.

    may_become      names that a flow of this name may still shift to (policy.md point 2); empty = final
    depends_on      names that it needs to work (policy.md point 7)
    implicit        flows that serve it (policy.md point 8)
    inbound         "foreseen": never matches a flow begun outside that no call foresaw (policy.md point 3)
    default_ports   for service = application-default (policy.md point 5)
    media_ports     the range in which expectations may open ports; dialog_ports: the range for those that a dialog has
                    negotiated, where it is another
    watch           its signalling can be read: keep sending it to userspace after the decision, if a signature whose
                    own `watch` is set named it
    kept_alive_by   protocols whose messages only keep its path open, on its default ports (RFC 5626 section 3.5)
    expect_from_channel_bind  the client's own ChannelBind may raise an expectation (design.md, the ALG)
    alg             what the ALG does for its calls
    excluded_by     signatures whose match rules this application out for a flow
    """

    name: str
    description: str
    category: str
    risk: int
    number: int
    signatures: tuple[Signature, ...] = ()
    excluded_by: tuple[Signature, ...] = ()
    may_become: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    implicit: tuple[Implicit, ...] = ()
    characteristics: tuple[str, ...] = ()
    inbound: Literal["any", "foreseen"] = "any"
    default_ports: tuple[PortRange, ...] = ()
    media_ports: tuple[PortRange, ...] = ()
    dialog_ports: tuple[PortRange, ...] = ()
    watch: bool = False
    kept_alive_by: tuple[str, ...] = ()
    expect_from_channel_bind: bool = False
    alg: frozenset[AlgFunction] = ALG
    references: tuple[str, ...] = ()

    def opens(self, port: int) -> bool:
        """Whether a dialog may open this UDP port."""
        ranges = self.dialog_ports or self.media_ports
        return any(each.proto == UDP and each.first <= port <= each.last for each in ranges)
