"""The tally: counted in one process, read in another, whatever became of the first."""

from __future__ import annotations

import os
import signal

from appid.edge.tally import Tally


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
