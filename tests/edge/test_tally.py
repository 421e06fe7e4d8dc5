"""The tally: counted in one process, read in another, whatever became of the first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appid.edge import tally as room
from appid.edge.tally import Numbers, Settled, Tally


def test_counts_outlive_the_process_that_made_them() -> None:
    tally = Tally()
    for numbers in ((1, 2, 3, 7, 8), (1, 2)):  # the kernel counts from 1 for each listener
        pid = os.fork()
        if not pid:
            for number in numbers:
                tally.took(number)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
    assert (tally.seen, tally.missed) == (7, 3)


def test_the_next_supervisor_goes_on_where_the_one_before_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """70 were handed over, 60 of them seen and 10 accounted for; 5 more were seen before it died."""
    tally = Tally(tmp_path / "state" / "queue-0")
    assert tally.before is None
    for _ in range(60):
        tally.took(0)
    tally.settle(Settled(1070, 70, 10))
    for _ in range(5):
        tally.took(0)
    after = Tally(tmp_path / "state" / "queue-0")
    assert (after.seen, after.missed) == (0, 0)
    assert after.before == Settled(1070, 5, 10), "with 5 more by the rules' counter, all are accounted for"
    after.settle(Settled(1080, 0, 0))
    monkeypatch.setattr(room, "boot", lambda: "another")
    assert Tally(tmp_path / "state" / "queue-0").before is None, "the rules' counters began anew"


def test_without_a_file_it_counts_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    tally = Tally(tmp_path / "file" / "queue-0")
    tally.took(1)
    assert tally.seen == 1
    assert "not counted" in caplog.text


def test_packets_of_all_workers_are_numbered_as_by_one_engine() -> None:
    numbers = Numbers()
    numbers.beyond(40)
    assert [numbers.take(), numbers.take()] == [41, 42]
    pid = os.fork()
    if not pid:
        numbers.beyond(7)  # of calls before; others are further
        os._exit(numbers.take() - 40)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3, "43: another worker's first"
    assert numbers.take() == 44


_FULL = """
from pathlib import Path
from appid.edge.halves import Table
from appid.edge.tally import Tally
tally = Tally(Path("queue-0"))
tally.took(1)
try:
    Table(Path("halves"))
except OSError as error:
    print(tally.seen, error.strerror)
"""


@pytest.mark.kernel
def test_a_full_disk_kills_nobody(tmp_path: Path) -> None:
    """Memory that is a file's has no room behind it there: to write to it would be SIGBUS."""
    script = 'mount -t tmpfs -o size=4k none . && cd "$PWD" && head -c 4096 /dev/zero >full; exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, _FULL],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done
    assert done.stdout == "1 No space left on device\n"
