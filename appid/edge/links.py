"""The gateway's own addresses, by interface. In: interface names. Out: packed addresses, as the kernel has them now."""

from __future__ import annotations

from collections.abc import Iterable

from pyroute2 import IPRoute

from appid.wire import packed


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
