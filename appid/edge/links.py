"""The gateway's own addresses, by interface, and what lies behind which interface, as the kernel has it.

In: interface names. Out: packed addresses; the routes, by which an interface is found from an address.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from socket import AF_INET, AF_INET6
from typing import NamedTuple

from pyroute2 import IPRoute

from appid.policy.rule import Network
from appid.wire import packed

_MAIN, _UNICAST = 254, 1  # RT_TABLE_MAIN, RTN_UNICAST (rtnetlink.h)
_LINK_LOCAL = (b"\xfe\x80", b"\xa9\xfe")


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
    return frozenset(address for address in found if address[:2] not in _LINK_LOCAL)


class Routes(NamedTuple):
    """The unicast routes of the main table: (destination, interface), default routes among them."""

    routes: tuple[tuple[Network, str], ...] = ()

    @property
    def uplinks(self) -> frozenset[str]:
        """The interfaces by which default routes leave."""
        return frozenset(interface for (_, prefix), interface in self.routes if not prefix)

    def behind(self, interfaces: Collection[str]) -> tuple[Network, ...]:
        """The networks that lie behind these interfaces, link-local ones and the rest of the world left out."""
        return tuple(
            dict.fromkeys(
                network
                for network, interface in self.routes
                if interface in interfaces and network[1] and network[0][:2] not in _LINK_LOCAL
            )
        )

    def finder(self) -> Callable[[bytes], str]:
        """A function from an address to the interface by which it is reached, "" where none is."""
        tables: dict[tuple[int, int], dict[int, str]] = {}
        for (base, prefix), interface in self.routes:
            shift = 8 * len(base) - prefix
            tables.setdefault((len(base), shift), {}).setdefault(int.from_bytes(base, "big") >> shift, interface)
        shifts = {width: sorted(shift for w, shift in tables if w == width) for width in (4, 16)}

        def interface_of(address: bytes) -> str:
            number = int.from_bytes(address, "big")
            found = (tables[len(address), shift].get(number >> shift) for shift in shifts[len(address)])
            return next((interface for interface in found if interface is not None), "")

        return interface_of


def read_routes() -> Routes:
    """As the kernel has them now, the one of the lowest metric first."""
    with IPRoute() as netlink:
        names = {link["index"]: str(link.get("ifname")) for link in netlink.get_links()}
        found = []
        for family, width in ((AF_INET, 4), (AF_INET6, 16)):
            for route in netlink.get_routes(family=family, table=_MAIN, type=_UNICAST):
                given = route.get("dst")
                network = (packed(given), route["dst_len"]) if given else (bytes(width), 0)
                hops = [route.get("oif"), *(hop.get("oif") for hop in route.get("multipath") or ())]
                found += [(route.get("priority") or 0, network, names[hop]) for hop in hops if hop in names]
    return Routes(tuple((network, interface) for _, network, interface in sorted(found, key=lambda one: one[0])))
