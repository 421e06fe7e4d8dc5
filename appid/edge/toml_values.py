"""Values as the operator's TOML writes them -> values as the core keeps them.

In: strings such as "udp/3478-3497" and "17.0.0.0/8". Out: PortRange, (packed network, prefix length). ValueError says
what is wrong, in the words of the operator.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, get_args

from appid.edge.errors import RuleError
from appid.identify.application import ALG, AlgFunction, PortRange
from appid.wire import ICMP, ICMPV6, TCP, UDP

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_PORTS = re.compile(r"(tcp|udp)/([0-9]{1,5})(?:-([0-9]{1,5}))?")
_PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMPV6}


def read_toml(path: Path) -> dict[str, Any] | RuleError:
    """The file's tables, or the one reason why it cannot be read."""
    try:
        return tomllib.loads(
            path.read_bytes().decode("utf-8-sig")
        )  # some editors begin a file with a mark of its byte order
    except OSError as error:
        return RuleError(str(path), "", "", (error.strerror or "cannot be read").lower())
    except RecursionError:
        return RuleError(str(path), "", "", "not TOML that can be read: too deeply nested")
    except UnicodeDecodeError as error:
        return RuleError(str(path), "", "", f"not TOML: no UTF-8 at byte {error.start}")
    except tomllib.TOMLDecodeError as error:
        return RuleError(str(path), "", "", f"not TOML: {error}")
    except ValueError:
        return RuleError(str(path), "", "", "not TOML that can be read: a number of thousands of digits")


def port_range(text: str) -> PortRange:
    """ "tcp/5223" or "udp/3478-3497"."""
    found = _PORTS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no port range; write tcp/5223 or udp/3478-3497")
    first, last = int(found[2]), int(found[3] or found[2])
    if not first <= last <= 0xFFFF:
        raise ValueError(f"{text!r} is no port range: ports run from the lower to the higher, at most 65535")
    return PortRange(_PROTOCOLS[found[1]], first, last)


def network(text: str) -> tuple[bytes, int]:
    """ "17.0.0.0/8", "2620:149::/32" or a single address."""
    try:
        parsed = ip_network(text, strict=False)
    except ValueError:
        parsed = None
    if parsed is None or "%" in text:
        raise ValueError(f"{text!r} is no network; write 172.16.42.0/24 or fd00:42::/64")
    first = parsed.network_address
    if first != ip_address(text.partition("/")[0]):
        raise ValueError(f"{text!r} has host bits that are not zero; write {parsed} for the network")
    if isinstance(first, IPv6Address) and first.ipv4_mapped is not None and parsed.prefixlen >= 96:
        meant = f"{first.ipv4_mapped}/{parsed.prefixlen - 96}".removesuffix("/32")
        raise ValueError(f"{text!r} is how programs write IPv4, no packet carries it; write {meant}")
    return first.packed, parsed.prefixlen


def name(text: str) -> str:
    if NAME.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no name: lower case letters, digits and hyphens")
    return text


def alg_given(given: Any) -> Any:
    """`alg` as written, if that is right."""
    functions = get_args(AlgFunction)
    if isinstance(given, bool) or (isinstance(given, list) and all(one in functions for one in given)):
        return given
    raise ValueError(f"should be true, false or a list of {', '.join(map(repr, functions))}")


def alg_functions(given: bool | Iterable[AlgFunction]) -> frozenset[AlgFunction]:
    """`alg` of a rule or an application: all, none, or these."""
    if isinstance(given, bool):
        return ALG if given else frozenset()
    return frozenset(given)
