"""What the chart makes: its schemas, its pods, and that it says what docker-compose.yml says."""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from reco_plugin.config import load_settings
from reco_plugin.serve.settings import ServeSettings
from reco_plugin.train.recipe import ENGINE_CACHE

from .objects import Object, kinds_of, pods_of

KUBERNETES = "1.33"  # the oldest that we check with; the newest is the package's own
OPERATOR = "monitoring.coreos.com/v1"
PINNED = re.compile(r"^[\w./-]+:v?\d+\.\d+[\w.-]*$")


def validate(manifest: Object, version: str) -> None:
    """Refuse what the API server would refuse: wrong types, missing fields and unknown ones."""
    if manifest["apiVersion"] == OPERATOR:
        # here, since it takes three seconds, and one worker of two needs it
        from cloudcoil.models.prometheus_operator import v1 as operator

        model = getattr(operator, manifest["kind"]).model_validate(manifest)
        assert model.model_dump(by_alias=True, exclude_unset=True, mode="json") == manifest, "has an unknown field"
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", [KUBERNETES, kubernetes_validate.latest_version()])
def test_each_object_fits_its_schema(manifests: list[Object], version: str) -> None:
    assert len(manifests) > 5
    for manifest in manifests:
        validate(manifest, version)


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
        validate(broken, KUBERNETES)


def test_the_operators_schemas_refuse_what_is_wrong(render: Callable[..., list[Object]]) -> None:
    monitor, *_ = kinds_of(render({"monitoring": {"enabled": True}}), "ServiceMonitor")
    validate(monitor, KUBERNETES)
    for path, value in [("spec.endpoints.0.intervall", "15s"), ("spec.endpoints", "http"), ("spec.selectr", {})]:
        with pytest.raises((AssertionError, ValueError)):
            validate(_break(monitor, path, value), KUBERNETES)


def test_each_pod_is_locked_in(manifests: list[Object]) -> None:
    """Pod Security Standard `restricted`, and a little more."""
    for pod in pods_of(manifests):
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
        assert all(volume.keys() & {"emptyDir", "configMap", "secret"} for volume in pod.spec["volumes"])
        for container in pod.containers:
            name = f"{pod.owner}/{container['name']}"
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name
            assert PINNED.match(container["image"]), name
        for container in pod.spec["containers"]:
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(), pod.owner


def test_kubernetes_sets_no_variables_of_its_own(manifests: list[Object]) -> None:
    """A service `reco-x` would set RECO_X_PORT in each pod, and the plugin refuses settings that it does not know."""
    for pod in pods_of(manifests):
        assert pod.spec["enableServiceLinks"] is False, pod.owner


def test_mounts_have_volumes(manifests: list[Object]) -> None:
    claims = {
        each["metadata"]["name"]: {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
        for each in kinds_of(manifests, "StatefulSet", "Deployment")
    }
    for pod in pods_of(manifests):
        volumes = {volume["name"] for volume in pod.spec["volumes"]} | claims[pod.owner]
        mounted = {mount["name"] for container in pod.containers for mount in container["volumeMounts"]}
        assert mounted == volumes, pod.owner


def test_no_secret_is_in_the_manifests(manifests: list[Object]) -> None:
    assert not kinds_of(manifests, "Secret")
    variables = [
        each for pod in pods_of(manifests) for container in pod.containers for each in container.get("env", [])
    ]
    keys = [each for each in variables if each["name"].endswith("API_KEY")]
    assert keys
    assert all("secretKeyRef" in each["valueFrom"] for each in keys)


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
        ("qdrant-0", "--uri http://qdrant-0.qdrant-peers:6335"),
        ("qdrant-2", "--bootstrap http://qdrant-0.qdrant-peers:6335 --uri http://qdrant-2.qdrant-peers:6335"),
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
    pods = {pod.owner: pod.spec["containers"][0] for pod in pods_of(cluster)}
    pairs = [("qdrant", "qdrant"), ("triton-cpu", "triton"), ("triton-gpu", "triton"), ("reco", "plugin")]
    for service, owner in pairs:
        if owner in pods:
            assert services[service]["image"] == pods[owner]["image"]
    assert services["triton-cpu"]["command"] == pods["triton"]["args"]
    for each in pods.get("plugin", {}).get("env", []):
        if "value" in each:
            assert services["reco"]["environment"][each["name"]] == each["value"]


def test_engines_are_kept_where_the_models_say(cluster: list[Object]) -> None:
    [triton] = [pod for pod in pods_of(cluster) if pod.owner == "triton"]
    [container] = triton.spec["containers"]
    on_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
    assert (ENGINE_CACHE in {mount["mountPath"] for mount in container["volumeMounts"]}) is on_gpu


def test_the_plugins_settings_are_settings(manifests: list[Object]) -> None:
    for pod in [pod for pod in pods_of(manifests) if pod.owner == "plugin"]:
        [container] = pod.spec["containers"]
        values = {each["name"]: each.get("value", "from a secret") for each in container["env"]}
        service = {name for name in values if name.startswith("RECO_SERVE_")}
        assert {name.removeprefix("RECO_SERVE_").lower() for name in service} <= set(ServeSettings.model_fields)
        others = {name: value for name, value in values.items() if name not in service}
        load_settings(**{name.removeprefix("RECO_").lower(): value for name, value in others.items()})
        assert pod.labels.items() >= {"reco/memory": "client", "reco/triton": "client"}.items()


def test_helm_finds_nothing_wrong(root: Path) -> None:
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")
    found = helm.lint(root / "deploy" / "helm")
    assert found["total_charts_linted"] == 1
    assert not found["errors"]
    assert [each for each in found["messages"] if "icon is recommended" not in each["error"]] == []


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"qdrant": {"enabled": False}}, "memory.url: name your Qdrant server, or set qdrant.enabled"),
        ({"service": {"ingress": {"enabled": True}}}, "service.ingress.host: name the host that callers use"),
    ],
)
def test_what_is_missing_is_named(render: Callable[..., list[Object]], values: Object, named: str) -> None:
    with pytest.raises(Exception, match=named):
        render(values)


def test_values_arrive(render: Callable[..., list[Object]]) -> None:
    values = {
        "images": {"plugin": "registry.example.com/reco-plugin:1.2.3"},
        "service": {"settings": {"RECO_K": 5}, "maxReplicas": 4, "resources": {"requests": {"cpu": "2"}}},
        "triton": {"replicas": 5},
        "qdrant": {"storage": "500Gi", "storageClassName": "fast"},
        "memory": {"keys": "my-keys"},
        "imagePullSecrets": [{"name": "my-registry"}],
    }
    made = render(values)
    pods = {pod.owner: pod for pod in pods_of(made)}
    assert all(pod.spec["imagePullSecrets"] == [{"name": "my-registry"}] for pod in pods.values())
    [plugin] = pods["plugin"].spec["containers"]
    assert plugin["image"] == "registry.example.com/reco-plugin:1.2.3"
    assert {"name": "RECO_K", "value": "5"} in plugin["env"]
    assert plugin["resources"]["requests"]["cpu"] == "2"
    [scaler], [nodes] = kinds_of(made, "HorizontalPodAutoscaler"), kinds_of(made, "StatefulSet")
    assert scaler["spec"]["maxReplicas"] == 4
    assert {claim["spec"]["storageClassName"] for claim in nodes["spec"]["volumeClaimTemplates"]} == {"fast"}
    assert [
        each["spec"]["replicas"] for each in made if each["metadata"]["name"] == "triton" and "replicas" in each["spec"]
    ] == [5]
    assert "my-keys" in yaml.safe_dump(plugin["env"]) and "qdrant-keys" not in yaml.safe_dump(made)


def test_each_value_is_used(root: Path) -> None:
    """A value that no template reads would be set in vain."""
    folder = root / "deploy" / "helm"
    templates = "".join(path.read_text("utf-8") for path in sorted((folder / "templates").iterdir()))
    values = yaml.safe_load((folder / "values.yaml").read_text("utf-8"))
    paths = [f"{name}.{key}" for name, part in values.items() if isinstance(part, dict) for key in part]
    paths += [name for name, part in values.items() if not isinstance(part, dict)]
    assert [path for path in paths if f".Values.{path}" not in templates] == []
