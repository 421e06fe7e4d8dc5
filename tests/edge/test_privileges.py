"""What a process keeps: seen in /proc/PID/status, and by what it can still do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from appid.edge.privileges import NET_ADMIN, NET_RAW, held
from tests.netns.net import Namespace

pytestmark = pytest.mark.kernel
BOTH = {NET_ADMIN, NET_RAW}

WORKER = """
import os, subprocess
from appid.dataplane.chain import Topology
from appid.edge import iptables
from appid.edge.conntrack import prepare
from appid.edge.execute import Executor
from appid.dataplane.marks import Marks
from appid.edge.netlink import KernelError
from appid.edge.nfqueue import Queue
from appid.edge.privileges import *

def caps():
    told = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
    return [sorted(held(kind=kind)) for kind in ("CapEff", "CapPrm")] + [
        int(line.split()[1], 16) >> 12 & 3 for line in told.splitlines() if line.startswith("CapEff")]

keep_for_rules()
print(caps())
for variant in ("nft", "legacy"):
    iptables.apply(Topology(outside=("wan0",)), variant)
drop_to_net_admin()
print(caps())
prepare()
queue = Queue(77, lambda held: None, lambda held: None)
Executor(Marks()).close()
queue.close()
try:
    iptables.remove()
except KernelError as error:
    print("refused:", error.command.split()[0])
"""


def test_programs_that_change_rules_have_net_raw_and_workers_do_not(space: Namespace) -> None:
    """iptables-legacy needs the raw socket: a worker cannot change rules with it."""
    out = space.run(sys.executable, "-c", WORKER).splitlines()
    assert out[0] == "[[12], [12, 13], 3]", "effective, permitted, and both bits in a program it starts"
    assert out[1] == "[[12], [12], 1]"
    assert out[2:] == ["refused: iptables-legacy-save"]


def test_what_another_process_holds() -> None:
    child = subprocess.Popen(["sleep", "5"])
    try:
        assert held(child.pid) >= BOTH
    finally:
        child.kill()
        child.wait()
