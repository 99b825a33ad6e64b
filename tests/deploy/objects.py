"""The objects of the chart, and the pods that they make."""

from __future__ import annotations

from typing import Any, NamedTuple

Object = dict[str, Any]


class Pod(NamedTuple):
    """A pod template, and who makes pods of it."""

    owner: str
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def ports(self) -> set[str]:
        return {port["name"] for container in self.containers for port in container.get("ports", [])}


def pods_of(manifests: list[Object]) -> list[Pod]:
    """The pod templates of all workloads."""
    templates = [
        (each["metadata"]["name"], each["spec"]["template"]) for each in manifests if "template" in each.get("spec", {})
    ]
    return [Pod(name, template["metadata"]["labels"], template["spec"]) for name, template in templates]


def kinds_of(manifests: list[Object], *kinds: str) -> list[Object]:
    """Those of some kinds."""
    return [each for each in manifests if each["kind"] in kinds]


def selected(pods: list[Pod], selector: dict[str, str]) -> list[Pod]:
    """Those whose labels match."""
    return [pod for pod in pods if selector.items() <= pod.labels.items()]
