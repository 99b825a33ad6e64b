"""By what the service grows: CPU, our metrics through the adapter, or KEDA."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import promql_parser
import pytest
import yaml

from .conftest import SETS
from .objects import Object, kinds_of
from .test_alerts import PROMTOOL, matchers_of

Render = Callable[..., list[Object]]


def test_by_cpu_where_there_is_nothing_else(render: Render) -> None:
    [scaler] = kinds_of(render({"autoscaling": {"targetCPUUtilizationPercentage": 55}}), "HorizontalPodAutoscaler")
    [metric] = scaler["spec"]["metrics"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 55}}
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 10)


def test_by_waiting_requests_through_the_adapter(render: Render) -> None:
    [scaler] = kinds_of(render(SETS["adapter"]), "HorizontalPodAutoscaler")
    _, waiting = scaler["spec"]["metrics"]
    assert waiting["pods"] == {
        "metric": {"name": "reco_pending_embed"},
        "target": {"type": "AverageValue", "averageValue": "4"},
    }
    assert scaler["spec"]["minReplicas"] == 3


def test_none_where_it_is_off(render: Render) -> None:
    made = render({"autoscaling": {"enabled": False}, "replicaCount": 5})
    assert not kinds_of(made, "HorizontalPodAutoscaler", "ScaledObject")
    assert [
        each["spec"]["replicas"] for each in kinds_of(made, "Deployment") if each["metadata"]["name"] == "reco"
    ] == [5]


@pytest.mark.parametrize(("release", "namespace"), [("reco", "reco"), ("blue", "shop")])
def test_keda_asks_for_this_releases_metrics(render: Render, release: str, namespace: str) -> None:
    """Where Prometheus is away, pods stay: with a fallback they would become as few as it says."""
    made = render(SETS["keda"], release, namespace)
    assert not kinds_of(made, "HorizontalPodAutoscaler"), "KEDA makes its own"
    [scaled] = kinds_of(made, "ScaledObject")
    spec = scaled["spec"]
    assert "fallback" not in spec
    full = "reco" if release == "reco" else "blue-reco"
    assert spec["scaleTargetRef"]["name"] == full
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 40)
    kinds = {trigger.get("name", trigger["type"]): trigger for trigger in spec["triggers"]}
    assert kinds.keys() == {"pending", "queue", "cpu"}
    assert kinds["cpu"]["metadata"] == {"value": "70"}
    for name, threshold, metrics in [
        ("pending", "4", {"reco_pending_embed"}),
        ("queue", "0.2", {"reco_pending_embed", "reco_queue_seconds_bucket"}),
    ]:
        trigger = kinds[name]
        assert trigger["type"] == "prometheus" and trigger["authenticationRef"] == {"name": "prometheus"}
        assert trigger["metadata"]["threshold"] == threshold
        assert trigger["metadata"]["serverAddress"].startswith("http://prometheus-operated")
        query = trigger["metadata"]["query"]
        promql_parser.parse(query)
        assert {each["__name__"] for each in matchers_of(query)} == metrics
        assert query.endswith(" or vector(0)"), "where nothing is asked there is no number"
        pods = {each["pod"] for each in matchers_of(query)}
        assert all(re.fullmatch(pod, f"{full}-7d4b9c6f5-x2x4k") for pod in pods)
        assert not any(re.fullmatch(pod, f"{full}-triton-7d4b9c6f5-x2x4k") for pod in pods)
        assert all(each["namespace"] == namespace and each["pod"].startswith(f"{full}-") for each in matchers_of(query))


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: promtool)")
def test_kedas_queries_count_what_they_should(render: Render, tmp_path: Path) -> None:
    """By Prometheus itself: two pods, one of another release, a busy minute and a quiet one."""
    [scaled] = kinds_of(render(SETS["keda"]), "ScaledObject")
    queries = {each.get("name"): each["metadata"].get("query") for each in scaled["spec"]["triggers"]}
    own = ['namespace="reco",pod="reco-7d4b9-a1"', 'namespace="reco",pod="reco-7d4b9-b2"']
    other = 'namespace="shop",pod="reco-7d4b9-c3"'
    pending = [{"series": f"reco_pending_embed{{{pod}}}", "values": "6x20"} for pod in [*own, other]]
    waited = [
        {"series": f'reco_queue_seconds_bucket{{{pod},le="{le}"}}', "values": values}
        for pod in own
        for le, values in (("0.1", "0x10 0x10"), ("1", "0+60x10 600x10"), ("+Inf", "0+60x10 600x10"))
    ]
    asked = [("pending", 9, 12), ("queue", 9, 2 * 0.955), ("queue", 20, 0)]
    tests = [
        {"expr": queries[name], "eval_time": f"{at}m", "exp_samples": [{"labels": "{}", "value": value}]}
        for name, at, value in asked
    ]
    case = {"interval": "1m", "input_series": pending + waited, "promql_expr_test": tests}
    quiet = {"expr": queries["pending"], "eval_time": "1m", "exp_samples": [{"labels": "{}", "value": 0}]}
    none = {"interval": "1m", "input_series": [], "promql_expr_test": [quiet]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [case, none]}))
    done = subprocess.run([str(PROMTOOL), "test", "rules", tmp_path / "tests.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
