"""What the chart makes: its schemas, its pods, and that it says what docker-compose.yml says."""

from __future__ import annotations

import copy
import importlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from benchmarks.chart import CHART
from reco_plugin.config import load_settings
from reco_plugin.serve.settings import load_serve_settings
from reco_plugin.train.recipe import ENGINE_CACHE

from .conftest import SETS
from .objects import Object, kinds_of, on_each_set, pods_of, servers_of, variables

KUBERNETES = ("1.34", "1.35", "1.36", kubernetes_validate.latest_version())
CUSTOM = {
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
}
"""Modules of the kinds that others bring."""
PINNED = re.compile(r"^[\w./:-]+(:v?\d+\.\d+[\w.-]*|@sha256:[0-9a-f]{64})$")


def validate(manifest: Object, version: str) -> None:
    """Refuse what the API server would refuse: wrong types, missing fields and unknown ones."""
    kinds = CUSTOM.get(manifest["apiVersion"])
    if kinds is None:
        kubernetes_validate.validate(manifest, version, strict=True)
    else:  # read here, since it takes three seconds, and one worker of two needs it
        model = getattr(importlib.import_module(kinds), manifest["kind"]).model_validate(manifest)
        assert model.model_dump(by_alias=True, exclude_unset=True, mode="json") == manifest, "has an unknown field"


@pytest.mark.xdist_group("chart")
@pytest.mark.parametrize("version", KUBERNETES)
def test_each_object_fits_its_schema(each_set: dict[str, list[Object]], version: str) -> None:
    """Most objects are the same in most sets: each is checked once."""
    seen = set()
    for name, manifests in each_set.items():
        assert len(manifests) > 5
        for manifest in manifests:
            if (written := json.dumps(manifest, sort_keys=True)) not in seen:
                seen.add(written)
                try:
                    validate(manifest, version)
                except Exception as error:
                    error.add_note(f"with the values of {name!r} in tests/deploy/sets.yaml")
                    raise


def _break(manifest: Object, path: str, value: Any) -> Object:
    broken = copy.deepcopy(manifest)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = broken
    for part in parents:
        place = place[part]
    place[last] = value
    return broken


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("StatefulSet", "spec.replica", 3),
        ("StatefulSet", "spec.replicas", "three"),
        ("StatefulSet", "spec.template.spec.containers.0.readinessProb", {}),
        ("Deployment", "spec.template.spec.containers.0.ports.0.containerPort", "http"),
        ("NetworkPolicy", "spec.podSelectors", {}),
        ("PodDisruptionBudget", "spec.maxUnavailabel", 1),
    ],
)
def test_the_schemas_refuse_what_is_wrong(cluster: list[Object], kind: str, path: str, value: Any) -> None:
    broken = _break(kinds_of(cluster, kind)[0], path, value)
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(broken, KUBERNETES[0])


def test_the_operators_schemas_refuse_what_is_wrong(render: Callable[..., list[Object]]) -> None:
    [scaled] = kinds_of(render(SETS["keda"]), "ScaledObject")
    with pytest.raises(AssertionError):
        validate(_break(scaled, "spec.fallbak", {}), KUBERNETES[0])
    monitor, *_ = kinds_of(render({"metrics": {"enabled": True}}), "ServiceMonitor")
    validate(monitor, KUBERNETES[0])
    for path, value in [("spec.endpoints.0.intervall", "15s"), ("spec.endpoints", "http"), ("spec.selectr", {})]:
        with pytest.raises((AssertionError, ValueError)):
            validate(_break(monitor, path, value), KUBERNETES[0])


@on_each_set
def test_each_pod_is_locked_in(manifests: list[Object]) -> None:
    """Pod Security Standard `restricted`, and a little more."""
    for pod in pods_of(manifests):
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context.get("runAsUser", 1) > 0  # OpenShift gives one
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
        kinds = {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}
        assert all(volume.keys() & kinds for volume in pod.spec.get("volumes", []))
        for container in pod.own:
            name = f"{pod.owner}/{container['name']}"
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name
            assert PINNED.match(container["image"]), name
            assert container["imagePullPolicy"] in ("IfNotPresent", "Always"), name
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError", name
    for pod in servers_of(manifests):
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= pod.spec["containers"][0].keys(), pod.owner


@on_each_set
def test_kubernetes_sets_no_variables_of_its_own(manifests: list[Object]) -> None:
    """A service `reco-x` would set RECO_X_PORT in each pod, and the plugin refuses settings that it does not know."""
    for pod in pods_of(manifests):
        assert pod.spec["enableServiceLinks"] is False, pod.owner


@on_each_set
def test_mounts_have_volumes(manifests: list[Object]) -> None:
    claims = {
        claim["metadata"]["name"]
        for each in kinds_of(manifests, "StatefulSet")
        for claim in each["spec"].get("volumeClaimTemplates", [])
    }
    for pod in pods_of(manifests):
        volumes = [volume["name"] for volume in pod.spec.get("volumes", [])]
        volumes += claims if pod.owner == "qdrant" else ()
        assert len(volumes) == len(set(volumes)), pod.owner
        mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])}
        assert mounted == set(volumes), pod.owner


@on_each_set
def test_no_secret_is_in_the_manifests(manifests: list[Object]) -> None:
    assert not kinds_of(manifests, "Secret")
    for pod in pods_of(manifests):
        for name, value in variables(pod).items():
            if re.search("KEY|PASSWORD", name) and value not in ("true", "$(CALLER_KEYS),$(METRICS_KEY)"):
                assert "secretKeyRef" in value, name


def test_the_cluster_can_lose_a_node(cluster: list[Object]) -> None:
    [nodes] = kinds_of(cluster, "StatefulSet")
    assert nodes["spec"]["replicas"] >= 3
    assert nodes["spec"]["podManagementPolicy"] == "Parallel"
    [apart] = nodes["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert apart["labelSelector"]["matchLabels"].items() <= nodes["spec"]["template"]["metadata"]["labels"].items()
    [peers] = [
        each for each in kinds_of(cluster, "Service") if each["metadata"]["name"] == nodes["spec"]["serviceName"]
    ]
    assert peers["spec"]["clusterIP"] == "None"
    assert peers["spec"]["publishNotReadyAddresses"] is True


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        ("reco-qdrant-0", "--uri http://reco-qdrant-0.reco-qdrant-headless:6335"),
        (
            "reco-qdrant-2",
            "--bootstrap http://reco-qdrant-0.reco-qdrant-headless:6335"
            " --uri http://reco-qdrant-2.reco-qdrant-headless:6335",
        ),
    ],
)
def test_nodes_start_with_the_first_one(cluster: list[Object], tmp_path: Path, pod: str, expected: str) -> None:
    [nodes] = kinds_of(cluster, "StatefulSet")
    [container] = nodes["spec"]["template"]["spec"]["containers"]
    entry = tmp_path / "entrypoint.sh"
    entry.write_text('#!/bin/sh\necho "$@"\n', "utf-8")
    entry.chmod(0o755)
    done = subprocess.run(
        [*container["command"], *container["args"]],
        cwd=tmp_path,
        env={"POD_NAME": pod, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert done.stdout.strip() == expected


def test_compose_and_kubernetes_run_the_same(cluster: list[Object], compose: Callable[..., Object]) -> None:
    services = compose()["services"]
    pods = {pod.owner: pod for pod in pods_of(cluster)}
    pairs = [("qdrant", "qdrant"), ("triton-cpu", "triton"), ("triton-gpu", "triton"), ("reco", "plugin")]
    for service, owner in pairs:
        assert services[service]["image"] == pods[owner].spec["containers"][0]["image"]
    assert services["triton-cpu"]["command"] == pods["triton"].spec["containers"][0]["args"]
    for name, value in variables(pods["plugin"]).items():
        if isinstance(value, str):
            assert services["reco"]["environment"][name] == value.replace("://reco-", "://")


def test_engines_are_kept_where_the_models_say(cluster: list[Object]) -> None:
    [triton] = [pod for pod in pods_of(cluster) if pod.owner == "triton"]
    [container] = triton.spec["containers"]
    on_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
    assert (ENGINE_CACHE in {mount["mountPath"] for mount in container["volumeMounts"]}) is on_gpu


@on_each_set
def test_the_plugins_settings_are_settings(manifests: list[Object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of a pod are read as the plugin reads them there."""
    for pod in [pod for pod in pods_of(manifests) if pod.owner in ("plugin", "job")]:
        with monkeypatch.context() as patch:
            for name, value in variables(pod).items():
                secret = "{}" if name == "RECO_TRITON_HEADERS" else "of-a-secret"
                patch.setenv(name, value if isinstance(value, str) else secret)
            assert load_settings().memory
            if pod.owner == "plugin":
                assert load_serve_settings().api_keys
            else:
                assert not [name for name in variables(pod) if name.startswith("RECO_SERVE_")]
        assert {"reco/memory", "reco/triton"} <= pod.labels.keys()


def test_helm_finds_nothing_wrong() -> None:
    """Its own reader of YAML is stricter than Python's."""
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")
    for name, values in SETS.items():
        found = helm.lint(CHART, values, strict=True, namespace="reco", kube_version="v1.36.0")
        assert found["total_charts_linted"] == 1
        assert not found["errors"], name
        assert [each for each in found["messages"] if "icon is recommended" not in each["error"]] == [], name
