"""A message that fills its packet, and grows by its translation: it arrives all the same."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.netns.live import live
from tests.sip.attacks import Victim, body
from tests.sip.sipp import SIP
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
@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_a_message_of_some_segments_needs_no_retransmission(tmp_path: Path, v6: bool) -> None:
    """Over TCP, both ways: it grows, and its own segments carry it; nobody waits for a timer (200 ms at least)."""
    took = []
    with _town() as where, live(where, tmp_path, SIP_ONLY, "nft"):
        phone, far, place = _connected(where, v6)
        for number, size in enumerate((1600, 3000, 5000, 9000)):
            victim = Victim(where, place, 20000, f"sized-{number}")
            text = victim.invite(body(place.phones[0], 20000)).replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")
            filled = "a=x:" + "y" * (size - len(text))
            asked = victim.invite(body(place.phones[0], 20000, filled)).replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")
            begun = time.monotonic()
            phone.sendall(asked)
            came = _message(far)
            took.append(time.monotonic() - begun)
            assert place.phones[0].encode() not in came
            answer = victim.answer(came, body(place.peer, 30000, filled))
            begun = time.monotonic()
            far.sendall(answer)
            assert place.phones[0].encode() in _message(phone)
            took.append(time.monotonic() - begun)
    assert sorted(took)[len(took) // 2] < 0.1, took


def _connected(where: Town, v6: bool) -> tuple[socket.socket, socket.socket, Place]:
    place = Place.numbered(5, v6)
    listening, phone = where.peer.listen(place.peer, SIP), where.client.tcp(place.phones[0])
    phone.connect((place.peer, SIP))
    far, _ = listening.accept()
    listening.close()
    far.settimeout(3)
    return phone, far, place


def _message(stream: socket.socket) -> bytes:
    """The next one, as long as it says."""
    data = b""
    while True:
        head, blank, content = data.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if blank and length is not None and len(content) >= int(length[1]):
            return data
        more = stream.recv(65535)
        assert more
        data += more


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
