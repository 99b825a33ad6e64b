"""By what the service grows: CPU, our metrics through the adapter, or KEDA."""

from __future__ import annotations

import re
from collections.abc import Callable

import promql_parser
import pytest

from .conftest import SETS
from .objects import Object, kinds_of
from .test_alerts import matchers_of

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
