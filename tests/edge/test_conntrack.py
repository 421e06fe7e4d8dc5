"""Conntrack requests and events against a kernel, with the conntrack program as the second opinion."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from appid.edge.conntrack import Conntrack, FlowEnds, TupleFilter, prepare
from appid.edge.netlink import KernelError
from appid.flow.key import FlowKey
from appid.wire import TCP, UDP, packed
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, PUBLIC4, Net

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

KEYS = [
    pytest.param(FlowKey(UDP, packed(CLIENT4), 5000, packed(PEER4), 6000), id="udp4"),
    pytest.param(FlowKey(UDP, packed(CLIENT6), 5000, packed(PEER6), 6000), id="udp6"),
    pytest.param(FlowKey(TCP, packed(CLIENT4), 5000, packed(PEER4), 6000), id="tcp4"),
    pytest.param(FlowKey(47, packed(CLIENT4), 0, packed(PEER4), 0), id="gre4"),
]


@pytest.mark.parametrize("key", KEYS)
def test_an_entry_is_made_changed_found_and_deleted(bare: Net, key: FlowKey) -> None:
    def steps() -> None:
        conntrack = Conntrack()
        with pytest.raises(KernelError, match="No such file"):
            conntrack.set_mark(key, 0x701, 0xFFFF07)
        conntrack.set_mark(key, 0x702, 0xFFFF07, create=True)
        assert "mark=1794" in bare.entries()
        conntrack.set_mark(key.reversed(), 0x1, 0x3)
        assert [entry.mark for entry in conntrack.entries()] == [0x701]
        assert [entry.mark for entry in conntrack.entries(4 if len(key.src) == 4 else 6, 0x1, 0x3)] == [0x701]
        assert list(conntrack.entries(0, 0x2, 0x3)) == []
        wanted = TupleFilter(key.proto, key.src, key.sport or None, key.dst, None)
        assert [entry.key for entry in conntrack.find(wanted)] == [key]
        assert conntrack.find(TupleFilter(key.proto, key.dst)) == []
        assert [entry.key for entry in conntrack.find(TupleFilter(key.proto, key.dst), reply=True)] == [key]
        assert conntrack.delete(key.reversed())
        assert not conntrack.delete(key)
        assert list(conntrack.entries()) == []

    bare.gateway.call(steps)


def test_only_the_asked_for_entries_are_found(bare: Net) -> None:
    keys = [FlowKey(UDP, packed(CLIENT6), port, packed(PEER6), far) for port in (5000, 5001) for far in (6000, 6001)]

    def steps() -> list[FlowKey]:
        conntrack = Conntrack()
        for key in keys:
            conntrack.set_mark(key, 1, 3, create=True)
        return [entry.key for entry in conntrack.find(TupleFilter(UDP, packed(CLIENT6), 5000, packed(PEER6), 6001))]

    assert bare.gateway.call(steps) == [keys[1]]


def test_the_key_is_what_forward_sees_behind_source_nat(bare: Net) -> None:
    bare.masquerade()
    bare.gateway.call(prepare)
    ends = bare.gateway.call(FlowEnds)
    client, peer = bare.client.udp(CLIENT4, 5000), bare.peer.udp(PEER4, 6000)
    client.sendto(bytes(72), (PEER4, 6000))
    _, source = peer.recvfrom(100)
    assert source[0] == PUBLIC4
    peer.sendto(b"back", source)
    client.recv(100)
    bare.gateway.run("conntrack", "-F")
    time.sleep(0.1)
    told = [end for end in ends.read() if end.key.proto == UDP]
    ends.close()
    assert [end.key for end in told] == [FlowKey(UDP, packed(CLIENT4), 5000, packed(PEER4), 6000)]
    assert told[0].packets == (1, 1)
    assert told[0].bytes == (100, 32)


def test_no_end_is_lost_to_a_small_buffer(bare: Net) -> None:
    bare.gateway.call(prepare)
    ends = bare.gateway.call(lambda: FlowEnds(buffer=8192))
    count = 2000

    def fill() -> None:
        conntrack = Conntrack()
        for number in range(count):
            conntrack.set_mark(FlowKey(UDP, packed(CLIENT4), 1024 + number, packed(PEER4), 9), 1, 3, create=True)

    bare.gateway.call(fill)
    bare.gateway.run("conntrack", "-F")
    seen = 0
    stop = time.monotonic() + 20
    while seen < count and time.monotonic() < stop:
        seen += len(ends.read())
        time.sleep(0.005)
    ends.close()
    assert seen == count


def test_a_setting_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="nf_conntrack_acct"):
        prepare(tmp_path / "nowhere")


def test_accounting_that_was_off_or_cannot_be_on_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "nf_conntrack_acct").write_text("0\n")
    (tmp_path / "nf_conntrack_events").write_text("2\n")
    prepare(tmp_path)
    assert [(tmp_path / name).read_text() for name in ("nf_conntrack_acct", "nf_conntrack_events")] == ["1\n", "1\n"]
    assert "nf_conntrack_acct was off" in caplog.text
    (tmp_path / "nf_conntrack_events").unlink()
    with pytest.raises(KernelError, match="nf_conntrack_events"):
        prepare(tmp_path)
