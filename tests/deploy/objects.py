"""The objects of the chart, and the pods that they make."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

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
        names = {
            "models",
            "runtime",
            "plugin",
            "triton",
            "qdrant",
            "refined",
            "fetch",
            "fill",
            "sync",
            "calibrate",
            "snapshots",
        }
        return [each for each in self.containers if each["name"] in names]

    def ports(self) -> set[str]:
        return {port["name"] for container in self.containers for port in container.get("ports", [])}


def on_each_set(check: Callable[..., None]) -> Callable[..., None]:
    """Make one test of a check of manifests: with those of each set of values in turn; a failure names the set."""

    @functools.wraps(check)
    def test(each_set: dict[str, list[Object]], **others: Any) -> None:
        for name, manifests in each_set.items():
            try:
                check(manifests, **others)
            except Exception as error:
                error.add_note(f"with the values of {name!r} in tests/deploy/sets.yaml")
                raise

    asked = [each for name, each in inspect.signature(check).parameters.items() if name != "manifests"]
    place = inspect.Parameter("each_set", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    test.__signature__ = inspect.Signature([place, *asked])  # type: ignore[attr-defined]  # which pytest reads
    return pytest.mark.xdist_group("chart")(test)  # one worker renders for all


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
