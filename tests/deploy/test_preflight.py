"""What the chart sees of a cluster: what it lacks, and what an upgrade could not do or would lose."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest

from benchmarks import cluster
from benchmarks.chart import CHART

from .api import api_server
from .conftest import SETS
from .objects import Object

Look = Callable[..., dict[str, str]]


@pytest.fixture
def look() -> Look:
    """Render the chart beside these objects of a cluster."""
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")

    def render(values: Object, objects: list[Object]) -> dict[str, str]:
        with (
            api_server(objects) as url,
            helm.Chart.load(CHART) as chart,
            helm.Config(kube_apiserver=url, namespace="reco") as cluster,
        ):
            return cluster.render(chart, values, name="reco", namespace="reco")

    return render


def made(api: str, kind: str, name: str, *, namespace: str | None = None, **fields: Any) -> Object:
    """An object of the cluster."""
    place = {"namespace": namespace} if namespace else {}
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, **place}, **fields}


def node(name: str, cpu: str = "16", memory: str = "64Gi", **more: str) -> Object:
    return made("v1", "Node", name, spec={}, status={"allocatable": {"cpu": cpu, "memory": memory, **more}})


def secret(name: str, *keys: str) -> Object:
    return made("v1", "Secret", name, namespace="reco", data=dict.fromkeys(keys, "eA=="))


STORAGE = made("storage.k8s.io/v1", "StorageClass", "fast", provisioner="example.com/disk")
STORAGE["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
METRICS = made("apiregistration.k8s.io/v1", "APIService", "v1beta1.metrics.k8s.io")
KEYS = secret("reco-qdrant-keys", "api-key", "read-only-api-key")
ENOUGH = [*(node(f"n{number}") for number in range(3)), STORAGE, METRICS, KEYS]


def lacks(look: Look, values: Object, objects: list[Object]) -> list[str]:
    """What the check says."""
    with pytest.raises(Exception, match="preflight: the cluster lacks") as refused:
        look({"preflight": True} | values, objects)
    return re.findall(r"^\s*- ([\w-]+: .*)$", str(refused.value), flags=re.MULTILINE)


def test_a_cluster_that_has_all_lacks_nothing(look: Look) -> None:
    assert look({"preflight": True}, ENOUGH).keys() == look({}, ENOUGH).keys()


def test_the_cluster_that_is_made_here_lacks_metrics_server_only(look: Look) -> None:
    objects = cluster.make_objects()
    for each in objects:
        kubernetes_validate.validate(each, "1.36", strict=True)
    [lack] = lacks(look, {"triton": {"gpu": True, "replicaCount": 4}}, [*objects, KEYS])
    assert lack.startswith("metrics-server: ")


def test_production_values_name_all_they_lack_at_once(look: Look) -> None:
    asked = {
        "triton": {"gpu": True, "replicaCount": 4},
        "ingress": {"enabled": True, "className": "nginx", "hosts": [{"host": "a.example"}]},
        "metrics": {"enabled": True},
        "runtimeClassName": "nvidia",
        "qdrant": {"priorityClassName": "high"},
        "autoscaling": {"keda": {"enabled": True, "serverAddress": "http://p:9090"}},
    }
    found = lacks(look, asked, [node("n0", "3920m", "16331752Ki"), {**node("n1"), "spec": {"unschedulable": True}}])
    parts = {line.partition(":")[0] for line in found}
    assert parts == {"CPUs", "memory", "GPUs", "nodes", "storage", "metrics-server", "prometheus-operator", "KEDA"} | {
        "keys",
        "ingress",
        "runtime",
        "priority",
    }
    assert sum(line.startswith("keys: ") for line in found) == 4
    assert "CPUs: 24000m are requested, the nodes have 3920m" in found  # 2 x 1 + 4 x 4 + 3 x 2
    assert "memory: 58368 MiB are requested, the nodes have 15948 MiB" in found  # 2 x 0.5 + 4 x 8 + 3 x 8 GiB


@pytest.mark.parametrize(
    ("values", "without", "says"),
    [
        ({}, METRICS, "metrics-server: the autoscaler cannot see CPUs"),
        ({}, STORAGE, "storage: no class is the default one"),
        ({}, KEYS, "keys: the secret reco-qdrant-keys has no api-key"),
        ({}, ENOUGH[0], "nodes: qdrant.replicaCount is 3, each on a machine of its own, and there are 2"),
        ({"qdrant": {"persistence": {"storageClassName": "slow"}}}, None, 'storage: there is no class "slow"'),
        ({"triton": {"gpu": True}}, None, "GPUs: triton.replicaCount is 2, the nodes offer 0"),
        ({"auth": {"required": True}}, None, "keys: the secret reco-keys has no api-keys"),
    ],
)
def test_what_is_lacking_is_named(look: Look, values: Object, without: Object | None, says: str) -> None:
    found = lacks(look, values, [each for each in ENOUGH if each is not without])
    assert found[0].startswith(says)
    assert len({line.partition(":")[0] for line in found}) == 1


def test_what_is_not_asked_for_need_not_be_there(look: Look) -> None:
    """The small one runs on one node, without a metrics-server and without keys."""
    assert look({**SETS["small"], "preflight": True}, [node("kind", "2", "4Gi"), STORAGE])
    gpus = [node(f"g{number}", **{"nvidia.com/gpu": "1"}) for number in range(3)]
    assert look({"preflight": True, "triton": {"gpu": True}}, [*gpus, STORAGE, METRICS, KEYS])


def test_without_a_cluster_the_check_says_that_it_needs_one(render: Callable[..., list[Object]]) -> None:
    with pytest.raises(Exception, match="preflight: no node is seen"):
        render({"preflight": True})


def running(replicas: int = 3, size: str = "50Gi", snapshots: str = "50Gi") -> Object:
    claims = [
        {
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": each}},
                "volumeMode": "Filesystem",
            },
            "status": {"phase": "Pending"},
        }
        for name, each in (("storage", size), ("snapshots", snapshots))
    ]
    spec = {"replicas": replicas, "volumeClaimTemplates": claims}
    return made("apps/v1", "StatefulSet", "reco-qdrant", namespace="reco", spec=spec)


def test_nodes_are_not_taken_away_with_their_shards(look: Look) -> None:
    with pytest.raises(Exception, match=r"qdrant\.replicaCount: there are 6 nodes, and 3 would take the shards"):
        look({}, [running(6)])
    assert look({"qdrant": {"allowScaleDown": True}}, [running(6)])
    assert look({}, [running(3)])
    assert look({"qdrant": {"replicaCount": 6}}, [running(3)])


@pytest.mark.parametrize(
    ("values", "there", "says"),
    [
        ({"persistence": {"size": "100Gi"}}, running(), "storage has 50Gi instead of 100Gi"),
        ({}, running(snapshots="20Gi"), "snapshots has 20Gi instead of 50Gi"),
        ({"snapshotPersistence": {"enabled": False}}, running(), "the volume snapshots would go"),
        (
            {"persistence": {"storageClassName": "fast"}},
            running(),
            'storage has storageClassName null instead of "fast"',
        ),
        ({"persistence": {"storageClassName": ""}}, running(), 'storage has storageClassName null instead of ""'),
        (
            {"persistence": {"accessModes": ["ReadWriteOncePod"]}},
            running(),
            r'storage has accessModes \["ReadWriteOnce"\] instead of \["ReadWriteOncePod"\]',
        ),
        ({"persistence": {"annotations": {"a": "b"}}}, running(), 'storage has annotations {} instead of {"a":"b"}'),
    ],
)
def test_storage_that_cannot_change_is_refused_before_anything_is(
    look: Look, values: Object, there: Object, says: str
) -> None:
    with pytest.raises(Exception, match=says) as refused:
        look({"qdrant": values}, [there])
    assert "kubectl -n reco delete statefulset reco-qdrant --cascade=orphan" in str(refused.value)


@pytest.mark.parametrize(
    ("written", "there"),
    [("1024Gi", "1Ti"), ("0.5Ti", "512Gi"), ("1e12", "1T"), ("50000M", "50G"), (53687091200, "53687091200")],
)
def test_a_size_is_the_same_however_it_is_written(look: Look, written: str | int, there: str) -> None:
    """The API server writes quantities its own way."""
    assert look({"qdrant": {"persistence": {"size": written}}}, [running(size=there, snapshots=there)])


def test_keys_that_are_there_are_not_asked_for(look: Look) -> None:
    def notes(objects: list[Object]) -> str:
        return next(text for name, text in look({}, objects).items() if name.endswith("NOTES.txt"))

    assert "create secret" in notes([])
    assert "create secret" not in notes([KEYS])
