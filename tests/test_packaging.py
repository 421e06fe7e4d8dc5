"""What is shipped beside the program: alert rules and dashboard, held to promtool and to the metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from appid.dataplane.marks import Marks
from appid.edge.metrics import Metrics

PACKAGING = Path(__file__).resolve().parents[1] / "packaging"
PROMETHEUS = PACKAGING / "prometheus"
RULES = PROMETHEUS / "appid.rules.yml"
DASHBOARD = json.loads((PACKAGING / "grafana" / "appid.json").read_text())
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def promtool(*arguments: str | Path, cwd: Path = PROMETHEUS) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_finds_the_alert_rules_clean() -> None:
    assert "12 rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", RULES.name)


def test_the_configuration_that_is_shown_is_one() -> None:
    promtool("check", "config", "prometheus.yml")


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", "appid.rules.test.yml")


def test_each_alert_has_a_test_that_sees_it_fire() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    tested = (PROMETHEUS / "appid.rules.test.yml").read_text()
    fired = re.findall(r"alertname: (\w+)\n\s+exp_alerts", tested)
    assert sorted(alerts) == sorted(fired)


def known() -> set[str]:
    """The names of all samples that a gateway exposes."""
    metrics = Metrics(Marks(), {})
    names = {"up"}
    for family in (*metrics.registry.collect(), *metrics.live.collect()):
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        names.update(family.name + suffix for suffix in suffixes.get(family.type, [""]))
    return names


def used(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:appid_\w+|up)\b(?=[{\[ ]|$|\))", expression))


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target


def test_alerts_and_panels_ask_for_metrics_that_there_are() -> None:
    asked = {"rules": used(RULES.read_text().replace("\n", " "))}
    asked |= {title: used(target["expr"]) for title, target in targets()}
    for place, names in asked.items():
        assert names, place
        assert names - known() == set(), place


def test_each_expression_of_the_dashboard_is_one(tmp_path: Path) -> None:
    expressions = [target["expr"] for _, target in targets()]
    expressions += [each["expr"] for each in DASHBOARD["annotations"]["list"]]
    rules = [
        {"record": f"panel:{number}", "expr": each.replace("$instance", ".*").replace("$__rate_interval", "5m")}
        for number, each in enumerate(expressions)
    ]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(expressions)} rules found" in promtool("check", "rules", "--lint=none", path)


def test_panels_do_not_overlap_and_ask_the_chosen_prometheus() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for title, target in targets():
        assert target["datasource"] == DATASOURCE, title
        assert "$instance" in target["expr"], title


def test_each_metric_of_the_interface_is_on_the_dashboard_or_alerts() -> None:
    text = RULES.read_text() + json.dumps(DASHBOARD)
    for name in sorted(known() - {"up"}):
        if not name.endswith(("_sum", "_count", "_created")):
            assert name in text, name
