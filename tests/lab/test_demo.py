"""The demo, in short: all runs with the report's numbers, run one with three drawn ones and on iptables-legacy."""

from __future__ import annotations

import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from tests.lab.checks import Checks
from tests.lab.net import ROOT, run
from tests.lab.scenario import APPLE_PORTS, MEDIA_PORTS, RELAY_PORTS, Scenario
from tests.netns.net import until

pytestmark = pytest.mark.kernel
TIDY = 20.0
"""Seconds that an interrupted demo has to take its namespaces down."""


def _demo(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Interrupted, it is told so, and has time to tidy up; it hears of it too if this process is killed."""
    argv = ("setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "tests.lab.demo", "--directory", str(directory))
    with subprocess.Popen(
        (*argv, *arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            output, faults = child.communicate()
        except BaseException:
            child.terminate()
            try:
                child.communicate(timeout=TIDY)
            finally:
                child.kill()
            raise
    return subprocess.CompletedProcess(child.args, child.returncode, output, faults)


def _held(done: subprocess.CompletedProcess[str]) -> None:
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert (done.returncode, failed) == (0, []), done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_all_runs_with_the_reports_numbers(tmp_path: Path) -> None:
    _held(_demo(tmp_path, "--seconds", "5"))
    for name in ("run1", "run2", "run3", "control"):
        kept = {path.name for path in (tmp_path / name).iterdir()}
        assert {"lan0.pcap", "wan0.pcap", "before", "after"} <= kept
        assert name == "control" or "check.jsonl" in kept
    steps = ("before", "ringing", "relayed", "direct", "after")
    assert all((tmp_path / "run1" / step / "iptables-save.txt").stat().st_size for step in steps)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_depends_on_the_reports_numbers(seed: int, tmp_path: Path) -> None:
    _held(_demo(tmp_path, "--seconds", "5", "--run", "1", "--seed", str(seed)))


@pytest.mark.timeout(120)
def test_on_iptables_legacy(tmp_path: Path) -> None:
    _held(_demo(tmp_path, "--seconds", "5", "--run", "1", "--legacy"))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_in_full(seed: int | None, tmp_path: Path) -> None:
    """20 s of media: here userspace must see less than one packet of the call in 50."""
    _held(_demo(tmp_path, *([] if seed is None else ["--seed", str(seed)])))


_AS_USER = r"""
set -e
mount --make-rprivate /
cd "$1"
mkdir python packages appid demo
mount --bind "$2" python
mount --bind "$3" packages
mount --bind "$4" appid
chown 12345 demo
cd appid
export HOME="$1/demo" LD_LIBRARY_PATH="$1/python/lib" PYTHONPATH="$1/appid:$1/packages" PYTHONDONTWRITEBYTECODE=1
exec setpriv --reuid 12345 --regid 12345 --clear-groups --inh-caps=-all --bounding-set=-all \
    "$1/python/bin/$5" -m tests.lab.demo --plain --seconds 4 --directory "$1/demo"
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_ordinary_user_may_run_it_too() -> None:
    """In a user namespace, without a single capability outside. Python and the tree are put where he may read them."""
    with tempfile.TemporaryDirectory(prefix="appid-user-") as place:
        Path(place).chmod(0o755)
        program = f"python3.{sys.version_info.minor}"
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", _AS_USER, "user", place, sys.base_prefix,
             sysconfig.get_path("purelib"), str(ROOT), program],
            capture_output=True, text=True, check=False, timeout=380,
        )  # fmt: skip
    if "needs root, or user namespaces" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_test_leaves_nothing(sign: signal.Signals, tmp_path: Path) -> None:
    """The test that runs the demo is interrupted as pytest is, or killed without a word."""
    text = f"import pathlib, tests.lab.test_demo as t; t._demo(pathlib.Path({str(tmp_path)!r}), '--run', 'control')"
    with subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, stderr=subprocess.DEVNULL) as test:
        assert until(lambda: any(tmp_path.glob("*/lan0.pcap")), 60)
        (child,) = Path(f"/proc/{test.pid}/task/{test.pid}/children").read_text().split()
        assert f"appid-{child}-" in run("ip", "netns", "list")
        test.send_signal(sign)
    assert until(lambda: f"appid-{child}-" not in run("ip", "netns", "list"), TIDY)


def test_claims_that_do_not_hold_fail_the_demo() -> None:
    checks = Checks(Console(quiet=True), "1")
    assert checks.check("true", True)
    assert not checks.check("the call completes", False, "3 lost")
    assert checks.failed == ["1: the call completes: 3 lost"]


@pytest.mark.timeout(120)
def test_a_run_that_cannot_start_fails_the_demo(tmp_path: Path) -> None:
    blocked = tmp_path / "run1"
    blocked.write_text("a file where the run's directory should be")
    assert _demo(tmp_path, "--seconds", "4", "--run", "1").returncode == 1


@pytest.mark.parametrize("seed", range(200))
def test_drawn_numbers_are_valid(seed: int) -> None:
    s = Scenario.from_seed(seed)
    assert len(set(s.addresses())) == len(s.addresses())
    assert s.media_port in MEDIA_PORTS
    assert s.peer_media_port in MEDIA_PORTS
    assert {s.relay_port, s.relayed_port} <= set(RELAY_PORTS)
    assert s.relay_port != s.relayed_port
    assert s.echo_port not in APPLE_PORTS
    assert s == Scenario.from_seed(seed)
    assert s.token != Scenario().token
