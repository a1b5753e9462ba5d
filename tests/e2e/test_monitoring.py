"""What docs/monitoring has for Prometheus and Grafana, by promtool and by a real Prometheus before real servers."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from support.cluster import Cluster
from support.prometheus import Prometheus, promtool
from support.server import Server
from support.wait import PATIENCE, until

MONITORING = ROOT / "docs/monitoring"
RULES = MONITORING / "iris-alerts.yml"
NAME = re.compile(r"\biris_[a-z0-9_]+")


def panels() -> list[str]:
    """Return the expressions of the dashboard for Grafana, as it would ask them of all nodes."""
    dashboard = json.loads((MONITORING / "iris-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return [expr.replace("$instance", ".*").replace("$__rate_interval", "1m") for expr in asked]


def rules() -> list[str]:
    """Return the expressions of the alerts."""
    return re.findall(r"^ +expr: (.*)$", RULES.read_text(), re.MULTILINE)


def exposed(node: Server) -> str:
    """Return /metrics as it is."""
    with urllib.request.urlopen(f"http://{node.admin}/metrics", timeout=PATIENCE) as answer:
        text: str = answer.read().decode()
        return text


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Return a running pair with an edge, which have a price."""
    cluster = make_cluster(2, 1)
    for node in cluster.nodes:
        node.more = {"node": {"price_per_hour": "0.192"}, "core": {"bytes_max": "1GiB"}}
    return cluster.start()


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[Prometheus]:
    """Return a Prometheus that scrapes the cluster."""
    prometheus = Prometheus(tmp_path / "prometheus", [node.admin for node in cluster.nodes], RULES)
    yield prometheus
    prometheus.close()


def test_promtool_accepts_the_metrics_of_an_edge_a_core_and_a_node_alone(
    cluster: Cluster, make_server: Callable[..., Server]
) -> None:
    alone = make_server().start()
    for node in (cluster.edges[0], cluster.cores[0], alone):
        checked = promtool("check", "metrics", stdin=exposed(node))
        assert checked.returncode == 0 and not checked.stdout + checked.stderr, checked.stdout + checked.stderr


def test_promtool_accepts_the_rules_and_their_tests() -> None:
    checked = promtool("check", "rules", str(RULES))
    assert checked.returncode == 0 and "SUCCESS" in checked.stdout, checked.stdout + checked.stderr
    tested = promtool("test", "rules", "iris-alerts-test.yml", cwd=MONITORING)
    assert tested.returncode == 0 and "SUCCESS" in tested.stdout, tested.stdout + tested.stderr


def test_the_tests_of_the_rules_notice_a_rule_that_is_wrong(tmp_path: Path) -> None:
    text = RULES.read_text()
    assert "iris_ready == 0" in text
    (tmp_path / "iris-alerts.yml").write_text(text.replace("iris_ready == 0", "iris_ready == 1"))
    (tmp_path / "iris-alerts-test.yml").write_text((MONITORING / "iris-alerts-test.yml").read_text())
    assert promtool("test", "rules", "iris-alerts-test.yml", cwd=tmp_path).returncode != 0


def test_prometheus_scrapes_a_cluster_and_has_every_metric_that_panels_and_rules_name(
    cluster: Cluster, prometheus: Prometheus
) -> None:
    until(lambda: len(prometheus.query('up{job="iris"} == 1')) == 3, "all three are scraped", every=0.1)
    with cluster.edges[0].login("alice") as alice:
        assert alice.ask("bob", b"x") == "accepted"
        until(lambda: prometheus.query("sum(iris_sends_total) >= 1"), "a message is seen", every=0.1)
    known = set(prometheus.get("label/__name__/values"))
    expressions = panels() + rules()
    named = {name for expression in expressions for name in NAME.findall(expression)}
    assert len(named) > 50 and named <= known, sorted(named - known)
    for expression in expressions:
        prometheus.query(expression)
    # What counts nothing yet has no rate, and alerts are quiet: the rest must show something.
    quiet = ("increase(", "> 0", "histogram_quantile", "_sum")
    for expression in panels():
        if not any(word in expression for word in quiet):
            # A rate needs two scrapes.
            until(lambda: prometheus.query(expression), f"there is something to show for {expression}", every=0.1)


def test_every_alert_is_loaded_and_a_core_that_is_killed_raises_those_of_it(
    cluster: Cluster, prometheus: Prometheus
) -> None:
    until(lambda: len(prometheus.query('up{job="iris"} == 1')) == 3, "all three are scraped", every=0.1)

    def alerts() -> dict[str, dict[str, Any]]:
        groups = prometheus.get("rules")["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    names = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    until(lambda: set(alerts()) == names, "all alerts are loaded", every=0.1)
    assert all(rule["health"] != "err" for rule in alerts().values())
    killed, survivor = cluster.cores
    killed.kill()
    wanted = {"IrisDown", "IrisCoreUnlinked", "IrisSolo"}
    until(
        lambda: all(alerts()[name]["state"] in ("pending", "firing") for name in wanted),
        "the alerts are about to come",
        every=0.1,
    )
    down = alerts()["IrisDown"]["alerts"][0]
    assert down["annotations"]["runbook_url"] == "docs/OPERATING.md#irisdown"
    assert down["annotations"]["summary"] == f"{killed.admin} does not answer"
    solo = alerts()["IrisSolo"]["alerts"]
    assert [alert["labels"]["instance"] for alert in solo] == [survivor.admin]
