"""A message that fills its packet, and grows by its translation: it arrives all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.netns.live import live
from tests.sip.attacks import Victim, body
from tests.sip.town import SIP_ONLY, Place, Town

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
LONG6 = "fd00:77:2:0:aaaa:bbbb:cccc:dddd"
"""The gateway's outside address here: each that is put in a message is longer than a phone's."""
MTU = 1500


@contextmanager
def _town() -> Iterator[Town]:
    where = Town(True)
    with ExitStack() as stack:
        stack.callback(where.remove)
        where.gateway.run("ip", "-6", "addr", "del", "fd00:77:2::1/64", "dev", "wan0")
        where.gateway.run("ip", "-6", "addr", "add", f"{LONG6}/64", "dev", "wan0", "nodad")
        where.peer.run("ip", "-6", "route", "replace", "default", "via", LONG6)
        yield where


def _filled(victim: Victim, size: int) -> bytes:
    """An INVITE in a packet of so many bytes."""
    room = size - (48 if ":" in victim.phone else 28)
    text = victim.invite(body(victim.phone, victim.port, "a=x:" + "y" * 1000))
    return victim.invite(body(victim.phone, victim.port, "a=x:" + "y" * (1000 + room - len(text))))


@pytest.mark.timeout(60)
def test_a_message_that_grows_over_the_links_size_arrives(tmp_path: Path) -> None:
    """IPv4's packets are split on the way. IPv6's sender is told to send less, and does so when it sends again."""
    with _town() as where, live(where, tmp_path, SIP_ONLY, "nft"):
        for number, size in enumerate((MTU - 1, MTU)):
            for v6 in (False, True):
                victim = Victim(where, Place.numbered(number, v6), 20000, f"long-{number}")
                invite = _filled(victim, size)
                assert len(invite) + (48 if v6 else 28) == size
                mine, theirs = victim.udp(where.client, victim.phone), victim.udp(where.peer, victim.place.peer)
                asked, source = victim.heard(mine, theirs, invite)
                assert len(asked) > len(invite)
                assert victim.phone.encode() not in asked
                theirs.sendto(victim.answer(asked, body(victim.place.peer, 30000)), source)
                assert mine.recvfrom(65535)[0].startswith(b"SIP/2.0 200 OK")
                victim.close()
