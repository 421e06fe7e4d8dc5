"""What the files say, put together: applications, policy, and what follows from them for the engine and the chains.

In: a Config. Out: a Plan, or RuleErrors with every fault; nothing of a faulty one takes effect.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from appid.alg.host import Forward
from appid.dataplane.chain import Topology
from appid.dataplane.marks import Marks
from appid.dataplane.share import Share
from appid.edge.config import Config
from appid.edge.forwards import forwarded
from appid.edge.gateway import GatewayOptions
from appid.edge.links import Routes, addresses, read_routes
from appid.edge.policy_file import load_policy, uncollected
from appid.edge.rule_files import load_applications
from appid.edge.source_nat import masqueraded
from appid.edge.tally import Tally
from appid.engine import DecisionReport, FlowReport, Settings, TranslationReport
from appid.engine.calls import CALL
from appid.engine.limits import Limits
from appid.engine.record import DEFAULT_INSIDE
from appid.engine.record import Topology as Inside
from appid.identify.application import Application
from appid.policy import Decision
from appid.policy.evaluate import Judge
from appid.policy.exception import Cause, Failure
from appid.policy.lint import Finding, lint
from appid.policy.places import with_sides
from appid.policy.rule import Network, Policy, PolicyRule, Qos
from appid.wire import packed, text


@dataclass(frozen=True)
class Plan:
    """One state of the files. `place`: the policy file that was read; `loaded`: when (seconds)."""

    config: Config
    monitor: bool
    applications: Mapping[str, Application]
    policy: Policy
    warnings: tuple[Finding, ...]
    place: Path
    routes: Routes
    loaded: float = field(default_factory=time.time)

    @cached_property
    def marks(self) -> Marks:
        return Marks(self.config.mark_mask, self.config.qos_mask)

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.policy, self.applications)

    @property
    def numbers(self) -> dict[int, str]:
        """Applications by the number in the marks."""
        return {application.number: name for name, application in self.applications.items()}

    @property
    def media(self) -> frozenset[str]:
        """Names of applications whose UDP flows are media of calls."""
        return frozenset(name for name, each in self.applications.items() if CALL in each.characteristics)

    def parcel(self) -> bytes:
        """For the workers: compiled, without the warnings, which are longer than the policy and not theirs to tell."""
        own = copy(self)
        object.__setattr__(own, "warnings", ())
        return pickle.dumps(own)

    def settings(self, index: int = 0) -> Settings:
        """For the engine of worker `index`. What it takes from the host is looked up once, where a plan is made."""
        return Settings(
            self.applications, self.judge, self.inside, self.outside_addresses, self.marks, self.monitor,
            alg=self.config.alg, masqueraded=self.masqueraded, share=(index, self.config.workers), limits=self.limits(),
            exceptions=self.config.exceptions, forwarded=self.forwarded,
        )  # fmt: skip

    @cached_property
    def masqueraded(self) -> tuple[Network, ...]:
        """The networks whose source the host translates: as configured, else as its own rules say."""
        given = self.config.nat_masqueraded
        return masqueraded(self.outside_interfaces()) if given is None else given

    @cached_property
    def forwarded(self) -> tuple[Forward, ...]:
        """Ports that the host's own rules send on: no call takes them away."""
        return forwarded(self.outside_interfaces())

    @cached_property
    def inside(self) -> tuple[Network, ...]:
        """The networks of the inside zones, and those behind their interfaces."""
        zones = [zone for zone in self.policy.zones.values() if zone.outside is False]
        behind = self.routes.behind([interface for zone in zones for interface in zone.interfaces])
        return tuple(dict.fromkeys((*(n for zone in zones for n in zone.networks), *behind))) or DEFAULT_INSIDE

    def limits(self) -> Limits:
        """Of one worker: those of the gateway are divided among all."""
        config, workers = self.config, self.config.workers
        calls, pinholes = -(-config.max_calls // workers), -(-config.max_pinholes // workers)
        return Limits(
            config.max_flows, calls, config.max_calls_per_host, config.max_calls_per_remote, pinholes,
            config.max_pinholes_per_host,
        )  # fmt: skip

    @property
    def queues(self) -> tuple[int, ...]:
        """One for each worker."""
        return tuple(range(self.config.first_queue, self.config.first_queue + self.config.workers))

    def share(self, index: int) -> Share:
        """The flows of worker `index`."""
        return Share(index, self.config.workers, Inside(self.inside).inside)

    def outside_interfaces(self) -> tuple[str, ...]:
        return tuple(name for zone in self.policy.zones.values() if zone.outside for name in zone.interfaces)

    @cached_property
    def outside_addresses(self) -> frozenset[bytes]:
        """As configured, else those of the outside zones' interfaces."""
        configured = frozenset(packed(address) for address in self.config.nat_outside)
        return configured or addresses(self.outside_interfaces())

    def topology(self, before: Topology | None = None) -> Topology:
        """For the chains. Once there was a chain for QoS (`before`), it stays, empty if need be: others may have put
        rules behind it."""
        down, full = self.failure("engine-down") == "open", self.failure("queue-full") == "open"
        # Packets that a full queue lets go undecided meet the blind rule. Where those of an engine that is down must
        # not, the kernel drops them at the queue.
        blind: Literal["DROP", "ACCEPT"] = "ACCEPT" if down or full else "DROP"
        bypass = down or not full
        qos: tuple[Qos, ...] | None = () if before is not None and before.qos is not None else None
        return Topology(
            outside=self.outside_interfaces(),
            inside=tuple(f"{text(network)}/{prefix}" for network, prefix in self.inside),
            queues=self.queues, bypass=bypass, blind=blind, media=media_range(self.applications), marks=self.marks,
            allowed=self.config.allowed, monitor=self.monitor, qos=self.policy.qos or qos,
        )  # fmt: skip

    def failure(self, cause: Cause) -> Failure:
        """The exception policy; monitor mode lets everything pass."""
        return "open" if self.monitor else self.config.exceptions.failure(cause)

    def own(self, path: Path | None, index: int) -> Path | None:
        """A file that each worker writes for itself: its number in the name where there are several."""
        if path is None or self.config.workers == 1:
            return path
        return path.with_stem(f"{path.stem}-{index}")

    def options(self, index: int = 0, tally: Tally | None = None) -> GatewayOptions:
        queued = self.own(self.config.queued, index)
        return GatewayOptions(
            queue=self.queues[index], length=self.config.queue_length, record=str(queued) if queued else None,
            marks=self.marks, fail_open=self.failure("queue-full") == "open", owns=self.share(index).owns,
            inside=self.share(index).inside,
            tally=tally, memory=self.config.max_memory << 20,
            on_error="pass" if self.failure("internal-error") == "open" else "drop",
        )  # fmt: skip

    def logged(self, body: object) -> bool:
        """Whether the rule that decided wants it told (`log`)."""
        if not isinstance(body, FlowReport | DecisionReport) or body.decision is None:
            return not isinstance(body, TranslationReport)  # one a packet: counted, not told
        rule = self._rule(body.decision)
        return rule.log if rule is not None else self.policy.default_log

    def wanted(self, made: Decision | None) -> bool:
        """Whether the rule that decided wants unknown flows captured."""
        rule = self._rule(made)
        return rule.capture_unknown if rule is not None else self.policy.capture_unknown

    def _rule(self, made: Decision | None) -> PolicyRule | None:
        return self.judge.rule_of(made) if made is not None else None


def load_plan(config: Config, monitor: bool = False, place: Path | None = None) -> Plan:
    """Read the files: the policy at `place` (None: the configured one), and the applications. What zones leave open the
    host's routes say."""
    place = place or config.policy
    applications = load_applications(config.rules if config.rules.is_dir() else None)
    classes = Marks(config.mark_mask, config.qos_mask).classes
    with uncollected():
        routes = read_routes()
        policy = with_sides(load_policy(place, applications, classes), routes.uplinks)
        warnings = tuple(lint(policy, applications))
    return Plan(config, monitor or config.monitor, applications, policy, warnings, place, routes)


def media_range(applications: Mapping[str, Application]) -> tuple[int, int]:
    """The ports that unforeseen packets from outside may not take first: the media ports of foreseen applications."""
    ranges = [r for a in applications.values() if a.inbound == "foreseen" for r in a.media_ports if r.first > 1024]
    return (min((r.first for r in ranges), default=16384), max((r.last for r in ranges), default=16402))
