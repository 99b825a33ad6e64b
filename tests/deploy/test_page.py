"""docs/deployment.md: what it names exists, and its example values work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reco_plugin.config import Settings
from reco_plugin.serve.settings import ServeSettings


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "deployment.md").read_text("utf-8")


@pytest.fixture(scope="module")
def pages(root: Path) -> str:
    """All pages for users."""
    return "".join(path.read_text("utf-8") for path in sorted((root / "docs").glob("*.md")))


def test_files_exist(root: Path, pages: str) -> None:
    named = set(re.findall(r"(?<![\w/])((?:deploy|docs|tests|benchmarks)/[\w./-]*\w)", pages))
    assert len(named) >= 8
    missing = {name for name in named if not (root / name).exists()}
    assert not missing


def test_settings_exist(pages: str) -> None:
    named = {name.lower().partition("__")[0] for name in re.findall(r"\bRECO_([A-Z_]*[A-Z])\b", pages)}
    assert len(named) >= 8
    assert named <= {*Settings.model_fields, *(f"serve_{name}" for name in ServeSettings.model_fields)}


def test_the_example_values_do_what_they_say(page: str, render: Any) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    found = {(each["kind"], each["metadata"]["name"]): each.get("spec") for each in render(yaml.safe_load(example))}
    triton, qdrant = found["Deployment", "reco-triton"], found["StatefulSet", "reco-qdrant"]
    assert triton["replicas"] == 4
    assert triton["template"]["spec"]["initContainers"][0]["image"] == "registry.example.com/reco-models:0.1.0"
    assert triton["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert qdrant["template"]["spec"]["containers"][0]["resources"]["limits"] == {"memory": "48Gi"}
    assert {claim["spec"]["resources"]["requests"]["storage"] for claim in qdrant["volumeClaimTemplates"]} == {"500Gi"}
    assert ("PrometheusRule", "reco") in found


def test_what_the_cluster_must_have_is_what_the_defaults_ask_for(page: str, render: Any) -> None:
    made = {(each["kind"], each["metadata"]["name"]): each["spec"] for each in render({}) if "spec" in each}
    qdrant = made["StatefulSet", "reco-qdrant"]
    pods = {"reco": made["HorizontalPodAutoscaler", "reco"]["minReplicas"]}
    pods |= {"reco-triton": made["Deployment", "reco-triton"]["replicas"], "reco-qdrant": qdrant["replicas"]}
    cpus = memory = 0.0
    for (kind, name), spec in made.items():
        if kind in ("Deployment", "StatefulSet"):
            asked = spec["template"]["spec"]["containers"][0]["resources"]["requests"]
            cpus += pods[name] * int(asked["cpu"])
            memory += pods[name] * {"512Mi": 0.5, "4Gi": 4, "8Gi": 8}[asked["memory"]]
    claims = [each["spec"]["resources"]["requests"]["storage"] for each in qdrant["volumeClaimTemplates"]]
    assert (qdrant["replicas"], len(claims) * qdrant["replicas"], {*claims}) == (3, 6, {"50Gi"})
    says = (
        f"three nodes (`qdrant.replicaCount`), {cpus:.0f} CPUs and {memory:.0f} GiB for what is requested, six volumes"
    )
    assert f"{says} of 50 GiB" in " ".join(page.split())


def test_values_on_the_pages_exist(root: Path) -> None:
    """Those of `--set`, and those between backquotes with a dot in them."""
    schema = json.loads((root / "deploy" / "helm" / "values.schema.json").read_text("utf-8"))
    named: set[str] = set()
    for name in ("deployment.md", "kubernetes.md", "operations.md", "scale.md"):
        text = (root / "docs" / name).read_text("utf-8").partition("## Beside Qdrant's own chart")[0]
        named |= set(re.findall(r"--set(?:-string)? ([a-zA-Z.]+)=", text))
        named |= set(re.findall(rf"`((?:{'|'.join(schema['properties'])})\.[a-zA-Z.]+)(?:=[^`]*)?`", text))
    assert len(named) > 30
    assert {name for name in named if not _has(schema, name.split("."))} == set()


def _has(schema: dict[str, Any], path: list[str]) -> bool:
    """Whether a schema has a value, or lets any key be there."""
    if not path or not schema.get("properties"):
        return not path or schema.get("type") == "object"
    return path[0] in schema["properties"] and _has(schema["properties"][path[0]], path[1:])


def test_each_value_of_qdrants_chart_has_its_answer(root: Path) -> None:
    """Those of charts/qdrant/values.yaml of qdrant/qdrant-helm, and of its commit 03a7b29 besides what came later."""
    text = (root / "docs" / "kubernetes.md").read_text("utf-8").partition("## Beside Qdrant's own chart")[2]
    table = text.partition("## What sets")[0]
    theirs = """replicaCount image imagePullSecrets nameOverride fullnameOverride args env service ingress livenessProbe
    readinessProbe startupProbe additionalLabels podAnnotations podLabels resources containerSecurityContext
    podSecurityContext updateVolumeFsOwnership nodeSelector tolerations affinity topologySpreadConstraints persistence
    snapshotPersistence snapshotRestoration config sidecarContainers updateConfigurationOnChange metrics.serviceMonitor
    serviceAccount priorityClassName podDisruptionBudget apiKey readOnlyApiKey additionalVolumes additionalVolumeMounts
    lifecycle.preStop podManagementPolicy shareProcessNamespace"""
    left = set(
        re.findall(r"`([\w.]+)`", "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|")))
    )
    assert {name for name in theirs.split() if name not in left} == set()


def test_alerts_that_are_named_exist(root: Path, page: str) -> None:
    pages = page + (root / "docs" / "operations.md").read_text("utf-8")
    rules = yaml.safe_load((root / "deploy" / "helm" / "files" / "alerts.yaml").read_text("utf-8"))
    named = set(re.findall(r"`((?:Reco[A-Z]|Triton|Qdrant)\w+)`", pages))
    assert named and named <= {rule["alert"] for group in rules["groups"] for rule in group["rules"]}


def test_no_page_loses_values_by_an_upgrade(pages: str) -> None:
    """`--reuse-values` keeps a chart's old defaults, and what only a flag said is gone with the next file."""
    assert not re.search(r"--reuse-values|--set(-string)? \S*image", pages)


def test_the_names_on_the_pages_are_those_of_the_chart(pages: str, render: Any) -> None:
    source = {"enabled": True, "source": "a.csv"}
    made = render({"jobs": {"fill": source, "sync": source, "snapshots": {"enabled": True}}})
    kinds = {"service": "Service", "deployment": "Deployment", "statefulset": "StatefulSet", "cronjob": "CronJob"}
    told = re.findall(rf"\b({'|'.join(kinds)})/([a-z][\w-]*)", pages)
    assert len(told) > 8
    assert {(kinds[kind], name) for kind, name in told} <= {(each["kind"], each["metadata"]["name"]) for each in made}
    secrets = set(re.findall(r"(?:create|get) secret (?:generic )?([\w-]+)", pages))
    assert secrets == {"reco-keys", "reco-qdrant-keys"}
