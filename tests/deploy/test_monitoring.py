"""Dashboard and alerts: every query parses, and asks for metrics and labels that somebody exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from reco_plugin import Reco
from reco_plugin.counters import Counters
from reco_plugin.serve.app import create_app
from reco_plugin.serve.service_settings import ServeSettings

pytestmark = pytest.mark.slow

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
# kubernetes/kube-state-metrics, docs/metrics/workload/cronjob-metrics.md
CRONJOB = frozenset({"namespace", "cronjob"})
OTHERS = {
    "up": frozenset(),
    "kube_cronjob_status_last_schedule_time": CRONJOB,
    "kube_cronjob_status_last_successful_time": CRONJOB,
}


@cache
def scraped() -> dict[str, frozenset[str]]:
    """What a service exports, after an answer and a refusal: the names of samples, and their labels."""
    with (
        TemporaryDirectory() as folder,
        Reco.open(memory=folder) as reco,
        TestClient(create_app(ServeSettings(page=False), reco)) as client,
    ):
        client.post("/v1/embeddings", json={"model": "clip", "input": "a red fox"})
        client.get("/nowhere")
        families = [*text_string_to_metric_families(client.get("/metrics").text)]
    return {sample.name: frozenset(sample.labels) for family in families for sample in family.samples}


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
    known = TRITON | QDRANT | OTHERS | scraped()
    assert query.metrics <= known.keys(), query.metrics - known.keys()
    labels = TARGET.union(*(known[name] for name in query.metrics))
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


def test_each_alert_asks_for_what_exists_and_says_what_to_do(rules: list[dict[str, Any]]) -> None:
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 7
    for rule in rules:
        check(rule["expr"])
        assert promql_parser.parse_duration(rule["for"]).total_seconds() >= 60
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "description"} == rule["annotations"].keys()
        assert all(len(words.split()) >= 3 for words in rule["annotations"].values())


def test_the_page_lists_the_plugins_metrics(root: Path) -> None:
    page = (root / "docs" / "run.md").read_text("utf-8")
    rows = re.findall(r"^\| `(reco_\w+)` \| (\w+) \|([^|]*)\|", page, flags=re.MULTILINE)
    listed = {
        name + suffix: set(re.findall(r"\w+", labels)) | ({"le"} if suffix == "_bucket" else set())
        for name, kind, labels in rows
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    assert {name: labels for name, labels in scraped().items() if name in listed} == listed
    counted = {name.partition("{")[0] for name in Counters().to_dict()}
    assert counted <= {name for name in scraped() if name in listed}


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_prometheus_own_tool_takes_the_metrics_and_the_rules(root: Path) -> None:
    with Reco.open(memory=":memory:") as reco, TestClient(create_app(ServeSettings(page=False), reco)) as client:
        client.get("/nowhere")
        shown = client.get("/metrics").text
    assert 'reco_http_refusals_total{code="not_found"} 1.0' in shown
    for command, sent in (("check metrics", shown), (f"check rules {root / FOLDER / 'alerts.yaml'}", "")):
        done = subprocess.run(
            [str(PROMTOOL), *command.split()], input=sent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
