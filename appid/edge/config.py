"""The gateway's own file: appid.toml -> Config (docs/reference/configuration.md is the format).

In: a path; without a file at the default place, the defaults hold. Out: Config, or RuleErrors with every fault.
"""

from __future__ import annotations

import grp
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from appid.dataplane.chain import Allowed
from appid.dataplane.marks import Marks
from appid.edge import memory
from appid.edge.errors import RuleError, RuleErrors, of_validation
from appid.edge.toml_values import alg_functions, read_toml
from appid.identify.application import ALG, AlgFunction
from appid.policy.exception import CAUSES, Cause, ExceptionPolicy, Failure
from appid.policy.rule import Network

DEFAULT_PATH = Path("/etc/appid/appid.toml")
Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Config:
    """What `appid run` is told.

    monitor        everything passes; the decision that would have been is reported
    first_queue, workers   one process per NFQUEUE: first_queue ... first_queue + workers - 1
    on_stop        what SIGTERM does with the chains: "keep" them, so that decided flows go on, or "remove" them
    queue_length   packets that the kernel holds per queue
    mark_mask      bits of packet marks and connmarks that are ours (dataplane/marks.py has the layout)
    qos_mask       more of them, for the classes of policy rules with `dscp` or `mark`; 0: none, and no such rules
    iptables       which variant of the commands to call
    allowed        where what policy allows is accepted (dataplane/chain.py, Topology)
    max_memory     MiB that a worker may take: close to them it gives up undecided flows
    max_flows      flows kept per worker; max_calls, max_pinholes: per gateway, max_..._per_host: per inside host;
                   max_calls_per_remote: that one address outside has begun
    metrics        (address, port) where Prometheus asks, or None
    control        the control socket; group: the number of the group that may ask there, or None
    policy, rules, state   the policy file, the operator's applications, where state is kept over a restart
    events         a file for JSON lines, "-" for standard output, None for none
    queued         a pcap of every packet that userspace was asked about, None for none: what the engine saw, to replay
    unknown        a pcap of the first packets of flows that stayed unknown, None for none; unknown_bytes at most
    nat_outside    the gateway's own outside addresses: descriptions that name them are bound to the inside host
    alg            what the ALG does, for any application and rule
    nat_masqueraded   inside networks whose source the host translates; None: as the host's own rules say
    """

    monitor: bool = False
    first_queue: int = 0
    workers: int = 1
    on_stop: Literal["keep", "remove"] = "keep"
    queue_length: int = 8192
    mark_mask: int = 0x00FFFF0F
    qos_mask: int = 0x0F000000
    iptables: Literal["auto", "nft", "legacy"] = "auto"
    allowed: Allowed = "last"
    max_flows: int = 65536
    max_calls: int = 4096
    max_calls_per_host: int = 1024
    max_calls_per_remote: int = 512
    max_pinholes: int = 16384
    max_pinholes_per_host: int = 64
    max_memory: int = 1024
    exceptions: ExceptionPolicy = field(default_factory=ExceptionPolicy)
    metrics: tuple[str, int] | None = ("127.0.0.1", 9466)
    control: Path = Path("/run/appid/control.sock")
    group: int | None = None
    policy: Path = Path("/etc/appid/policy.toml")
    rules: Path = Path("/etc/appid/rules")
    state: Path = Path("/var/lib/appid")
    events: str | None = "/var/log/appid/eve.json"
    level: Level = "info"
    queued: Path | None = None
    unknown: Path | None = None
    unknown_bytes: int = 16 << 20
    nat_outside: tuple[str, ...] = ()
    alg: frozenset[AlgFunction] = ALG
    nat_masqueraded: tuple[Network, ...] | None = None


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _mask(mask: int) -> int:
    Marks(mask)
    return mask


def _path(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError(f"{value!r} is no absolute path")
    return Path(value)


def _socket(value: Any) -> Any:
    """A place for a socket: what is there must be one, for it is replaced."""
    place = _path(value)
    if len(str(place).encode()) > SOCKET_PATH:
        raise ValueError(f"{value!r} is too long for a socket: {SOCKET_PATH} bytes at most")
    if place.exists() and not place.is_socket():
        raise ValueError(f"{value!r} is there already, and is no socket")
    return place


def _listener(value: Any) -> Any:
    """ "127.0.0.1:9466", "[::1]:9466", or "off"."""
    if value == "off":
        return None
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        if not 1 <= int(port) <= 0xFFFF:
            raise ValueError(port)
        return (str(ip_address(host.removeprefix("[").removesuffix("]"))), int(port))
    except ValueError:
        raise ValueError(f'{value!r} is no listener; write "127.0.0.1:9466" or "off"') from None


def _group(value: Any) -> Any:
    """The name of a group of this host, or its number."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    try:
        return grp.getgrnam(value).gr_gid
    except (KeyError, TypeError):
        raise ValueError(f"{value!r} is no group of this host") from None


SOCKET_PATH = 107
"""Bytes of a socket's path: sockaddr_un, without the zero that ends it."""
Absolute = Annotated[Any, BeforeValidator(_path)]


class _Gateway(_Table):
    """`mark_mask` and `qos_mask` are looked at together: bits of one are not bits of the other."""

    monitor: bool = False
    first_queue: Annotated[int, Field(ge=0, le=0xFFFF)] = 0
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    on_stop: Literal["keep", "remove"] = "keep"
    queue_length: Annotated[int, Field(ge=1, le=1_000_000)] = 8192
    mark_mask: Annotated[int, AfterValidator(_mask)] = 0x00FFFF0F
    qos_mask: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] = 0x0F000000
    iptables: Literal["auto", "nft", "legacy"] = "auto"
    allowed: Allowed = "last"

    @field_validator("workers")
    @classmethod
    def queues(cls, workers: int, info: ValidationInfo) -> int:
        last = info.data.get("first_queue", 0) + workers - 1
        if last > 0xFFFF:
            raise ValueError(f"the last queue would be {last}: there are 65536, from 0 on")
        return workers

    @model_validator(mode="after")
    def bits(self) -> _Gateway:
        if "qos_mask" not in self.model_fields_set and self.qos_mask & self.mark_mask:
            self.qos_mask = 0
        Marks(self.mark_mask, self.qos_mask)
        return self


class _Limits(_Table):
    max_flows: Annotated[int, Field(ge=16)] = 65536
    max_calls: Annotated[int, Field(ge=1)] = 4096
    max_calls_per_host: Annotated[int, Field(ge=1)] = 1024
    max_calls_per_remote: Annotated[int, Field(ge=1)] = 512
    max_pinholes: Annotated[int, Field(ge=1, le=65536)] = 16384
    max_pinholes_per_host: Annotated[int, Field(ge=1, le=65536)] = 64
    max_memory: Annotated[int, Field(ge=memory.LEAST)] = 1024


class _Listen(_Table):
    metrics: Annotated[Any, BeforeValidator(_listener)] = ("127.0.0.1", 9466)
    control: Annotated[Any, BeforeValidator(_socket)] = Path("/run/appid/control.sock")
    group: Annotated[int | None, BeforeValidator(_group)] = None


class _Paths(_Table):
    policy: Absolute = Path("/etc/appid/policy.toml")
    rules: Absolute = Path("/etc/appid/rules")
    state: Absolute = Path("/var/lib/appid")


def _events(value: Any) -> Any:
    """ "/var/log/appid/eve.json", "unix:/run/reader.sock", "-", or "off"."""
    if value in ("-", "off") or (isinstance(value, str) and value.removeprefix("unix:").startswith("/")):
        if Path(value).is_dir():
            raise ValueError(f"{value!r} is a directory")
        return value
    raise ValueError(f'{value!r} is no place; write "/a/path", "unix:/a/path", "-" or "off"')


class _Log(_Table):
    events: Annotated[Any, BeforeValidator(_events)] = "/var/log/appid/eve.json"
    level: Level = "info"
    queued: Annotated[Any, BeforeValidator(_path)] = None
    unknown: Annotated[Any, BeforeValidator(_path)] = None
    unknown_bytes: Annotated[int, Field(ge=65536)] = 16 << 20


def _address(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no address")
    return str(ip_address(value))


def _masqueraded(value: Any) -> Any:
    """ "auto", "off", or networks."""
    if value in ("auto", "off"):
        return None if value == "auto" else []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f'{value!r} is neither "auto", "off" nor a list of networks')
    networks = [ip_network(each) for each in value]
    return [(network.network_address.packed, network.prefixlen) for network in networks]


class _Alg(_Table):
    expectations: bool = True
    translation: bool = True
    channel_bind: bool = True


class _Nat(_Table):
    outside: list[Annotated[str, BeforeValidator(_address)]] = []
    masqueraded: Annotated[Any, BeforeValidator(_masqueraded)] = None


class _File(_Table):
    gateway: _Gateway = _Gateway()
    limits: _Limits = _Limits()
    exceptions: dict[Cause, Failure] = {}
    listen: _Listen = _Listen()
    paths: _Paths = _Paths()
    log: _Log = _Log()
    nat: _Nat = _Nat()
    alg: _Alg = _Alg()


def load_config(path: Path | None = None) -> Config:
    """The file's Config. `path` None: the default place, where it is no fault that there is no file."""
    if path is None and not DEFAULT_PATH.exists():
        return Config()
    place = path or DEFAULT_PATH
    tables = read_toml(place)
    if isinstance(tables, RuleError):
        raise RuleErrors([tables])
    try:
        file = _File.model_validate(tables)
    except ValidationError as error:
        raise RuleErrors(_named(one) for one in of_validation(str(place), error)) from None
    return Config(
        **file.gateway.model_dump(),
        **file.limits.model_dump(),
        **file.paths.model_dump(),
        exceptions=ExceptionPolicy(file.exceptions),
        metrics=file.listen.metrics,
        control=file.listen.control,
        group=file.listen.group,
        events=None if file.log.events == "off" else file.log.events,
        level=file.log.level,
        queued=file.log.queued,
        unknown=file.log.unknown,
        unknown_bytes=file.log.unknown_bytes,
        alg=alg_functions([one for one in ALG if getattr(file.alg, one.replace("-", "_"))]),
        nat_outside=tuple(file.nat.outside),
        nat_masqueraded=None if file.nat.masqueraded is None else tuple(file.nat.masqueraded),
    )


def _named(error: RuleError) -> RuleError:
    """pydantic calls a faulty key of a dict `[key]`."""
    if not error.table.startswith("exceptions"):
        return error
    _, _, cause = error.table.partition(".")
    reason = error.reason if cause in CAUSES or not cause else f"no such cause; there are {', '.join(CAUSES)}"
    return RuleError(error.file, "exceptions", cause or error.key, reason)
