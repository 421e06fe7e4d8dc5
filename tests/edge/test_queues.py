"""What no worker saw, by cause: from the kernel's own tables, written as the kernel writes them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from appid.edge import iptables
from appid.edge import queues as room
from appid.edge.queues import Line, Queues, handed, lines, refused
from appid.edge.tally import Tally

SAVED = """\
*mangle
:APPID - [0:0]
:APPID-QUEUE - [0:0]
[9:900] -A FORWARD -j APPID
[5:500] -A APPID -j APPID-QUEUE
[3:300] -A APPID-QUEUE -m set --match-set appid-inside4 dst -j NFQUEUE --queue-num 0
[2:200] -A APPID-QUEUE -m set --match-set appid-inside4 src -j NFQUEUE --queue-num 1 --queue-bypass
[1:100] -A APPID-QUEUE -j NFQUEUE --queue-num 0 --queue-bypass
COMMIT
"""


def test_the_kernels_table_of_queues(tmp_path: Path) -> None:
    """Field order: queue, port id, waiting, copy mode, range, dropped, user dropped, id sequence, 1."""
    table = tmp_path / "nfnetlink_queue"
    rows = ("    0   4711     3 2 65531     7     9    1234  1", "    1  -4712     0 2 65531     1     2    5  1")
    table.write_text("\n".join(rows) + "\n")
    assert lines(table) == {0: Line(4711, 3, 7, 9), 1: Line(-4712, 0, 1, 2)}
    assert lines(tmp_path / "none") == {}


def test_the_chains_counters() -> None:
    assert handed(SAVED) == {0: 4, 1: 2}


FILTER = """\
*filter
[100:9] -A APPID -m connmark --mark 0x1/0x3 -j ACCEPT
[1:40] -A APPID -m conntrack --ctstate INVALID -j DROP
[7:9] -A APPID -m mark --mark 0x8/0x8 -j ACCEPT
[2:9] -A APPID -p tcp -m connmark --mark 0x2/0x3 -j REJECT --reject-with tcp-reset
[3:9] -A APPID -m connmark --mark 0x2/0x3 -j REJECT --reject-with icmp-admin-prohibited
[5:9] -A APPID -m connmark --mark 0x3/0x3 -j DROP
[6:9] -A APPID -m comment --comment blind -j DROP
[8:9] -A APPID-INPUT -i wan0 -p udp -m udp --dport 16384:16402 -m conntrack --ctstate NEW -j DROP
[50:9] -A DOCKER -j DROP
COMMIT
"""


def test_what_came_to_the_exception_policys_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    for let in ("DROP", "RETURN"):
        monkeypatch.setattr(iptables, "run", lambda command: FILTER.replace("blind -j DROP", f"blind -j {let}"))  # noqa: B023
        assert room.stopped("nft")[1] == 12, "of both families"


def test_what_the_chains_refused_and_why() -> None:
    assert refused(FILTER) == {"deny": 5, "drop": 5, "invalid": 1, "blind": 6, "unforeseen": 8}
    assert refused(FILTER.replace("blind -j DROP", "blind -j ACCEPT"))["blind"] == 0, "open: nothing is refused"


class Kernel:
    """The tables that Queues looks at, as a test has them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_open: bool, place: Path | None = None) -> None:
        self.handed, self.refused, self.blind, self.line = 0, 0, 0, Line(1, 0, 0, 0)
        self.listening = True
        self.meanwhile = 0
        monkeypatch.setattr(room, "lines", lambda: {5: self.line} if self.listening else {})
        monkeypatch.setattr(room, "queued", self._queued)
        monkeypatch.setattr(room, "stopped", lambda variant: (Counter(deny=self.refused), self.blind))
        self.tally = Tally(place)
        self.queues = Queues("nft", {5: self.tally}, fail_open)
        self.queues.begin()
        self.queues.look()

    def again(self, place: Path) -> None:
        """Another supervisor."""
        self.tally = Tally(place)
        self.queues = Queues("nft", {5: self.tally}, self.queues.fail_open)
        self.queues.begin()

    def _queued(self, variant: str) -> Counter[int]:
        """The programs take a while: what comes in the meantime is seen, and in the next counters."""
        told = Counter({5: self.handed})
        self.came(self.meanwhile)
        return told

    def came(self, packets: int, segments: int = 1) -> None:
        self.handed += packets
        self.saw(packets * segments)

    def saw(self, packets: int) -> None:
        for _ in range(packets):
            self.tally.took(0)


def test_what_a_full_queue_drops_is_counted_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, fail_open=False)
    kernel.handed, kernel.line = 100, Line(1, 10, 20, 30)
    kernel.saw(40)
    kernel.queues.look()
    kernel.queues.look()
    assert kernel.queues.dropped == {(5, "full"): 20, (5, "user"): 30}
    assert kernel.queues.exceptions == {"queue-full": 50}


def test_what_passes_by_the_fail_open_flag_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nowhere in the kernel's table: the difference."""
    kernel = Kernel(monkeypatch, fail_open=True)
    kernel.handed, kernel.line = 100, Line(1, 10, 0, 0)
    kernel.saw(30)
    kernel.queues.look()
    assert kernel.queues.exceptions == {"queue-full": 60}
    kernel.line = Line(1, 0, 0, 0)
    kernel.saw(10)
    kernel.queues.look()
    assert kernel.queues.exceptions == {"queue-full": 60}


@pytest.mark.parametrize("fail_open", [True, False])
def test_what_nobody_listened_to_is_the_engines_being_down(monkeypatch: pytest.MonkeyPatch, fail_open: bool) -> None:
    """A worker saw 10 of 15 and was killed with 5 in its queue; 7 came while nobody listened; the next saw 20."""
    kernel = Kernel(monkeypatch, fail_open)
    kernel.handed = 22
    kernel.saw(10)
    kernel.listening = False
    kernel.queues.look()
    kernel.listening, kernel.line, kernel.handed = True, Line(2, 0, 0, 0), 42
    kernel.saw(20)
    kernel.queues.look()
    assert kernel.queues.exceptions == {"engine-down": 12}


def test_rules_that_are_replaced_count_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, fail_open=True)
    kernel.handed = 50
    kernel.saw(50)
    kernel.queues.look()
    kernel.handed = 8
    kernel.saw(5)
    kernel.queues.look()
    assert kernel.queues.exceptions == {"queue-full": 3}


def test_what_came_while_no_supervisor_ran_is_the_engines_being_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After the last look 9 more came, of which 7 were seen and 2 waited; then 30 to nobody; then 4 to the next."""
    kernel = Kernel(monkeypatch, False, tmp_path / "queue-5")
    kernel.handed, kernel.line = 100, Line(1, 0, 20, 0)
    kernel.saw(80)
    kernel.queues.look()
    kernel.saw(7)
    kernel.handed += 9 + 30
    kernel.again(tmp_path / "queue-5")
    kernel.handed += 4
    kernel.line = Line(2, 0, 0, 0)
    kernel.saw(4)
    for _ in range(2):
        kernel.queues.look()
        assert kernel.queues.exceptions == {"engine-down": 32}
    kernel.handed = 0  # the chains were taken away, and come again
    kernel.again(tmp_path / "queue-5")
    kernel.queues.look()
    assert kernel.queues.exceptions == {}


def test_segments_that_count_for_more_than_their_packet_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One packet for the rules, 40 for the queue; later 30 are lost."""
    kernel = Kernel(monkeypatch, fail_open=True)
    kernel.handed += 1
    kernel.saw(40)
    kernel.queues.look()
    kernel.handed += 30
    kernel.queues.look()
    assert kernel.queues.exceptions == {"queue-full": 30}


@pytest.mark.parametrize("fail_open", [True, False])
def test_segments_hide_nothing_where_it_is_never_quiet(monkeypatch: pytest.MonkeyPatch, fail_open: bool) -> None:
    """With every look, short ones too, small packets come; and at times large ones, which are 40 for the queue."""
    kernel = Kernel(monkeypatch, fail_open)
    kernel.meanwhile = 3
    for number in range(30):
        kernel.came(5)
        kernel.came(1, 40)
        kernel.queues.look(full=number % 10 == 9)
        assert kernel.queues.exceptions == {}
    kernel.listening = False
    kernel.handed += 100
    kernel.meanwhile = 0
    kernel.queues.look()
    assert kernel.queues.exceptions == {"engine-down": 100}


@pytest.mark.parametrize("fail_open", [True, False])
def test_what_comes_and_waits_while_the_counters_are_read_is_no_loss(
    monkeypatch: pytest.MonkeyPatch, fail_open: bool
) -> None:
    """A worker that stands still for a moment, as at a reload: it is handed over, waits, and is seen later."""
    kernel = Kernel(monkeypatch, fail_open)
    told = kernel._queued

    def meanwhile(variant: str) -> Counter[int]:
        counted = told(variant)
        kernel.handed += 11
        kernel.line = Line(1, kernel.line.waiting + 11, 0, 0)
        return counted

    monkeypatch.setattr(room, "queued", meanwhile)
    for _ in range(3):
        kernel.queues.look()
        kernel.saw(kernel.line.waiting)
        kernel.line = Line(1, 0, 0, 0)
    assert kernel.queues.exceptions == {}


@pytest.mark.parametrize("fail_open", [True, False])
def test_segments_just_before_a_worker_is_killed_hide_nothing(monkeypatch: pytest.MonkeyPatch, fail_open: bool) -> None:
    """What nobody saw came to the exception policy's rule; at other times that rule tells of untracked packets."""
    kernel = Kernel(monkeypatch, fail_open)
    kernel.blind += 5
    kernel.queues.look()
    kernel.came(3, 40)
    kernel.listening = False
    kernel.handed += 30
    kernel.blind += 30
    kernel.queues.look()
    assert kernel.queues.exceptions == {"engine-down": 30}
    kernel.handed += 4
    kernel.blind += 6  # two of them after the other counters were read
    kernel.queues.look()
    kernel.handed += 2
    kernel.queues.look()
    assert kernel.queues.exceptions == {"engine-down": 36}
    kernel.listening, kernel.line = True, Line(2, 0, 0, 0)
    for _ in range(3):
        kernel.blind += 7
        kernel.came(9, 40)
        kernel.queues.look()
    assert kernel.queues.exceptions == {"engine-down": 43}, "until it is told that somebody listens"


def test_refusals_go_on_where_the_rules_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, fail_open=False)
    for counter, total in ((4, 4), (9, 9), (2, 11), (2, 11)):
        kernel.refused = counter
        kernel.queues.look()
        assert kernel.queues.refused == {"deny": total}
