"""Dashboard and alerts: every query parses, and asks for metrics and labels that somebody exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import pytest
import yaml
from prometheus_client import Histogram
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
# reco_plugin/serve/metrics.py; Prometheus' own, its client's.
SERVICE = {
    "reco_http_requests_total": frozenset({"route", "status"}),
    "reco_http_refusals_total": frozenset({"code"}),
    "reco_http_request_duration_seconds_bucket": frozenset({"route", "le"}),
    "reco_queue_seconds_bucket": frozenset({"le"}),
    "reco_queue_inputs": frozenset(),
    "reco_queue_limit_inputs": frozenset(),
    "reco_writes_pending": frozenset(),
    "reco_pending_bytes": frozenset(),
    "reco_connections": frozenset(),
    "reco_ready": frozenset(),
    "reco_degraded": frozenset({"part"}),
    "reco_circuit_open": frozenset(),
    "reco_memory_pairs": frozenset(),
    "reco_memory_disk_free_bytes": frozenset(),
    "reco_learning": frozenset(),
    "process_start_time_seconds": frozenset(),
    "process_resident_memory_bytes": frozenset(),
}
# kubernetes/kube-state-metrics, docs/metrics/workload/cronjob-metrics.md
CRONJOB = frozenset({"namespace", "cronjob"})
OTHERS = {
    "up": frozenset(),
    "kube_cronjob_status_last_schedule_time": CRONJOB,
    "kube_cronjob_status_last_successful_time": CRONJOB,
}
LABELS = {
    "encode_s": {"modality"},
    "refined": {"modality"},
    "left_plain": {"modality"},
    "degraded": {"reason"},
    "failed": {"reason"},
}


def plugin_metrics() -> dict[str, frozenset[str]]:
    """The plugin's counters under the names of docs/run.md: reco_, and the unit written out."""
    known: dict[str, frozenset[str]] = {}
    counted = vars(Counters())
    del counted["registry"]
    for attribute, value in counted.items():
        labels = frozenset(LABELS.get(attribute, ()))
        name = "reco_" + (attribute.removesuffix("_s") + "_seconds" if attribute.endswith("_s") else attribute)
        if isinstance(value, Histogram):
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
    assert listed == plugin_metrics()


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_prometheus_own_tool_takes_the_metrics_and_the_rules(root: Path, tmp_path: Path) -> None:
    with Reco.open(memory=":memory:") as reco, TestClient(create_app(ServeSettings(page=False), reco)) as client:
        client.get("/nowhere")
        shown = client.get("/metrics").text
    assert 'reco_http_refusals_total{code="not_found"} 1.0' in shown
    for command, sent in (("check metrics", shown), (f"check rules {root / FOLDER / 'alerts.yaml'}", "")):
        done = subprocess.run(
            [str(PROMTOOL), *command.split()], input=sent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    down = {"interval": "1m", "input_series": [], "alert_rule_test": []}
    down["alert_rule_test"] = [{"eval_time": "5m", "alertname": "RecoServiceDown", "exp_alerts": [{}]}]
    (tmp_path / "rules.yaml").write_text((root / FOLDER / "alerts.yaml").read_text("utf-8"))
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [down]}))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "RecoServiceDown" in done.stdout + done.stderr  # it fires; its words are not repeated here
