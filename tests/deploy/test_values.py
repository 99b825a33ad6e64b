"""What a value does: what people set, one test a promise."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.chart import CHART, make_page, make_schema, make_table, read_values
from reco_plugin.config import SECRET

from .conftest import READER, SETS
from .objects import COMPONENT, Object, Pod, kinds_of, on_each_set, pods_of, servers_of, variables

Render = Callable[..., list[Object]]
DIGEST = f"sha256:{'1' * 64}"
EXPONENT = re.compile(r"\b\d(\.\d+)?e[+-]?\d+\b", re.IGNORECASE)


def _pods(made: list[Object]) -> dict[str, Pod]:
    return {pod.owner: pod for pod in pods_of(made)}


def _of(made: list[Object], kind: str, name: str) -> Object:
    [found] = [each for each in made if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


@on_each_set
def test_each_variable_stands_once(manifests: list[Object]) -> None:
    for pod in pods_of(manifests):
        variables(pod)


@pytest.mark.xdist_group("chart")
def test_nothing_is_read_otherwise_than_it_was_meant(each_text: dict[str, dict[str, str]]) -> None:
    """No number in exponent form, and no key twice in a map, which YAML would pass over."""

    class Once(READER):  # type: ignore[misc]
        pass

    def construct(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"twice: {keys}"
        return {loader.construct_object(key): loader.construct_object(value, deep=True) for key, value in node.value}

    Once.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, construct)
    for name, file, text in [(name, *each) for name, files in each_text.items() for each in files.items()]:
        if file.endswith(".yaml"):
            plain = re.sub(r"sha256:\w+|-[0-9a-f]{8}\b", "", text)
            assert not EXPONENT.search(plain), (name, EXPONENT.search(plain))
            list(yaml.load_all(text, Once))


def test_settings_arrive_as_they_were_meant(render: Render) -> None:
    values = variables(_pods(render(SETS["settings-of-all-kinds"]))["plugin"])
    assert values["RECO_SERVE_MAX_BODY_BYTES"] == "64000000"
    assert values["RECO_SERVE_CORS_ORIGINS"] == "https://a.example,https://b.example"
    assert values["RECO_SERVE_REFINED_SHARE"] == "0.01"
    assert values["RECO_SERVE_IMAGE_URLS"] == "true"
    assert json.loads(values["RECO_SERVE_ALIASES"]) == {"clip": "plain", "mine": "query"}
    assert values["RECO_MEMORY_COLLECTION"] == "007"
    assert values["RECO_SERVE_PAGE_INDEX"] == "no"


def test_a_setting_replaces_what_the_chart_sets(render: Render) -> None:
    values = variables(_pods(render(SETS["settings-that-the-chart-has"]))["plugin"])
    assert values["RECO_TRITON_URL"] == "grpc://triton.models:8001"
    assert values["RECO_MEMORY"] == "http://qdrant.data:6333?timeout_s=5"
    unset = variables(_pods(render({"settings": {"RECO_TRITON_URL": None}}))["plugin"])
    assert unset["RECO_TRITON_URL"] == "grpc://reco-triton:8001", "null is as if it were not named"


def test_extra_variables_win_over_settings(render: Render) -> None:
    pod = _pods(render(SETS["variables-from-secrets"]))["plugin"]
    values = variables(pod)
    assert values["RECO_MAX_PIXELS"] == "100000000"
    assert values["RECO_SERVE_API_KEYS"] == {"secretKeyRef": {"name": "mine", "key": "keys"}}
    assert pod.spec["containers"][0]["envFrom"] == [{"configMapRef": {"name": "settings"}}]


@on_each_set
def test_what_a_variable_names_stands_before_it(manifests: list[Object]) -> None:
    """Kubernetes leaves $(NAME) as it is where NAME comes later."""
    for pod in pods_of(manifests):
        before: set[str] = set()
        for name, value in variables(pod).items():
            named = set(re.findall(r"\$\((\w+)\)", value)) if isinstance(value, str) else set()
            assert named <= before, f"{name} of {pod.owner} names {named - before}"
            before.add(name)


def test_where_an_api_encodes_there_is_no_model(render: Render) -> None:
    pods = _pods(render(SETS["encoder-is-an-api"]))
    for pod in (pods["plugin"], pods["job"]):
        assert "initContainers" not in pod.spec
        assert "models" not in {volume["name"] for volume in pod.spec["volumes"]}
        assert not {"RECO_MODEL", "RECO_TRITON_URL"} & variables(pod).keys(), "the plugin takes one of them, not both"
    with pytest.raises(
        Exception, match=re.escape("settings.RECO_ENCODER: an API encodes, and Triton would stand idle")
    ):
        render({"settings": {"RECO_ENCODER": "https://api.jina.ai/v1?model=jina-clip-v2"}})


@pytest.mark.parametrize(
    "name", sorted(f"RECO_{'SERVE_' * (each in ('api_keys', 'admin_key'))}{each.upper()}" for each in SECRET)
)
def test_a_key_cannot_stand_in_values(render: Render, name: str) -> None:
    with pytest.raises(Exception, match=f"settings.{name}: a key stands in a secret") as refused:
        render({"settings": {name: "of-nobody"}})
    assert "of-nobody" not in str(refused.value).replace(repr({name: "of-nobody"}), "")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"qdrant": {"enabled": False}}, "memory.url: name your Qdrant server, or set qdrant.enabled"),
        (
            {"qdrant": {"enabled": False}, "memory": {"url": "q:6333"}},
            'memory.url: "q:6333" names no way: write http://',
        ),
        ({"ingress": {"enabled": True}}, "ingress.hosts: name the host that callers use"),
        ({"ingress": {"enabled": True, "hosts": [{"path": "/"}]}}, "ingress.hosts: each needs `host`"),
        ({"autoscaling": {"keda": {"enabled": True}}}, "autoscaling.keda.serverAddress: name your Prometheus"),
        ({"jobs": {"fill": {"enabled": True}}}, "jobs.fill.source: name the source"),
        ({"jobs": {"sync": {"enabled": True}}}, "jobs.sync.source: name the source"),
        (
            {"jobs": {"fill": {"enabled": True, "source": "s3://shop/a.csv", "existingClaim": "a"}}},
            "jobs.fill: the source is in a bucket, and existingClaim is another place",
        ),
        (
            {"jobs": {"sync": {"enabled": True, "source": "gs://shop/?id=sku"}}},
            'jobs.sync.source: "gs://shop/?id=sku" names a whole bucket',
        ),
        (
            {
                "jobs": {"snapshots": {"enabled": True}},
                "qdrant": {"enabled": False},
                "memory": {"url": "http://a:6333"},
            },
            "jobs.snapshots: they are of the chart's Qdrant",
        ),
    ],
)
def test_what_is_missing_is_named(render: Render, values: Object, named: str) -> None:
    with pytest.raises(Exception, match=re.escape(named)):
        render(values)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"tritn": {"gpu": True}}, "'tritn'.*'triton'"),
        ({"triton": {"gpus": True}}, "/triton.*'gpus'.*'gpu'"),
        ({"triton": {"gpu": "yes"}}, "/triton/gpu': got string, want boolean"),
        ({"image": "reco-plugin:1"}, "/image': got string, want object"),
        ({"image": {"tag": 1.2}}, "/image/tag': got number, want string"),
        ({"image": {"digest": "1234"}}, "/image/digest"),
        ({"resources": {"request": {}}}, "/resources.*'requests'"),
        ({"qdrant": {"persistence": {"size": "50 GB"}}}, "/qdrant/persistence/size"),
        ({"nodeSelector": {"gpu": True}}, "/nodeSelector/gpu': got boolean, want string"),
        ({"tolerations": {"key": "gpu"}}, "/tolerations': got object, want array"),
        ({"settings": {"k": 5}}, "'k'"),
        ({"replicaCount": -1}, "/replicaCount"),
        ({"qdrant": None}, "missing property 'qdrant'"),
        ({"models": {"image": None}}, "missing property 'image'"),
        ({"extraEnv": [{"value": "x"}]}, "/extraEnv/0': missing property 'name'"),
        ({"jobs": {"snapshots": {"keep": "three"}}}, "/jobs/snapshots/keep': got string, want integer"),
    ],
)
def test_a_wrong_word_is_refused_with_the_right_one(render: Render, values: Object, named: str) -> None:
    with pytest.raises(Exception, match=re.compile(named, re.DOTALL)):
        render(values)


def test_the_charts_page_and_schema_are_those_of_its_values() -> None:
    values = read_values((CHART / "values.yaml").read_text("utf-8"))
    again = "run: python -m benchmarks.chart"
    assert (CHART / "README.md").read_text("utf-8") == make_page(values), again
    assert json.loads((CHART / "values.schema.json").read_text("utf-8")) == make_schema(values), again
    assert {value.path for value in values} >= {"image", "triton.gpu", "qdrant.persistence.size", "jobs.fill.source"}


def test_the_table_shows_what_each_set_makes(root: Path, render: Render) -> None:
    page = (root / "docs" / "kubernetes.md").read_text("utf-8")
    assert len(SETS) >= 40
    assert make_table(SETS) in page, "run: python -m benchmarks.chart"


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"b of values\.yaml has no comment"):
        read_values("# -- Something\na: 1\nb: 2\n")
    with pytest.raises(ValueError, match=r"a of values\.yaml has the type 'nmber'"):
        read_values("# -- (nmber) Something\na: 1\n")


def test_each_value_is_used() -> None:
    """A value that no template reads would be set in vain."""
    templates = "".join(path.read_text("utf-8") for path in sorted((CHART / "templates").rglob("*.*")))
    values = read_values((CHART / "values.yaml").read_text("utf-8"))
    names = {value.path.rpartition(".")[2] for value in values}
    assert {name for name in names if not re.search(rf"\.{name}\b|\"{name}\"", templates)} == set()


@pytest.mark.parametrize("part", ["plugin", "triton", "qdrant", "job"])
def test_each_part_takes_what_people_set_everywhere(render: Render, part: str) -> None:
    options: Object = {
        "nodeSelector": {"pool": "a"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "runtimeClassName": "nvidia",
        "priorityClassName": "high",
        "schedulerName": "mine",
        "podSecurityContext": {"runAsUser": 1000660000},
    }
    labels = {"podLabels": {"team": "search"}, "podAnnotations": {"example.com/a": "b"}}
    extra = {
        "extraEnv": [{"name": "A", "value": "1"}],
        "extraEnvFrom": [{"secretRef": {"name": "s"}}],
        "extraVolumes": [{"name": "v", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
        "initContainers": [{"name": "i", "image": "i:1.0"}],
    }
    given = options | labels | extra
    fill = {"fill": {"enabled": True, "source": "/data/a.csv"}}
    values = {"plugin": given, "triton": {"triton": given}, "qdrant": {"qdrant": given}, "job": {"jobs": given | fill}}
    made = _pods(render(values[part] | {"commonLabels": {"all": "of-them"}}))
    pod = made[part]
    for name, value in options.items():
        found = pod.spec["securityContext" if name == "podSecurityContext" else name]
        assert found == value if name != "podSecurityContext" else found["runAsUser"] == 1000660000, name
    assert pod.labels["team"] == "search" and pod.labels["all"] == "of-them"
    container = pod.spec["containers"][0]
    assert {"name": "A", "value": "1"} in container["env"]
    assert container["envFrom"] == extra["extraEnvFrom"]
    assert pod.spec["volumes"][-1] == extra["extraVolumes"][0]
    assert container["volumeMounts"][-1] == extra["extraVolumeMounts"][0]
    assert pod.spec["initContainers"][-1] == extra["initContainers"][0]
    others = {
        each for name, each in made.items() if name not in (part, "test") for each in [json.dumps(made[name].spec)]
    }
    assert not [each for each in others if '"nvidia"' in each], "the others keep theirs"


def test_labels_of_the_chart_cannot_be_lost(render: Render) -> None:
    """A pod that a user's label took away would not be found by its Service."""
    made = render({"commonLabels": {COMPONENT: "x"}, "podLabels": {"app.kubernetes.io/instance": "y"}})
    pod = _pods(made)["plugin"]
    assert pod.labels["app.kubernetes.io/instance"] == "reco"
    for each in made:
        assert {"helm.sh/chart", "app.kubernetes.io/managed-by"} <= each["metadata"]["labels"].keys(), each["kind"]


@on_each_set
def test_another_version_of_the_chart_starts_nothing_again(manifests: list[Object]) -> None:
    for pod in pods_of(manifests):
        assert pod.owner == "test" or not {"helm.sh/chart", "app.kubernetes.io/version"} & pod.labels.keys(), pod.owner


@pytest.mark.parametrize(("first", "second"), [(("reco", "reco"), ("blue", "reco")), (("reco", "a"), ("reco", "b"))])
def test_two_releases_stand_side_by_side(render: Render, first: tuple[str, str], second: tuple[str, str]) -> None:
    """In one namespace and in two: nothing has one name, and neither finds the pods of the other."""
    values = {"metrics": {"enabled": True}, "jobs": {"snapshots": {"enabled": True}}, "autoscaling": {"enabled": True}}
    one, two = (render(values, *where) for where in (first, second))
    named = [
        {(each["kind"], each["metadata"]["namespace"], each["metadata"]["name"]) for each in made}
        for made in (one, two)
    ]
    assert len(named[0]) == len(one) and not named[0] & named[1]
    if first[1] == second[1]:
        for service in kinds_of(one, "Service", "PodDisruptionBudget", "NetworkPolicy"):
            spec = service["spec"].get("selector") or service["spec"]["podSelector"]
            selector = spec.get("matchLabels", spec)
            assert not [pod for pod in pods_of(two) if selector.items() <= pod.labels.items()], service["metadata"]
        policy = _of(one, "NetworkPolicy", "reco-qdrant")["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
        assert not [pod for pod in pods_of(two) if policy.items() <= pod.labels.items()], "clients of the other memory"


@pytest.mark.parametrize(
    ("values", "release", "name"),
    [
        ({}, "reco", "reco"),
        ({}, "reco-blue", "reco-blue"),
        ({}, "blue", "blue-reco"),
        ({"nameOverride": "clip"}, "blue", "blue-clip"),
        ({"fullnameOverride": "search"}, "blue", "search"),
        ({}, "b" * 53, "b" * 40),
    ],
)
def test_names_begin_with_the_releases(render: Render, values: Object, release: str, name: str) -> None:
    made = render(values | {"jobs": {"calibrate": {"enabled": True, "schedule": "@daily"}}}, release)
    names = {each["metadata"]["name"] for each in made}
    assert name in names
    assert all((each.startswith(name) and len(each) <= 52) or len(each) <= 63 for each in names)
    assert all(len(each["metadata"]["name"]) <= 52 for each in kinds_of(made, "CronJob", "StatefulSet"))


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, "reco-plugin:0.1.0"),
        ({"triton": {"enabled": False}}, "reco-plugin:0.1.0-cpu"),
        ({"triton": {"enabled": False}, "image": {"tag": "7"}}, "reco-plugin:7"),
        (
            {"image": {"repository": "r.example.com/a", "digest": f"sha256:{'1' * 64}"}},
            f"r.example.com/a@sha256:{'1' * 64}",
        ),
        ({"global": {"imageRegistry": "r.example.com"}}, "r.example.com/reco-plugin:0.1.0"),
    ],
)
def test_an_image_is_what_was_named(render: Render, values: Object, image: str) -> None:
    assert _pods(render(values))["plugin"].spec["containers"][0]["image"] == image


def test_an_image_without_a_runtime_says_so_before_it_starts(render: Render) -> None:
    """It would start, and never become ready."""
    pod = _pods(render({"triton": {"enabled": False}}))["plugin"]
    [check] = [each for each in pod.spec["initContainers"] if each["name"] == "runtime"]
    assert check["image"] == pod.spec["containers"][0]["image"]
    exec(compile(check["args"][0], "runtime", "exec"), {})  # here is a runtime
    without = check["args"][0].replace("onnxruntime", "onnx_absent").replace("openvino", "also_absent")
    with pytest.raises(SystemExit, match="this image cannot run models"):
        exec(compile(without, "runtime", "exec"), {})
    for values in ({}, {"triton": {"enabled": False}, "settings": {"RECO_TRITON_URL": "grpc://t:8001"}}):
        names = [each["name"] for each in _pods(render(values))["plugin"].spec["initContainers"]]
        assert names == ["models"]


@pytest.mark.parametrize("values", [{"triton": {"gpu": True}}, SETS["gpu"]])
def test_a_gpu_brings_its_memory(render: Render, values: Object) -> None:
    """Also without values-gpu.yaml."""
    pod = _pods(render(values))["triton"]
    assert pod.spec["containers"][0]["resources"] == {
        "requests": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "16Gi", "nvidia.com/gpu": "1"},
    }
    two = {"limits": {"nvidia.com/gpu": "2"}, "requests": {"nvidia.com/gpu": "2"}}
    mine = _pods(render({"triton": {"gpu": True, "resources": two}}))["triton"].spec["containers"][0]["resources"]
    assert mine == two


@pytest.mark.parametrize(
    ("values", "part", "seconds"),
    [
        ({}, "reco", 720),
        ({}, "reco-triton", 1200),
        ({"triton": {"gpu": True}}, "reco-triton", 2400),
        ({"startupProbe": {"failureThreshold": 600}}, "reco", 1800),
        ({"progressDeadlineSeconds": 99}, "reco", 99),
    ],
)
def test_a_rollout_waits_for_the_slowest_start(render: Render, values: Object, part: str, seconds: int) -> None:
    deployment = _of(render(values), "Deployment", part)["spec"]
    assert deployment["progressDeadlineSeconds"] == seconds
    probe = deployment["template"]["spec"]["containers"][0]["startupProbe"]
    if "progressDeadlineSeconds" not in values:
        assert probe["periodSeconds"] * probe["failureThreshold"] < seconds


@pytest.mark.parametrize(
    ("values", "part", "seconds"),
    [
        ({}, "plugin", 45),
        ({"settings": {"RECO_SERVE_SHUTDOWN_S": 120}, "preStopSeconds": 15}, "plugin", 155),
        ({"terminationGracePeriodSeconds": 7}, "plugin", 7),
        ({}, "triton", 45),
        ({}, "qdrant", 60),
        ({"qdrant": {"terminationGracePeriodSeconds": 300}}, "qdrant", 300),
    ],
)
def test_a_pod_may_drain(render: Render, values: Object, part: str, seconds: int) -> None:
    assert _pods(render(values))[part].spec["terminationGracePeriodSeconds"] == seconds


def test_an_ingress_needs_keys_and_shows_neither_metrics_nor_the_memory(render: Render) -> None:
    made = render(SETS["ingress"])
    values = variables(_pods(made)["plugin"])
    assert values["CALLER_KEYS"] == {"secretKeyRef": {"name": "reco-keys", "key": "api-keys"}}, "not optional"
    assert values["RECO_SERVE_METRICS_KEY"] == "true"
    [ingress] = kinds_of(made, "Ingress")
    [rule] = ingress["spec"]["rules"]
    paths = [each["path"] for each in rule["http"]["paths"]]
    assert len(paths) > 10
    hidden = ["/metrics", "/v1/memory", "/v1/memory/pairs", "/plain/v1/memory", "/refined/metrics", "/docs", "/"]
    assert not [path for path in paths for each in hidden if f"{each}/".startswith(f"{path.rstrip('/')}/")]
    assert rule["host"] == "reco.example.com" and ingress["spec"]["tls"] == SETS["ingress"]["ingress"]["tls"]
    assert ingress["spec"]["ingressClassName"] == "nginx"
    for asked, optional in (({}, True), ({"auth": {"required": True}}, False)):
        keys = variables(_pods(render(asked))["plugin"])["RECO_SERVE_API_KEYS"]["secretKeyRef"]
        assert keys == {"name": "reco-keys", "key": "api-keys", "optional": optional}


@pytest.mark.parametrize("name", ["ingress", "load-balancer", "node-port"])
def test_nobody_is_published_without_keys(render: Render, name: str) -> None:
    values = variables(_pods(render(SETS[name]))["plugin"])
    assert values["CALLER_KEYS"] == {"secretKeyRef": {"name": "reco-keys", "key": "api-keys"}}
    assert values["RECO_SERVE_METRICS_KEY"] == "true"


def test_all_that_callers_ask_is_published_and_nothing_else(root: Path) -> None:
    """A path with a slip in it, or a route that came later, would answer 404 to everybody from outside."""
    routes = json.loads((root / "docs" / "openapi.json").read_text("utf-8"))["paths"]
    undocumented = {"/embeddings", "/openai", "/multimodalembeddings", "/pipeline/feature-extraction"}
    known = {re.sub(r"/\{.*", "", path) for path in routes} | undocumented
    paths = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["ingress"]["paths"]
    assert len(paths) == len(set(paths))
    kept_back = {path for path in known if path.startswith(("/v1/memory", "/metrics"))}
    assert {path for path in paths if not path.startswith(("/plain/", "/refined/"))} == known - kept_back
    for prefix in ("/plain", "/refined"):  # which may stand before any path of the service
        behind = {path.removeprefix(prefix) for path in paths if path.startswith(f"{prefix}/")}
        assert {path for path in known if "embed" in path} <= behind <= known - kept_back


def test_a_host_of_any_kind_is_a_text(render: Render) -> None:
    [ingress] = kinds_of(render(SETS["ingress-of-all-hosts"]), "Ingress")
    [rule] = ingress["spec"]["rules"]
    assert rule["host"] == "*.example.com"
    assert [(each["path"], each["pathType"]) for each in rule["http"]["paths"]] == [
        ("/v1/refine", "Prefix"),
        ("/v1/scores", "Exact"),
    ]


@pytest.mark.parametrize(
    ("persistence", "snapshots", "classes"),
    [
        ({}, {}, (None, None)),
        ({"storageClassName": "fast"}, {}, ("fast", "fast")),
        ({"storageClassName": "fast"}, {"storageClassName": "slow"}, ("fast", "slow")),
        ({"storageClassName": ""}, {}, ("", "")),
        ({"storageClassName": "-"}, {}, ("", "")),
        ({"storageClassName": "no"}, {}, ("no", "no")),
    ],
)
def test_storage_is_of_the_class_that_was_named(
    render: Render, persistence: Object, snapshots: Object, classes: tuple[str | None, str | None]
) -> None:
    made = render({"qdrant": {"persistence": persistence, "snapshotPersistence": snapshots}})
    claims = _of(made, "StatefulSet", "reco-qdrant")["spec"]["volumeClaimTemplates"]
    assert tuple(claim["spec"].get("storageClassName") for claim in claims) == classes


def test_snapshots_have_a_size_of_their_own(render: Render) -> None:
    made = render(SETS["six-nodes-of-qdrant"])
    claims = _of(made, "StatefulSet", "reco-qdrant")["spec"]["volumeClaimTemplates"]
    assert [claim["spec"]["resources"]["requests"]["storage"] for claim in claims] == ["500Gi", "1Ti"]


def test_the_service_writes_only_where_it_is_wished(render: Render) -> None:
    for values, key in (({}, "read-only-api-key"), ({"memory": {"write": True}}, "api-key")):
        given = variables(_pods(render(values))["plugin"])["RECO_MEMORY_API_KEY"]["secretKeyRef"]
        assert given == {"name": "reco-qdrant-keys", "key": key, "optional": False}


def test_a_quota_on_cpus_can_be_met(render: Render) -> None:
    for pod in pods_of(render(SETS["quota-of-cpus"])):
        for container in pod.containers:
            assert "cpu" in container["resources"]["limits"], container["name"]


def test_the_small_one_is_small(render: Render) -> None:
    """One node: 2 CPUs and 4 GiB for everything, no Triton, no monitoring, no keys to make."""
    made = render(SETS["small"])
    servers = servers_of(made)
    assert {pod.owner for pod in servers} == {"plugin", "qdrant"}
    assert [each["spec"]["replicas"] for each in kinds_of(made, "Deployment", "StatefulSet")] == [1, 1]
    limits = [container["resources"] for pod in servers for container in pod.spec["containers"]]
    assert sum(int(each["limits"]["memory"].removesuffix("Gi")) for each in limits) <= 4
    assert sum(int(each["requests"]["cpu"].removesuffix("m")) for each in limits) <= 1500, "jobs, and the system's own"
    assert "secretKeyRef" not in json.dumps([pod.spec for pod in servers if pod.owner == "qdrant"])
    for pod in servers:
        for each in variables(pod).values():
            assert isinstance(each, str) or each.get("secretKeyRef", {"optional": True}).get("optional") is True
    assert not kinds_of(made, "HorizontalPodAutoscaler", "ServiceMonitor", "PodDisruptionBudget", "Ingress")


def test_pods_are_spread_over_zones_and_machines(render: Render) -> None:
    for pod in servers_of(render({})):
        spread = {each["topologyKey"]: each for each in pod.spec["topologySpreadConstraints"]}
        assert spread.keys() == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        for each in spread.values():
            assert each["labelSelector"]["matchLabels"].items() <= pod.labels.items()
            assert each["whenUnsatisfiable"] == "ScheduleAnyway"
    strict = _pods(render(SETS["spread-strictly"]))
    for part in ("plugin", "qdrant"):
        [each] = strict[part].spec["topologySpreadConstraints"]
        assert each["whenUnsatisfiable"] == "DoNotSchedule"
        assert each["labelSelector"]["matchLabels"].items() <= strict[part].labels.items()


def test_the_notes_tell_the_next_commands(written: Callable[..., dict[str, str]]) -> None:
    [notes] = [text for name, text in written({}, "blue", "shop").items() if name.endswith("NOTES.txt")]
    assert "kubectl -n shop rollout status statefulset/blue-reco-qdrant" in notes
    assert "helm upgrade blue CHART --namespace shop --reset-then-reuse-values" in notes
    assert "helm test blue --namespace shop --logs" in notes
    assert (
        "create secret generic blue-reco-qdrant-keys" in notes and "create secret generic blue-reco-keys" not in notes
    )
    [asked] = [text for name, text in written(SETS["ingress"]).items() if name.endswith("NOTES.txt")]
    assert "create secret generic reco-keys" in asked and "metrics-key=" in asked


def test_it_can_be_a_part_of_another_chart(tmp_path: Path) -> None:
    """With that chart's condition, registry and pull secrets."""
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")
    parent = tmp_path / "shop"
    shutil.copytree(CHART, parent / "charts" / "reco")
    dependency = {"name": "reco", "version": "0.1.0", "condition": "reco.enabled"}
    about = {"apiVersion": "v2", "name": "shop", "version": "1.0.0", "dependencies": [dependency]}
    (parent / "Chart.yaml").write_text(yaml.safe_dump(about), "utf-8")
    globals_ = {"imageRegistry": "r.example.com", "imagePullSecrets": [{"name": "pull"}]}
    for enabled in (True, False):
        values = {"global": globals_, "reco": {"enabled": enabled, "triton": {"enabled": False}}}
        with helm.Chart.load(parent) as chart:
            files = chart.render(values, name="shop", namespace="shop")
        texts = [text for name, text in files.items() if name.endswith(".yaml")]
        made = [each for text in texts for each in yaml.safe_load_all(text) if each]
        assert bool(kinds_of(made, "Deployment")) is enabled
        for pod in servers_of(made):
            assert pod.spec["imagePullSecrets"] == [{"name": "pull"}]
            assert pod.spec["containers"][0]["image"].startswith("r.example.com/")


def test_the_charts_page_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", (CHART / "README.md").read_text("utf-8"))
    assert links
    assert [link for link in links if not (CHART / link).exists()] == []


def test_a_value_that_is_left_empty_is_as_if_it_had_none(render: Render, root: Path) -> None:
    """`tolerations:` without anything is null, which takes the chart's default away."""
    values = read_values((CHART / "values.yaml").read_text("utf-8"))
    empty = [value.path for value in values if value.default in ({}, [], "", None)]
    empty += ["startupProbe", "triton.livenessProbe", "qdrant.readinessProbe", "resources", "jobs.fill.args"]
    assert len(empty) > 80
    job = {"enabled": True, "source": "a.csv"}
    jobs = {"fill": job, "sync": job, "calibrate": {"enabled": True}, "snapshots": {"enabled": True}}
    asked: Object = {"jobs": copy.deepcopy(jobs), "metrics": {"enabled": True}}
    for path in empty:
        *parents, last = path.split(".")
        place = asked
        for name in parents:
            place = place.setdefault(name, {})
        place.setdefault(last, None)  # but for the sources, without which there is no job
    assert {pod.owner for pod in pods_of(render(asked))} == {"plugin", "triton", "qdrant", "job", "test"}
