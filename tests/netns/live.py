"""`appid run` in the gateway's namespace: policies as text, and what it answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appid.edge.control import ask
from tests.netns.net import Net, until

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN = 30.0
ENDS_WITH_US = ("setpriv", "--pdeathsig", "TERM")
"""Before a program's arguments: it is told to end when this process dies, however that comes."""
ZONES = """
[zones]
inside = { interfaces = ["lan0"], networks = ["10.77.1.0/24", "fd00:77:1::/64"] }
outside = { interfaces = ["wan0"] }
"""


def rule(name: str, action: str, *applications: str, **more: str) -> str:
    """A [[rule]]; the values of `more` are TOML."""
    named = f"applications = {json.dumps(list(applications))}\n" if applications else ""
    rest = "".join(f"{key.removesuffix('_')} = {value}\n" for key, value in more.items())
    return f'[[rule]]\nname = "{name}"\naction = "{action}"\n{named}{rest}'


ALL = rule("all", "allow", service='"any"')
NFT_OR_SLOW = pytest.mark.parametrize("variant", ["nft", pytest.param("legacy", marks=pytest.mark.slow)])
"""Where the variants differ in nothing that is tested; `make acceptance` runs both."""


class Live:
    """One running gateway; its files are in `folder`."""

    def __init__(
        self, net: Net, folder: Path, policy: str, variant: str, options: str = "", *flags: str,
        gateway: str = 'on_stop = "remove"',
    ) -> None:  # fmt: skip
        self.net, self.folder = net, folder
        self.policy, self.config = folder / "policy.toml", folder / "appid.toml"
        self.events_file, self.log = folder / "events.jsonl", folder / "appid.log"
        self.control = folder / "control.sock"
        self.zones = getattr(net, "zones", ZONES)
        self.policy.write_text(self.zones + policy)
        self.config.write_text(
            f'[gateway]\niptables = "{variant}"\n{gateway}\n'
            f'[listen]\nmetrics = "127.0.0.1:9466"\ncontrol = "{self.control}"\n'
            f'[paths]\npolicy = "{self.policy}"\nrules = "{folder / "rules"}"\nstate = "{folder / "state"}"\n'
            f'[log]\nevents = "{self.events_file}"\n{options}'
        )
        self.flags = flags
        self.log.touch()
        self.begin()

    @property
    def command(self) -> list[str]:
        own = [sys.executable, "-m", "appid.cli.main", "run", "-c", str(self.config), *self.flags]
        return [*ENDS_WITH_US, "ip", "netns", "exec", self.net.gateway.name, *own]

    def begin(self, *starter: str, descriptors: Sequence[int] = ()) -> None:
        """Start it, or start it again, by a `starter` that is given `descriptors`: `text` is then what the new one
        said. It ends if that fails, and with us."""
        self.log.unlink()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*starter, *self.command], cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
                pass_fds=descriptors, env={**os.environ, "APPID_TRACEBACK": "1"},
            )  # fmt: skip
        try:
            ready = until(lambda: "ready" in self.text() or self.process.poll() is not None, READY_WITHIN)
            assert ready, self.text()
            assert self.process.poll() is None, self.text()
        except BaseException:  # an interrupt too: nobody else knows of it yet
            self.stop()
            raise

    def text(self) -> str:
        return self.log.read_text()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15)
        finally:
            with contextlib.suppress(ProcessLookupError):  # its session: workers that outlived it, or itself
                os.killpg(self.process.pid, signal.SIGKILL)

    def ask(self, name: str, **more: str) -> list[dict[str, Any]]:
        return ask(self.control, {"ask": name, **more}, 30.0)

    def load(self, policy: str) -> list[dict[str, Any]]:
        """Another policy, handed over the control socket."""
        place = self.folder / "other.toml"
        place.write_text(self.zones + policy)
        return self.ask("load", policy=str(place))

    def hang_up(self, policy: str) -> None:
        """The configured file changes, then SIGHUP."""
        self.policy.write_text(self.zones + policy)
        self.process.send_signal(signal.SIGHUP)

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = self.events_file.read_text().splitlines() if self.events_file.exists() else []
        return [event for event in map(json.loads, lines) if event["event_type"] == kind]

    def metric(self, line: str) -> float | None:
        """The value of the sample that begins with `line`."""
        told = self.net.gateway.run(
            sys.executable,
            "-c",
            "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9466').read().decode())",
        )
        return next((float(each.split()[-1]) for each in told.splitlines() if each.startswith(line)), None)

    def flow(self, port: int) -> dict[str, Any]:
        """The last flow to this port."""
        return [flow for flow in self.ask("flows") if flow["dport"] == port][-1]


@contextmanager
def live(
    net: Net, folder: Path, policy: str, variant: str, options: str = "", *flags: str,
    gateway: str = 'on_stop = "remove"',
) -> Iterator[Live]:  # fmt: skip
    made = Live(net, folder, policy, variant, options, *flags, gateway=gateway)
    try:
        yield made
    finally:
        status = made.stop()
    assert status == 0, made.text()
    assert "Traceback" not in made.text(), made.text()


def settle(seconds: float = 0.1) -> None:
    time.sleep(seconds)
