"""The gateway's own addresses, by interface, and the interface behind which an address lies, as the kernel has them.

In: interface names, or an address. Out: packed addresses, or an interface's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from pyroute2 import IPRoute, NetlinkError

from appid.wire import packed, text


def addresses(interfaces: Iterable[str]) -> frozenset[bytes]:
    """Addresses of both families on these interfaces, link-local ones left out; names that are not there have none."""
    wanted = set(interfaces)
    if not wanted:
        return frozenset()
    with IPRoute() as netlink:
        names = {link["index"]: link.get("ifname") for link in netlink.get_links()}
        found = {
            packed(entry.get("local") or entry.get("address"))
            for entry in netlink.get_addr()
            if names.get(entry["index"]) in wanted
        }
    return frozenset(address for address in found if address[:2] not in (b"\xfe\x80", b"\xa9\xfe"))


@contextmanager
def interfaces() -> Iterator[Callable[[bytes], str]]:
    """A function from an address to the interface by which it is reached, "" where none is; about 0.3 ms an address."""
    with IPRoute() as netlink:
        names = {link["index"]: str(link.get("ifname")) for link in netlink.get_links()}

        @lru_cache(maxsize=65536)
        def interface_of(address: bytes) -> str:
            try:
                routes = list(netlink.route("get", dst=text(address)))
            except NetlinkError:
                return ""
            return names.get(routes[0].get("oif"), "") if routes else ""

        yield interface_of
