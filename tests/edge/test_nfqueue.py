"""The queue and its traps, on a kernel: each packet sent is received, or counted."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from appid.edge.netlink import KernelError
from appid.edge.nfqueue import Held, Queue
from tests.netns.net import Namespace, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]
PORT = 6000


def passing(held: Held) -> None:
    held.repeat(held.mark | 8)


@pytest.fixture
def queueing(space: Namespace) -> Namespace:
    """Datagrams to PORT over lo are queued once; a mark lets them out of the circle."""
    rule = "-t mangle -A OUTPUT -p udp --dport 6000 -m mark ! --mark 0x8/0x8 -j NFQUEUE --queue-num 5 --queue-bypass"
    space.run("iptables-nft", *rule.split())
    # conntrack in use: defragmentation
    space.run("iptables-nft", "-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW")
    return space


@contextmanager
def reading(space: Namespace, queue: Queue) -> Iterator[Queue]:
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            if not queue.read():
                time.sleep(0.001)

    thread = space.start(loop)
    try:
        yield queue
    finally:
        stop.set()
        thread.join(5)
        queue.close()


def opened(space: Namespace, on_packet: Callable[[Held], None], **options: object) -> Queue:
    return space.call(lambda: Queue(5, on_packet, **options))  # type: ignore[arg-type]


def pair(space: Namespace) -> tuple[socket.socket, socket.socket]:
    return space.udp("127.0.0.1"), space.udp("127.0.0.1", PORT)


def count(sock: socket.socket) -> int:
    sock.settimeout(0.3)
    got = 0
    try:
        while sock.recv(65535):
            got += 1
    except TimeoutError:
        pass
    return got


@pytest.mark.parametrize("size", [1, 5000, 30000, 65503])
def test_a_payload_comes_whole(queueing: Namespace, size: int) -> None:
    seen: list[Held] = []

    def keep(held: Held) -> None:
        seen.append(held)
        passing(held)

    sender, receiver = pair(queueing)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    with reading(queueing, opened(queueing, keep)) as queue:
        sender.sendto(bytes(range(256)) * (size // 256) + bytes(size % 256), ("127.0.0.1", PORT))
        assert count(receiver) == 1
        assert [len(held.data) for held in seen] == [size + 28]
        assert (seen[0].outdev, seen[0].mark, seen[0].answered) == ("lo", 0, True)
        assert (queue.seen, queue.errors, queue.refused, queue.overruns) == (1, 0, 0, 0)


def test_of_the_largest_datagram_the_last_bytes_are_not_shown_and_not_lost(queueing: Namespace) -> None:
    """A netlink attribute holds 65531 bytes."""
    seen: list[int] = []

    def keep(held: Held) -> None:
        seen.append(len(held.data))
        passing(held)

    sender, receiver = pair(queueing)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    with reading(queueing, opened(queueing, keep)):
        sender.sendto(bytes(65506) + b"!", ("127.0.0.1", PORT))
        assert receiver.recv(65535)[-2:] == b"\0!"
    assert seen == [65531]


def test_a_dropped_packet_is_gone_and_a_replaced_one_is_another(queueing: Namespace) -> None:
    def odd(held: Held) -> None:
        if held.data[-1:] == b"d":
            held.drop()
        else:
            held.replace(held.data[:26] + b"\0\0" + b"new!")  # checksum 0: none (RFC 768)
            held.repeat(8)

    sender, receiver = pair(queueing)
    with reading(queueing, opened(queueing, odd)):
        for payload in (b"gond", b"old!", b"gond"):
            sender.sendto(payload, ("127.0.0.1", PORT))
        assert receiver.recv(100) == b"new!"
        assert count(receiver) == 0


@pytest.mark.parametrize(("rescue", "arrive"), [(passing, 3), (Held.drop, 2)])
def test_what_a_callback_raises_or_leaves_goes_to_the_rescue(
    queueing: Namespace, rescue: Callable[[Held], None], arrive: int, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(held: Held) -> None:
        if held.data[-1:] == b"x":
            raise RuntimeError("a bug")
        passing(held)

    sender, receiver = pair(queueing)
    with reading(queueing, opened(queueing, broken, rescue=rescue)) as queue:
        for payload in (b"a", b"x", b"b"):
            sender.sendto(payload, ("127.0.0.1", PORT))
        assert count(receiver) == arrive
        assert queue.errors == 1
    assert "a bug" in caplog.text


def test_an_unanswered_packet_is_dropped_not_forgotten(queueing: Namespace) -> None:
    sender, receiver = pair(queueing)
    with reading(queueing, opened(queueing, lambda held: None, rescue=lambda held: None)) as queue:
        sender.sendto(b"x", ("127.0.0.1", PORT))
        assert count(receiver) == 0
        assert (queue.seen, queue.errors) == (1, 0)
        waiting = queueing.run("cat", "/proc/net/netfilter/nfnetlink_queue").split()
        assert waiting[2] == "0", "nothing waits in the kernel"


@pytest.mark.parametrize("fail_open", [True, False])
def test_a_full_queue_lets_packets_pass_or_drops_them(queueing: Namespace, fail_open: bool) -> None:
    def slow(held: Held) -> None:
        time.sleep(0.005)
        passing(held)

    sender, receiver = pair(queueing)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    with reading(queueing, opened(queueing, slow, fail_open=fail_open, length=8)) as queue:
        for _ in range(200):
            sender.sendto(b"x", ("127.0.0.1", PORT))
        arrived = count(receiver)
        assert queue.seen < 200
        assert arrived == (200 if fail_open else queue.seen)


def test_what_comes_while_it_is_opened_waits_for_the_first_read(queueing: Namespace) -> None:
    """Whoever opens it is not ready before. Every packet after the first one seen is seen."""
    for _ in range(5):
        seen: list[int] = []
        ready = threading.Event()

        def keep(held: Held, seen: list[int] = seen, ready: threading.Event = ready) -> None:
            assert ready.is_set()
            seen.append(int.from_bytes(held.data[28:32], "big"))
            passing(held)

        sender, receiver = pair(queueing)
        stop = threading.Event()

        def send(sender: socket.socket = sender, stop: threading.Event = stop) -> None:
            number = 0
            while not stop.is_set():
                sender.sendto(number.to_bytes(4, "big"), ("127.0.0.1", PORT))
                number += 1
                time.sleep(0)

        thread = threading.Thread(target=send)
        thread.start()
        assert receiver.recv(10)
        queue = opened(queueing, keep, length=1_000_000)
        stop.set()
        thread.join()
        sender.sendto(b"last", ("127.0.0.1", PORT))
        ready.set()
        with reading(queueing, queue):
            count(receiver)
        for each in (sender, receiver):
            each.close()
        numbers = [number for number in seen if number != int.from_bytes(b"last", "big")]
        assert numbers == list(range(seen[0], seen[0] + len(seen) - 1))
        assert queue.errors == 0


def test_a_queue_has_one_reader(queueing: Namespace) -> None:
    first = opened(queueing, passing)
    with pytest.raises(KernelError, match="NFQUEUE 5"):
        opened(queueing, passing)
    first.close()
    opened(queueing, passing).close()


@pytest.mark.parametrize("fail_open", [True, False])
def test_what_the_socket_has_no_room_for_is_seen_by_its_missing_numbers(queueing: Namespace, fail_open: bool) -> None:
    """ENOBUFS: the library swallows it. The kernel counts the packets, or, with the flag, lets them pass uncounted."""
    sender, receiver = pair(queueing)
    queue = opened(queueing, passing, fail_open=fail_open)
    queue._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(100):
        sender.sendto(b"x", ("127.0.0.1", PORT))
    with reading(queueing, queue):
        assert until(lambda: queue.overruns > 0)
        arrived = count(receiver)
        sender.sendto(b"one more", ("127.0.0.1", PORT))  # shows which numbers are missing before it
        assert count(receiver) == 1
        dropped = int(queueing.run("cat", "/proc/net/netfilter/nfnetlink_queue").split()[6])
        assert 0 < queue.tally.missed == 101 - queue.seen
        assert (arrived, dropped) == ((100, 0) if fail_open else (queue.seen - 1, queue.tally.missed))
