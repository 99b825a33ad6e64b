"""Prometheus' own promtool runs the alerts on series: each fires on what it is for, and none where all is well."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from reco_plugin.serve.routing import PROBES

pytestmark = pytest.mark.slow

PROMTOOL = shutil.which("promtool")
MINUTES = 180
RATE = f"0+600x{MINUTES}"  # ten a second, read once a minute
SERVED, FAST = 'route="/v1/embeddings",status="200"', 'route="/v1/embeddings",le="0.1"'
JOBS = {"reco": "plugin", "nv": "triton", "qdrant": "qdrant"}
GOOD = {
    'up{job="plugin",instance="0"}': f"1x{MINUTES}",
    'up{job="plugin",instance="1"}': f"1x20 0x2 1x{MINUTES - 22}",  # an upgrade
    'reco_ready{instance="0"}': f"0x2 1x{MINUTES - 2}",
    "reco_memory_disk_free_bytes": f"9000000000x{MINUTES}",
    'kube_cronjob_status_last_schedule_time{namespace="reco",cronjob="sync"}': f"1000x60 4600x{MINUTES - 60}",
    'kube_cronjob_status_last_successful_time{namespace="reco",cronjob="sync"}': f"1200x90 4800x{MINUTES - 90}",
    'up{job="triton"}': f"1x{MINUTES}",
    'up{job="qdrant"}': f"1x{MINUTES}",
    'process_start_time_seconds{job="plugin"}': f"1000x{MINUTES}",
    f"reco_http_requests_total{{{SERVED}}}": RATE,
    'reco_http_requests_total{route="/v1/embeddings",status="400"}': f"0+60x{MINUTES}",  # callers' own mistakes
    **{
        f'reco_http_requests_total{{route="{path}",status="503"}}': f"0+12x{MINUTES}"  # a probe is no caller
        for path in (*PROBES, "/.well-known/ready")
        if path != "/metrics"
    },
    f"reco_http_request_duration_seconds_bucket{{{FAST}}}": RATE,
    'reco_http_request_duration_seconds_bucket{route="/v1/embeddings",le="5"}': RATE,
    'reco_http_request_duration_seconds_bucket{route="/v1/embeddings",le="+Inf"}': RATE,
    'reco_http_request_duration_seconds_bucket{route="/v1/memory/pairs",le="0.1"}': f"0x{MINUTES}",  # writes are slow
    'reco_http_request_duration_seconds_bucket{route="/v1/memory/pairs",le="10"}': RATE,
    'reco_http_request_duration_seconds_bucket{route="/v1/memory/pairs",le="+Inf"}': RATE,
    'reco_queue_seconds_bucket{le="0.1"}': RATE,
    'reco_queue_seconds_bucket{le="10"}': RATE,
    'reco_queue_seconds_bucket{le="+Inf"}': RATE,
    "reco_circuit_open": f"0x20 1x2 0x{MINUTES - 22}",  # a short outage
    'reco_refined_total{modality="text"}': RATE,
    'reco_left_plain_total{modality="text"}': f"0x{MINUTES}",
    'reco_degraded_total{reason="memory_error"}': f"0x20 3x{MINUTES - 20}",
    'nv_inference_queue_duration_us{model="clip_text"}': f"0+600000x{MINUTES}",
    'nv_inference_request_success{model="clip_text"}': RATE,
    'nv_inference_request_failure{model="clip_text",reason="CANCELED"}': RATE,
    "qdrant_cluster_peers_total": f"3x{MINUTES}",
    'qdrant_app_info{instance="0"}': f"1x{MINUTES}",
    'qdrant_app_info{instance="1"}': f"1x{MINUTES}",
    'qdrant_app_info{instance="2"}': f"1x{MINUTES}",
    'qdrant_collection_dead_replicas{id="reco"}': f"0x{MINUTES}",
    "qdrant_cluster_pending_operations_total": f"0 2 0 1 0x{MINUTES - 4}",
}
BAD = {  # alert -> the series that differ
    "RecoEncoderChanged": {'reco_degraded{part="encoder_changed"}': f"0x20 1x{MINUTES - 20}"},
    "RecoServiceDown": {f'up{{job="plugin",instance="{each}"}}': f"1x20 0x{MINUTES - 20}" for each in "01"},
    "RecoInstanceDown": {'up{job="plugin",instance="1"}': f"1x20 0x{MINUTES - 20}"},
    "RecoNotReady": {'reco_ready{instance="0"}': f"1x20 0x{MINUTES - 20}"},
    "RecoServiceRestarting": {'process_start_time_seconds{job="plugin"}': f"1000x{MINUTES - 30} 2000x8 3000x8 4000x30"},
    "RecoServiceErrors": {'reco_http_requests_total{route="/v1/embeddings",status="503"}': f"0+12x{MINUTES}"},
    "RecoServiceRefusing": {'reco_http_requests_total{route="/v1/embeddings",status="429"}': f"0+60x{MINUTES}"},
    "RecoServiceSlow": {f"reco_http_request_duration_seconds_bucket{{{FAST}}}": f"0+550x{MINUTES}"},
    "RecoServiceQueueLong": {'reco_queue_seconds_bucket{le="0.1"}': f"0+300x{MINUTES}"},
    "RecoCircuitOpen": {"reco_circuit_open": f"0x20 1x{MINUTES - 20}"},
    "RecoDegraded": {'reco_degraded_total{reason="memory_error"}': f"0+60x{MINUTES}"},
    "RecoNeverRefines": {
        'reco_refined_total{modality="text"}': f"0x{MINUTES}",
        'reco_left_plain_total{modality="text"}': RATE,
    },
    "RecoDiskAlmostFull": {"reco_memory_disk_free_bytes": f"9000000000x20 900000000x{MINUTES - 20}"},
    "RecoSyncOverdue": {
        'kube_cronjob_status_last_successful_time{namespace="reco",cronjob="sync"}': f"_x{MINUTES}",  # never
    },
    "RecoFailing": {'reco_failed_total{reason="memory_error"}': f"0+1x{MINUTES}"},
    "TritonDown": {'up{job="triton"}': f"0x{MINUTES}"},
    "TritonQueueLong": {'nv_inference_queue_duration_us{model="clip_text"}': f"0+60000000x{MINUTES}"},
    "TritonFailing": {'nv_inference_request_failure{model="clip_text",reason="BACKEND"}': f"0+1x{MINUTES}"},
    "QdrantDown": {'up{job="qdrant"}': f"0x{MINUTES}"},
    "QdrantNodeMissing": {'qdrant_app_info{instance="2"}': f"1x20 _x{MINUTES - 20}"},
    "QdrantDeadReplicas": {'qdrant_collection_dead_replicas{id="reco"}': f"0x20 1x{MINUTES - 20}"},
    "QdrantConsensusStuck": {"qdrant_cluster_pending_operations_total": f"0x20 1x{MINUTES - 20}"},
}


@pytest.fixture(scope="module")
def rules(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "deploy" / "helm" / "files" / "alerts.yaml").read_text("utf-8"))


def case(name: str, series: dict[str, str], fires: str | None) -> dict[str, Any]:
    """What is read for three hours: an alert fires in its end, or none did in all of it."""
    found = (
        f'count(ALERTS{{alertname="{fires}",alertstate="firing"}})'
        if fires
        else 'max_over_time(ALERTS{alertstate="firing"}[3h])'
    )
    samples = [{"labels": "{}", "value": 1}] if fires else []
    test = {"expr": found, "eval_time": f"{MINUTES - 1}m", "exp_samples": samples}
    read = [{"series": _of_job(series_name), "values": values} for series_name, values in series.items()]
    return {"name": name, "interval": "1m", "input_series": read, "promql_expr_test": [test]}


def _of_job(series: str) -> str:
    """With the label `job`, which Prometheus adds."""
    metric, _, labels = series.rstrip("}").partition("{")
    job = JOBS.get(metric.partition("_")[0])
    return series if job is None else f'{metric}{{job="{job}"{"," if labels else ""}{labels}}}'


def test_each_alert_has_a_case(rules: dict[str, Any]) -> None:
    assert {rule["alert"] for group in rules["groups"] for rule in group["rules"]} == BAD.keys()


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: promtool)")
def test_alerts_fire_on_what_they_are_for_and_on_nothing_else(rules: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    cases = [case("all is well", GOOD, None), *(case(alert, GOOD | series, alert) for alert, series in BAD.items())]
    outage = BAD["RecoDegraded"] | {'reco_refined_total{modality="text"}': f"0x{MINUTES}"}
    cases.append(case("never refined since it started", GOOD | outage, "RecoDegraded"))
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": cases}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    done = subprocess.run([str(PROMTOOL), "test", "rules", tmp_path / "tests.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
