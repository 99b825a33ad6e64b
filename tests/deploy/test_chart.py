"""deploy/helm: what each set of values renders to, that Kubernetes takes it, and what is refused.

Where the chart was changed on purpose, ``RENEW=1`` writes the files of golden/ anew; read their difference.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from live_service import serve_on_a_free_port

from reco_plugin import Reco
from reco_plugin.serve.service_settings import ServeSettings
from reco_plugin.settings import Settings, load_settings, secrets_of

helm_python = pytest.importorskip("helm_python", reason="helm-python-sdk comes with dev-all, where it has a wheel")
import kubernetes_validate  # noqa: E402

pytestmark = pytest.mark.fetched

ROOT = Path(__file__).resolve().parents[2]
CHART, GOLDEN = ROOT / "deploy" / "helm", Path(__file__).parent / "golden"
KUBERNETES = ("1.36", kubernetes_validate.latest_version())
URL = {"memory": {"url": "http://qdrant:6333"}}
SYNC = {"sync": {"enabled": True, "source": "postgresql://db/shop"}}
SECRETS = [
    f"{kind.model_config['env_prefix']}{name.upper()}"
    for kind in (Settings, ServeSettings)
    for name in sorted(secrets_of(kind))
]
Object = dict[str, Any]


class Loader(yaml.SafeLoader):
    """Reads ``!file`` as the values of that file."""


Loader.add_constructor("!file", lambda loader, node: yaml.safe_load((ROOT / node.value).read_text("utf-8")))
SETS: dict[str, Object] = yaml.load((Path(__file__).parent / "sets.yaml").read_text("utf-8"), Loader)


def render(values: Object, name: str = "reco", namespace: str = "reco") -> list[Object]:
    """All objects of the chart, by kind and name."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, name=name, namespace=namespace)
    texts = [text for file, text in files.items() if file.endswith(".yaml")]
    made = [each for text in texts for each in yaml.safe_load_all(text) if each]
    return sorted(made, key=lambda each: (each["kind"], each["metadata"]["name"]))


def one(objects: list[Object], kind: str, name: str = "reco") -> Object:
    """The object of this kind and name."""
    [found] = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Object]]:
    return {name: render(values) for name, values in SETS.items()}


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_values_renders_to_its_golden_file(rendered: dict[str, list[Object]], name: str) -> None:
    shown = [each for each in rendered[name] if each["kind"] not in ("ConfigMap", "PrometheusRule")]  # of other files
    path, text = GOLDEN / f"{name}.yaml", yaml.safe_dump_all(shown, sort_keys=True, width=120)
    if os.environ.get("RENEW"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_object(rendered: dict[str, list[Object]], version: str) -> None:
    objects = {json.dumps(each, sort_keys=True): each for made in rendered.values() for each in made}
    own = [each for each in objects.values() if "coreos.com" not in each["apiVersion"]]
    for each in own:
        kubernetes_validate.validate(each, version, strict=True)
    broken = json.loads(json.dumps(own[0])) | {"sepc": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


def test_every_variable_is_a_setting(rendered: dict[str, list[Object]]) -> None:
    for objects in rendered.values():
        [container] = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
        names = [each["name"] for each in container["env"]]
        assert len(names) == len(set(names))
        service = {name.removeprefix("RECO_SERVE_").lower() for name in names if name.startswith("RECO_SERVE_")}
        assert service <= set(ServeSettings.model_fields)
        load_settings(**{
            each["name"].removeprefix("RECO_").lower(): each.get("value", "secret")
            for each in container["env"]
            if each["name"].startswith("RECO_") and not each["name"].startswith("RECO_SERVE_")
        })  # fmt: skip


def test_keys_are_required_where_callers_come_from_outside(rendered: dict[str, list[Object]]) -> None:
    def pod(name: str) -> Object:
        return one(rendered[name], "Deployment")["spec"]["template"]["spec"]

    def variables(name: str) -> Object:
        return {each["name"]: each.get("value") for each in pod(name)["containers"][0]["env"]}

    assert "RECO_SERVE_KEYS_FILE" not in variables("defaults")
    for name, secret in {"keys-and-ingress": "reco-keys", "openshift": "reco-keys", "encoder-api": "shop-keys"}.items():
        path = variables(name)["RECO_SERVE_KEYS_FILE"]
        [volume] = [each["secret"] for each in pod(name)["volumes"] if each["name"] == "keys"]
        [mount] = [each for each in pod(name)["containers"][0]["volumeMounts"] if each["name"] == "keys"]
        assert (volume["secretName"], volume.get("optional", False)) == (secret, False)
        assert f"{mount['mountPath']}/{volume['items'][0]['path']}" == path and "subPath" not in mount  # it may change
    published = rendered["keys-and-ingress"]
    monitor = one(published, "ServiceMonitor")["spec"]["endpoints"][0]["authorization"]
    assert monitor["credentials"] == {"name": "reco-keys", "key": "metrics-key"}
    assert (variables("keys-and-ingress")["RECO_SERVE_MAX_BODY_BYTES"], variables("keys-and-ingress")["RECO_K"]) == (
        "64000000",
        "7",
    )
    paths = [each["path"] for each in one(published, "Ingress")["spec"]["rules"][0]["http"]["paths"]]
    assert not [path for path in paths if re.search("/v1/memory|/metrics|^/(v1|plain|refined)?/?$", path)]


def test_a_folder_is_open_in_one_pod_and_stays(rendered: dict[str, list[Object]]) -> None:
    made = rendered["small"]
    spec = one(made, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert not [each for each in made if each["kind"] in ("HorizontalPodAutoscaler", "PodDisruptionBudget")]
    claim = one(made, "PersistentVolumeClaim", "reco-memory")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    [container] = spec["template"]["spec"]["containers"]
    [memory] = [each["value"] for each in container["env"] if each["name"] == "RECO_MEMORY"]
    [mount] = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "memory"]
    assert memory.startswith(f"{mount}/")


def test_the_test_pod_and_the_jobs_get_through_the_policies(rendered: dict[str, list[Object]]) -> None:
    for name in ("defaults", "encoder-api", "small"):
        [rule, *_] = one(rendered[name], "NetworkPolicy")["spec"]["ingress"]
        labels = one(rendered[name], "Pod", "reco-test")["metadata"]["labels"]
        assert any(
            selector.get("matchLabels", {}).items() <= labels.items()
            for each in rule["from"]
            if (selector := each.get("podSelector"))
        ), name
        others = [each for each in rendered[name] if each["kind"] == "NetworkPolicy"]
        assert not any(each["spec"]["podSelector"]["matchLabels"].items() <= labels.items() for each in others), name
    [rule, *_] = one(rendered["jobs"], "NetworkPolicy", "reco-triton")["spec"]["ingress"]
    [caller] = rule["from"]
    [job] = [each for each in rendered["jobs"] if each["kind"] == "Job"]
    for workload in (job, one(rendered["jobs"], "Deployment")):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert caller["podSelector"]["matchLabels"].items() <= labels.items()
    egress = one(rendered["keys-and-ingress"], "NetworkPolicy")["spec"]["egress"]
    assert {"port": 7443} in [port for rule in egress for port in rule.get("ports", [])]


def test_the_test_pod_asks_the_service(rendered: dict[str, list[Object]], filled: Reco) -> None:
    """`helm test`, but for the cluster: its script, with its variables, against a service with keys."""
    key, text = "a key of the tests", "a small red circle"
    [container] = one(rendered["keys-and-ingress"], "Pod", "reco-test")["spec"]["containers"]
    assert {each["name"] for each in container["env"]} == {"SERVICE", "TEXT", "KEY"}
    command = [sys.executable, *container["command"][1:], *container["args"]]

    def run(**env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    with serve_on_a_free_port(filled, api_keys=[key]) as (url, _):
        assert run(SERVICE=url, KEY=key, TEXT="").returncode == 0
        done = run(SERVICE=url, KEY=key, TEXT=text)
        assert (done.returncode, "refined: true" in done.stdout) == (0, True), done.stderr
        assert run(SERVICE=url, KEY="another one", TEXT="").returncode == 1
    assert run(SERVICE=url, TEXT="").returncode == 1


def test_a_pod_has_time_to_drain_and_to_end_its_requests() -> None:
    settings = {"RECO_SERVE_DRAIN_S": 60.5, "RECO_SERVE_SHUTDOWN_S": 30}
    spec = one(render(URL | {"settings": settings, "preStopSeconds": 10}), "Deployment")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] >= 10 + sum(settings.values())


def test_another_source_is_another_job() -> None:
    def job(source: str) -> str:
        fill = {"enabled": True, "source": source}
        [made] = [each for each in render(URL | {"jobs": {"fill": fill}}) if each["kind"] == "Job"]
        return str(made["metadata"]["name"])

    assert job("/data/a.csv") == job("/data/a.csv") != job("/data/b.csv")


def test_two_releases_share_nothing() -> None:
    values = URL | {"metrics": {"enabled": True}, "jobs": {"sync": {"enabled": True, "source": "/data/a.csv"}}}
    one_release, other = (
        {(e["kind"], e["metadata"]["name"]) for e in render(values, name)} for name in ("reco", "blue")
    )
    assert one_release and not one_release & other
    made = render(values, "blue", "shop")
    rules = json.dumps(one(made, "PrometheusRule", "blue-reco"))
    assert 'job=\\"blue-reco\\",namespace=\\"shop\\"' in rules and 'job=\\"plugin\\"' not in rules
    assert f'cronjob=\\"{one(made, "CronJob", "blue-reco-sync")["metadata"]["name"]}\\",namespace=\\"shop\\"' in rules
    assert 'cronjob=\\"sync\\"' not in rules and "RecoSyncOverdue" not in json.dumps(
        render(URL | {"metrics": values["metrics"]})
    )


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"jobs": {"fill": {"enabled": True, "source": "/data/a.csv"}}}, "memory.url"),
        (URL | {"triton": {"gpus": True}}, "gpus"),
        *((URL | {"settings": {name: "secret"}}, f"{name}: a key belongs in a secret") for name in SECRETS),
        (URL | {"extraEnv": [{"name": "RECO_ENCODER_KEY", "value": "secret"}]}, "RECO_ENCODER_KEY"),
        (URL | {"jobs": SYNC | {"extraEnv": [{"name": "RECO_INDEX_PASSWORD", "value": "secret"}]}}, "extraEnv"),
        ({"memory": {"url": "http://user:secret@qdrant:6333"}}, "memory.url"),
        (URL | {"settings": {"RECO_MODEL": "https://secret@api.example"}, "triton": {"enabled": False}}, "RECO_MODEL"),
        (URL | {"settings": {"RECO_MODEL": "https://api.example"}}, "triton.enabled=false"),
        (URL | {"jobs": {"sync": {"enabled": True}}}, "jobs.sync.source"),
        (URL | {"jobs": {"fill": {"enabled": True, "source": "postgresql://a:b@db/shop"}}}, "jobs.extraEnv"),
    ],
)
def test_bad_values_are_refused_by_name(values: Object, named: str) -> None:
    with pytest.raises(helm_python.HelmError, match=re.escape(named)):
        render(values)


def test_the_schema_knows_exactly_the_values() -> None:
    def keys(values: Any, schema: Object) -> None:
        if "properties" in schema:
            assert values.keys() == schema["properties"].keys() - {"global"}
            for name, value in values.items():
                keys(value, schema["properties"][name])

    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    keys(yaml.safe_load((CHART / "values.yaml").read_text("utf-8")), schema)


def test_values_on_the_pages_are_taken() -> None:
    text = "".join((ROOT / "docs" / f"{page}.md").read_text("utf-8") for page in ("run", "scale"))
    for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL):
        if not block.startswith("# Prometheus"):
            assert render(URL | yaml.safe_load(block))
