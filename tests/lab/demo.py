"""`make demo`: a FaceTime call through the gateway, on a real kernel. Run: python -m tests.lab.demo

In: options. Out: lines of `ok` and `FAILED` on the terminal, files in build/demo, exit status 0 only if all of it held.
Ctrl-C or SIGTERM at any moment leaves nothing behind but build/demo.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.rule import Rule

from tests.lab.checks import Checks
from tests.lab.net import ROOT, run
from tests.lab.runs import control, run_one, run_three, run_two
from tests.lab.scenario import Scenario
from tests.lab.stage import Options

RUNS: dict[str, tuple[str, Callable[[Options, Checks], Awaitable[None]]]] = {
    "control": ("control run: no appid, Apple's ports forwarded to the client", control),
    "1": ("run one: deny all but facetime, implicit = true", run_one),
    "2": ("run two: deny facetime, allow the rest", run_two),
    "3": ("run three: as run one, without implicit", run_three),
}
NEEDED = ("ip", "iptables", "ip6tables", "ipset", "nft", "conntrack", "tcpdump", "nginx", "turnserver", "sysctl")
INTERRUPTED = 130


def _host() -> list[str]:
    """The host's own rules and sets, without counters and times: the demo must not change them."""
    lines: list[str] = []
    for argv in (("iptables-save",), ("ip6tables-save",), ("ipset", "list")):
        lines += [line.split(" [")[0] for line in run(*argv, check=False).splitlines() if not line.startswith("#")]
    return lines


async def demo(options: Options, names: list[str]) -> int:
    checks = Checks(options.console)
    before = _host()
    for name in names:
        title, runner = RUNS[name]
        options.console.print(Rule(title, align="left"))
        checks.run = name
        try:
            await runner(options, checks)
        except (OSError, RuntimeError) as error:
            await asyncio.sleep(0.05)  # a Ctrl-C that hit a child as it started: let it be heard
            checks.check("the run goes through", False, error)
    checks.run = "host"
    options.console.print(Rule("summary", align="left"))
    checks.check("the host's own iptables and sets are untouched", _host() == before)
    held = len(checks.settled) - len(checks.failed)
    options.console.print(f"{held} of {len(checks.settled)} held; files in {options.directory}")
    for line in checks.failed:
        options.console.print(f"FAILED  {line}", style="red", markup=False, soft_wrap=True)
    return 1 if checks.failed else 0


async def until_told(work: Awaitable[int]) -> int:
    """The first SIGINT or SIGTERM calls the work off; it then tidies up undisturbed, whatever else comes."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    told: list[int] = []

    def tell(number: int) -> None:
        if not told:
            told.append(number)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, tell, number)
    try:
        return await task
    except asyncio.CancelledError:
        print("interrupted: nothing is left but the files", file=sys.stderr)
        return INTERRUPTED


def _options(argv: list[str] | None) -> tuple[Options, list[str]]:
    parser = argparse.ArgumentParser(prog="demo", description="FaceTime through the gateway, in network namespaces.")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds of media a call (at least 4; default 20)")
    parser.add_argument("--seed", type=int, help="draw addresses, ports, names, tokens and SSRCs from this number")
    parser.add_argument("--run", action="append", choices=RUNS, help="only this run; repeatable")
    parser.add_argument("--legacy", action="store_true", help="iptables-legacy for the gateway's rules")
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "demo", help="where the files go")
    parser.add_argument("--plain", action="store_true", help="no live table")
    given = parser.parse_args(argv)
    scenario = Scenario() if given.seed is None else Scenario.from_seed(given.seed)
    plain = given.plain or not sys.stdout.isatty()
    console = Console(highlight=False, force_terminal=False if plain else None, width=140 if plain else None)
    variant = "legacy" if given.legacy else "nft"
    options = Options(scenario, max(4.0, given.seconds), given.directory.resolve(), console, variant)
    return options, given.run or list(RUNS)


def _in_a_world_of_its_own(argv: list[str]) -> int:
    """An ordinary user's way: root in a user namespace, with mounts and a network of its own (user_namespaces(7))."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
    possible = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if possible.returncode:
        print(f"demo: needs root, or user namespaces: {possible.stderr.strip()}", file=sys.stderr)
        return 2
    within = 'mount -t tmpfs tmpfs /run && exec "$0" -m tests.lab.demo "$@"'
    os.execvp("unshare", [*unshare, "sh", "-c", within, sys.executable, *argv])
    return 2


def main(argv: list[str] | None = None) -> int:
    try:
        options, names = _options(argv)
        missing = [program for program in NEEDED if shutil.which(program) is None]
        if missing:
            print(f"demo: needs {', '.join(missing)}", file=sys.stderr)
            return 2
        if os.geteuid() != 0:
            return _in_a_world_of_its_own(sys.argv[1:] if argv is None else argv)
        return asyncio.run(until_told(demo(options, names)))
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
