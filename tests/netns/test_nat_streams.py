"""Long messages over TCP behind source NAT, on a real kernel: a stream never stands still for one."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

import pytest

from tests.netns.net import CLIENT4, PEER4, PUBLIC4, Net
from tests.netns.test_nat_calls import Stream, checked, natted

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

PATIENCE = 5.0
"""Seconds for what takes some milliseconds without a gateway; TCP's retransmissions would take minutes."""


def message(stream: Stream, number: int, kind: str, body: bytes) -> bytes:
    """Not an INVITE: presence, a picture, or whatever."""
    head = stream.request(number).partition(b"\r\nContent-Type")[0].replace(b"INVITE", b"MESSAGE")
    return head + f"\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("size", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_a_long_body_passes_and_the_stream_goes_on(bare: Net, tmp_path: Path, size: int) -> None:
    with natted(bare, tmp_path) as gateway:
        stream = Stream(bare)
        picture = bytes(range(256)) * (size // 256)
        stream.phone.sendall(stream.request(9))
        stream.take(stream.server)
        begun = time.monotonic()
        stream.phone.sendall(message(stream, 1, "image/jpeg", picture))
        head, _, body = stream.take(stream.server).partition(b"\r\n\r\n")
        assert body == picture
        assert re.search(rb"^Contact: <sip:u@198.51.100.1:\d+;", head, re.M)
        stream.server.sendall(message(stream, 2, "text/plain", picture))
        assert stream.take(stream.phone).endswith(picture)
        described = stream.request(3, "|".join(f"a=candidate:{i} {'x' * 60}" for i in range(size // 80)))
        stream.phone.sendall(described)
        head, _, body = stream.take(stream.server).partition(b"\r\n\r\n")
        assert PUBLIC4.encode() in head
        assert body == described.partition(b"\r\n\r\n")[2]
        assert gateway.metric('appid_nat_translations_total{result="too-long"}')
        stream.phone.sendall(stream.request(4))
        assert "CSeq: 4 INVITE" in checked(stream.take(stream.server), stream)
        assert time.monotonic() - begun < PATIENCE
        stream.close()


class Early(Stream):
    """The first message goes in the SYN (RFC 7413), to a server that takes it."""

    def __init__(self, net: Net) -> None:
        net.client.run("sysctl", "-qw", f"net.ipv4.tcp_fastopen={0x1 | 0x4}")
        net.peer.run("sysctl", "-qw", f"net.ipv4.tcp_fastopen={0x2 | 0x200 | 0x400}")
        listening = net.peer.listen(PEER4, 5060)
        self.phone, self.host = net.client.tcp(CLIENT4), CLIENT4
        self.own = f"{CLIENT4}:{self.phone.getsockname()[1]}"
        self.phone.sendto(self.request(1), socket.MSG_FASTOPEN, (PEER4, 5060))
        self.server, self.seen_as = listening.accept()
        listening.close()
        for side in (self.phone, self.server):
            side.settimeout(PATIENCE)
        self.rest = {self.phone: b"", self.server: b""}


def test_a_message_in_the_syn_is_translated_like_any_other(bare: Net, tmp_path: Path) -> None:
    with natted(bare, tmp_path):
        begun = time.monotonic()
        stream = Early(bare)
        first = stream.take(stream.server)
        assert "CSeq: 1 INVITE" in checked(first, stream)
        stream.server.sendall(stream.answer(first))
        assert stream.own.encode() in stream.take(stream.phone)
        stream.phone.sendall(stream.request(2))
        assert "CSeq: 2 INVITE" in checked(stream.take(stream.server), stream)
        assert time.monotonic() - begun < PATIENCE
        stream.close()
