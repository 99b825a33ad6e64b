"""The objects of the chart, and the pods that they make."""

from __future__ import annotations

from typing import Any, NamedTuple

Object = dict[str, Any]
COMPONENT = "app.kubernetes.io/component"


class Pod(NamedTuple):
    """A pod template, and which part of the chart it is."""

    owner: str
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def own(self) -> list[Object]:
        """Containers of the chart, without those that a user adds."""
        names = {"models", "runtime", "plugin", "triton", "qdrant", "refined", "fill", "sync", "calibrate", "snapshots"}
        return [each for each in self.containers if each["name"] in names]

    def ports(self) -> set[str]:
        return {port["name"] for container in self.containers for port in container.get("ports", [])}


def template_of(manifest: Object) -> Object | None:
    """The pod template of a workload, or a pod itself."""
    if manifest["kind"] == "Pod":
        return manifest
    spec = manifest.get("spec", {})
    return spec.get("template") or spec.get("jobTemplate", {}).get("spec", {}).get("template")


def pods_of(manifests: list[Object]) -> list[Pod]:
    """The pod templates of all workloads, and the pods of tests."""
    templates = [template for each in manifests if (template := template_of(each))]
    return [Pod(each["metadata"]["labels"][COMPONENT], each["metadata"]["labels"], each["spec"]) for each in templates]


def servers_of(manifests: list[Object]) -> list[Pod]:
    """Those that run all the time."""
    return [pod for pod in pods_of(manifests) if pod.owner in ("plugin", "triton", "qdrant")]


def kinds_of(manifests: list[Object], *kinds: str) -> list[Object]:
    """Those of some kinds."""
    return [each for each in manifests if each["kind"] in kinds]


def selected(pods: list[Pod], selector: dict[str, str]) -> list[Pod]:
    """Those whose labels match."""
    return [pod for pod in pods if selector.items() <= pod.labels.items()]


def variables(pod: Pod) -> dict[str, Any]:
    """Of its main container: values, or where they come from. Each name stands there once."""
    entries = pod.spec["containers"][0].get("env", [])
    names = [each["name"] for each in entries]
    assert len(names) == len(set(names)), f"twice in {pod.owner}: {names}"
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in entries}
