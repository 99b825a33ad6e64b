"""Dashboard and alerts: every query parses, and asks for metrics and labels that somebody exports."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from reco_plugin.counters import Counters, Histogram

FOLDER = Path("deploy", "helm", "files")
TARGET = frozenset({"instance", "job", "pod"})  # Prometheus adds them
MODEL, NODE = frozenset({"model", "version"}), frozenset({"id"})

# triton-inference-server/server, docs/user_guide/metrics.md, 2.73; a running 2.51 exports the first eight, too.
TRITON = {
    "nv_inference_count": MODEL,
    "nv_inference_exec_count": MODEL,
    "nv_inference_request_success": MODEL,
    "nv_inference_request_failure": MODEL | {"reason"},
    "nv_inference_request_duration_us": MODEL,
    "nv_inference_queue_duration_us": MODEL,
    "nv_inference_compute_infer_duration_us": MODEL,
    "nv_inference_pending_request_count": MODEL,
    "nv_gpu_utilization": frozenset({"gpu_uuid"}),
    "nv_gpu_memory_used_bytes": frozenset({"gpu_uuid"}),
    "nv_gpu_memory_total_bytes": frozenset({"gpu_uuid"}),
}
# qdrant/qdrant, src/common/metrics.rs, v1.19.0, with the prefix that we set (QDRANT__SERVICE__METRICS_PREFIX).
QDRANT = {
    "qdrant_app_info": frozenset({"name", "version"}),
    "qdrant_cluster_peers_total": frozenset(),
    "qdrant_cluster_pending_operations_total": frozenset(),
    "qdrant_collection_points": NODE,
    "qdrant_collection_dead_replicas": NODE,
    "qdrant_collection_running_optimizations": NODE,
    "qdrant_memory_resident_bytes": frozenset(),
    "qdrant_grpc_responses_total": frozenset({"endpoint", "status"}),
    "qdrant_rest_responses_total": frozenset({"method", "endpoint", "status"}),
    "qdrant_grpc_responses_duration_seconds_bucket": frozenset({"endpoint", "status", "le"}),
}
# reco_plugin/serve/metrics.py; Prometheus' own, its client's and the kubelet's.
SERVICE = {
    "reco_http_requests_total": frozenset({"route", "status"}),
    "reco_http_request_seconds_bucket": frozenset({"route", "le"}),
    "reco_queue_seconds_bucket": frozenset({"le"}),
    "reco_pending_embed": frozenset(),
    "reco_pending_memory": frozenset(),
    "reco_pending_bytes": frozenset(),
    "reco_circuit_open": frozenset({"part"}),
    "reco_refined_share": frozenset(),
    "reco_arm_queries_total": frozenset({"arm", "answer"}),
    "reco_arm_seconds_bucket": frozenset({"arm", "le"}),
    "reco_encoder_changed": frozenset(),
    "reco_learning": frozenset(),
    "reco_learning_unfinished": frozenset(),
    "process_start_time_seconds": frozenset(),
    "process_resident_memory_bytes": frozenset(),
}
OTHERS = {
    "up": frozenset(),
    "kubelet_volume_stats_available_bytes": frozenset({"namespace", "persistentvolumeclaim"}),
    "kubelet_volume_stats_capacity_bytes": frozenset({"namespace", "persistentvolumeclaim"}),
}
LABELS = {
    "encode_s": {"modality"},
    "refined": {"modality"},
    "left_plain": {"modality"},
    "degraded": {"reason"},
    "failed": {"reason"},
}


def plugin_metrics() -> dict[str, frozenset[str]]:
    """The plugin's counters under the names of docs/deployment.md: reco_, and the unit written out."""
    known: dict[str, frozenset[str]] = {}
    for attribute, value in vars(Counters()).items():
        labels = frozenset(LABELS.get(attribute, ()))
        name = "reco_" + (attribute.removesuffix("_s") + "_seconds" if attribute.endswith("_s") else attribute)
        if isinstance(value, Histogram | dict):
            known |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            known[f"{name}_total"] = labels
    return known


KNOWN = TRITON | QDRANT | SERVICE | OTHERS | plugin_metrics()


class Query(NamedTuple):
    """What a PromQL expression asks for."""

    metrics: set[str]
    labels: set[str]


def asked(expression: str) -> Query:
    """Parse a query of Grafana or Prometheus."""
    query = Query(set(), set())

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            query.metrics.add(node.name)
            query.labels.update(matcher.name for matcher in node.matchers.matchers)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            query.labels.update(node.modifier.labels)

    promql_parser.walk(promql_parser.parse(expression.replace("$__rate_interval", "5m")), visit)
    return query


def check(expression: str) -> None:
    """Refuse a metric that nobody exports, and a label that none of the metrics has."""
    query = asked(expression)
    assert query.metrics
    assert query.metrics <= KNOWN.keys(), query.metrics - KNOWN.keys()
    labels = TARGET.union(*(KNOWN[name] for name in query.metrics))
    assert query.labels <= labels, query.labels - labels


@pytest.fixture(scope="module")
def dashboard(root: Path) -> dict[str, Any]:
    return json.loads((root / FOLDER / "dashboard.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def rules(root: Path) -> list[dict[str, Any]]:
    resource = yaml.safe_load((root / FOLDER / "alerts.yaml").read_text("utf-8"))
    return [rule for group in resource["groups"] for rule in group["rules"]]


def _panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def test_the_check_refuses() -> None:
    check("sum by (reason) (rate(reco_degraded_total[5m]))")
    for wrong in (
        "sum(rate(reco_degradde_total[5m]))",
        "sum by (raeson) (rate(reco_degraded_total[5m]))",
        'rate(nv_inference_count{modle="clip_text"}[5m])',
        "memory_resident_bytes",  # without our prefix
    ):
        with pytest.raises(AssertionError):
            check(wrong)
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        check("sum(rate(reco_degraded_total[5m])")


def test_each_panel_asks_for_what_exists(dashboard: dict[str, Any]) -> None:
    seen = set()
    for panel in _panels(dashboard):
        assert panel["targets"], panel["title"]
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            check(target["expr"])
            seen |= asked(target["expr"]).metrics
    assert {f"reco_{stage}_seconds_bucket" for stage in ("encode", "retrieve", "fuse")} <= seen
    assert {"reco_degraded_total", "reco_moved_bucket", "nv_inference_queue_duration_us"} <= seen
    assert {"nv_inference_exec_count", "qdrant_grpc_responses_duration_seconds_bucket"} <= seen


def _kept(given: Any, back: Any) -> bool:
    """Whether all that was given came back; Grafana's defaults may have been added."""
    if isinstance(given, dict):
        return isinstance(back, dict) and all(key in back and _kept(value, back[key]) for key, value in given.items())
    if isinstance(given, list):
        return isinstance(back, list) and len(given) == len(back) and all(map(_kept, given, back))
    return bool(given == back)


def test_grafana_knows_each_field(dashboard: dict[str, Any]) -> None:
    """Reading and writing with Grafana's own types keeps all: nothing is misspelt."""

    register_default_plugins()  # Prometheus' queries, and the options of each kind of panel

    def known(source: dict[str, Any]) -> bool:
        return _kept(source, json.loads(JSONEncoder().encode(Dashboard.from_json(copy.deepcopy(source)))))

    assert known(dashboard)
    panel = dashboard["panels"][1]
    for place in (dashboard, panel, panel["targets"][0], panel["options"], panel["fieldConfig"]["defaults"]):
        place["titel"] = "lost"
        assert not known(dashboard)
        del place["titel"]


def test_panels_stand_side_by_side(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for one, other in combinations([panel["gridPos"] for panel in dashboard["panels"]], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in dashboard["panels"])
    for panel in _panels(dashboard):
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters))
        assert {each["datasource"]["uid"] for each in [panel, *panel["targets"]]} == {"${datasource}"}
    assert [each["name"] for each in dashboard["templating"]["list"]] == ["datasource"]


def test_each_alert_asks_for_what_exists_and_says_what_to_do(rules: list[dict[str, Any]]) -> None:
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 7
    for rule in rules:
        check(rule["expr"])
        assert promql_parser.parse_duration(rule["for"]).total_seconds() >= 60
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "description"} == rule["annotations"].keys()
        assert all(len(words.split()) >= 3 for words in rule["annotations"].values())


def test_the_page_lists_the_plugins_metrics(root: Path) -> None:
    page = (root / "docs" / "deployment.md").read_text("utf-8")
    rows = re.findall(r"^\| `(reco_\w+)` \| (\w+) \|([^|]*)\|", page, flags=re.MULTILINE)
    listed = {
        name + suffix: set(re.findall(r"\w+", labels)) | ({"le"} if suffix == "_bucket" else set())
        for name, kind, labels in rows
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    assert listed == plugin_metrics()
