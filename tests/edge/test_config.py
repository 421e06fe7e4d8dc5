"""appid.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from appid.edge import config
from appid.edge.config import Config, load_config
from appid.edge.errors import RuleErrors


def load(folder: Path, text: str) -> Config:
    path = folder / "appid.toml"
    path.write_text(text)
    return load_config(path)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Config()


def test_without_a_file_at_the_default_place_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_PATH", tmp_path / "none.toml")
    assert load_config() == Config()
    with pytest.raises(RuleErrors, match="no such file"):
        load_config(tmp_path / "none.toml")  # named, it must be there


def test_there_are_65536_queues(tmp_path: Path) -> None:
    assert load(tmp_path, "[gateway]\nfirst_queue = 65534\nworkers = 2\n").workers == 2
    with pytest.raises(RuleErrors) as refused:
        load(tmp_path, "[gateway]\nfirst_queue = 65535\nworkers = 2\n")
    assert [(each.table, each.key) for each in refused.value.errors] == [("gateway", "workers")]


def test_places_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("an operator's")
    for control, reason in ((tmp_path / "notes", "no socket"), (tmp_path / ("x" * 108), "too long")):
        with pytest.raises(RuleErrors, match=reason) as refused:
            load(tmp_path, f'[listen]\ncontrol = "{control}"\n[log]\nevents = "{tmp_path}"\n')
        assert [(each.table, each.key) for each in refused.value.errors] == [("listen", "control"), ("log", "events")]


def test_all_keys(tmp_path: Path) -> None:
    given = load(
        tmp_path,
        """
        [gateway]
        monitor = true
        first_queue = 10
        workers = 4
        queue_length = 1024
        mark_mask = 0x0ffff0f0
        iptables = "legacy"
        [limits]
        max_flows = 1000
        max_calls = 10
        max_calls_per_remote = 5
        max_pinholes = 100
        max_pinholes_per_host = 8
        [exceptions]
        engine-down = "open"
        [listen]
        metrics = "[::1]:9100"
        control = "/run/a.sock"
        [paths]
        policy = "/p.toml"
        rules = "/r"
        state = "/s"
        [log]
        events = "off"
        level = "debug"
        """,
    )
    assert (given.monitor, given.first_queue, given.workers, given.queue_length) == (True, 10, 4, 1024)
    assert (given.mark_mask, given.iptables) == (0x0FFFF0F0, "legacy")
    assert (given.max_flows, given.max_calls, given.max_pinholes, given.max_pinholes_per_host) == (1000, 10, 100, 8)
    assert given.max_calls_per_remote == 5
    assert given.exceptions.opens("engine-down")
    assert not given.exceptions.opens("queue-full")
    assert (given.metrics, given.control) == (("::1", 9100), Path("/run/a.sock"))
    assert (given.policy, given.rules, given.state) == (Path("/p.toml"), Path("/r"), Path("/s"))
    assert (given.events, given.level) == (None, "debug")
    assert load(tmp_path, '[listen]\nmetrics = "off"\n').metrics is None
    assert load(tmp_path, '[listen]\ngroup = "daemon"\n').group == 1  # Debian's base-passwd
    assert load(tmp_path, "[listen]\ngroup = 4242\n").group == 4242
    assert load(tmp_path, '[log]\nevents = "unix:/run/reader.sock"\n').events == "unix:/run/reader.sock"


def test_every_fault_at_once(tmp_path: Path) -> None:
    with pytest.raises(RuleErrors) as caught:
        load(
            tmp_path,
            """
            [gateway]
            workers = 0
            mark_mask = 0x3
            colour = 1
            [limits]
            max_memory = 127
            [exceptions]
            midstream = "open"
            table-full = "ajar"
            [listen]
            metrics = "localhost"
            control = "here"
            group = "nobody that there is"
            [log]
            events = "eve.json"
            [other]
            """,
        )
    told = [(e.table, e.key) for e in caught.value.errors]
    assert told == [
        ("gateway", "workers"), ("gateway", "mark_mask"), ("gateway", "colour"), ("limits", "max_memory"),
        ("exceptions", "midstream"), ("exceptions", "table-full"), ("listen", "metrics"), ("listen", "control"),
        ("listen", "group"), ("log", "events"), ("", "other"),
    ]  # fmt: skip
