"""What the chart makes: who finds whom, and who is let through."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .objects import Object, Pod, kinds_of, on_each_set, pods_of, selected, servers_of, variables


@on_each_set
def test_services_and_budgets_find_pods(manifests: list[Object]) -> None:
    pods = pods_of(manifests)
    for service in kinds_of(manifests, "Service"):
        [pod] = selected(pods, service["spec"]["selector"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= pod.ports(), service["metadata"]["name"]
    for budget in kinds_of(manifests, "PodDisruptionBudget"):
        assert len(selected(pods, budget["spec"]["selector"]["matchLabels"])) == 1
    for scaler in kinds_of(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        [target] = [
            each
            for each in manifests
            if each["metadata"]["name"] == scaler["spec"]["scaleTargetRef"]["name"] and each["kind"] == "Deployment"
        ]
        assert "replicas" not in target["spec"], "applying it would undo what the autoscaler decided"


def _callers(manifests: list[Object]) -> Iterator[tuple[Pod, Pod, str]]:
    """Who asks whom on which port, as the settings and the probes of the cluster need it."""
    pods = {pod.owner: pod for pod in servers_of(manifests)}
    if "qdrant" in pods:
        yield from ((pods["qdrant"], pods["qdrant"], port) for port in ("p2p", "http"))
    clients = [pod for pod in pods_of(manifests) if pod.owner in ("plugin", "job")]
    for server in pods.keys() & {"triton", "qdrant"}:
        yield from ((client, pods[server], port) for client in clients for port in ("http", "grpc"))
    for test in [pod for pod in pods_of(manifests) if pod.owner == "test"]:
        yield from ((test, pods[server], "http") for server in pods.keys() & {"plugin", "qdrant"})


def _lets(rules: list[Object], side: str, other: Pod, port: str) -> bool:
    """Whether a list of ingress (`from`) or egress (`to`) rules lets a pod of the namespace through."""
    return any(
        (side not in rule or any(_is_peer(peer, other) for peer in rule[side]))
        and ("ports" not in rule or {"port": port} in rule["ports"])
        for rule in rules
    )


def _is_peer(peer: Object, other: Pod) -> bool:
    if "podSelector" not in peer:
        return False
    return bool(peer["podSelector"].get("matchLabels", {}).items() <= other.labels.items())


@on_each_set
def test_policies_let_through_what_is_needed(manifests: list[Object]) -> None:
    policies = kinds_of(manifests, "NetworkPolicy")
    for caller, asked, port in _callers(manifests):
        for pod, other, side, key in [(asked, caller, "from", "ingress"), (caller, asked, "to", "egress")]:
            own = [
                each["spec"] for each in policies if selected([pod], each["spec"]["podSelector"].get("matchLabels", {}))
            ]
            rules = [rule for spec in own for rule in spec.get(key, [])]
            restricted = any(key.capitalize() in spec["policyTypes"] for spec in own)
            if (caller.owner, asked.owner) == ("test", "plugin") and _names_its_callers(rules):
                continue
            assert not restricted or _lets(rules, side, other, port), f"{caller.owner} -> {asked.owner}:{port}, {key}"


def _names_its_callers(rules: list[Object]) -> bool:
    """Whether a user says who may call the service, and so may leave the test out."""
    return all(rule.get("from") and not any("podSelector" in peer for peer in rule["from"]) for rule in rules)


def test_each_pod_has_a_policy_of_its_release(render: Callable[..., list[Object]]) -> None:
    """Nothing of another release, or of nobody, in the namespace is touched."""
    for values in ({}, {"jobs": {"fill": {"enabled": True, "source": "/data/a.csv"}}}):
        made = render(values)
        policies = kinds_of(made, "NetworkPolicy")
        for policy in policies:
            assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "reco"
            assert "Ingress" in policy["spec"]["policyTypes"]
        for pod in pods_of(made):
            assert pod.owner == "test" or [
                each for each in policies if selected([pod], each["spec"]["podSelector"]["matchLabels"])
            ], pod.owner
    assert not kinds_of(render({"networkPolicy": {"enabled": False}}), "NetworkPolicy")


def _policy(made: list[Object], name: str = "reco") -> Object:
    [policy] = [each["spec"] for each in kinds_of(made, "NetworkPolicy") if each["metadata"]["name"] == name]
    return policy


def test_who_may_call_can_be_said(render: Callable[..., list[Object]]) -> None:
    callers, metrics = _policy(render({}))["ingress"]
    assert callers["from"] == [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"reco/access": "allowed"}}}]
    shop = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}]
    callers, metrics, extra = _policy(
        render({"networkPolicy": {"callers": shop, "metricsFrom": shop, "extraIngress": [{"from": shop}]}})
    )["ingress"]
    assert callers["from"] == metrics["from"] == extra["from"] == shop
    opened = _policy(render({"ingress": {"enabled": True, "hosts": [{"host": "reco.example.com"}]}}))
    assert opened["ingress"][0] == {"ports": [{"port": "http"}]}, "an ingress controller may be anywhere"


@pytest.mark.parametrize(
    ("values", "ports"),
    [
        ({}, set()),
        ({"settings": {"RECO_SERVE_IMAGE_URLS": True}}, {80, 443}),
        ({"settings": {"RECO_SERVE_IMMICH_URL": "http://immich-ml:3003"}}, {3003}),
        ({"settings": {"RECO_TRITON_URL": "grpc://triton.models:9000"}}, {9000}),
        ({"settings": {"RECO_ENCODER": "jina+https://api.jina.ai/v1"}, "triton": {"enabled": False}}, {443}),
        ({"settings": {"RECO_ENCODER": "http://vllm.models:8001/v1"}, "triton": {"enabled": False}}, {8001}),
        ({"qdrant": {"enabled": False}, "memory": {"url": "https://qdrant.example.com:7443"}}, {7443, 6333, 6334}),
        ({"qdrant": {"enabled": False}, "memory": {"url": "https://cloud.example.com"}}, {443, 6333, 6334}),
    ],
)
def test_what_the_settings_name_can_be_reached(
    render: Callable[..., list[Object]], values: Object, ports: set[int]
) -> None:
    rules = _policy(render(values))["egress"]
    assert {port["port"] for rule in rules if "to" not in rule for port in rule["ports"]} == ports


@on_each_set
def test_policies_name_ports_that_exist(manifests: list[Object]) -> None:
    for policy in kinds_of(manifests, "NetworkPolicy"):
        for pod in selected(pods_of(manifests), policy["spec"]["podSelector"].get("matchLabels", {"": ""})):
            ports = [port["port"] for rule in policy["spec"].get("ingress", []) for port in rule.get("ports", [])]
            named = {port for port in ports if isinstance(port, str)}
            assert named <= pod.ports(), policy["metadata"]["name"]


@on_each_set
def test_prometheus_finds_its_targets_and_is_let_in(manifests: list[Object]) -> None:
    services, pods = kinds_of(manifests, "Service"), pods_of(manifests)
    for monitor in kinds_of(manifests, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        [service] = [each for each in services if wanted.items() <= each["metadata"]["labels"].items()]
        assert service["metadata"]["name"] == monitor["metadata"]["name"], "the job's name, by which alerts ask"
        [pod] = selected(pods, service["spec"]["selector"])
        ports = {port["name"]: port["targetPort"] for port in service["spec"]["ports"]}
        policy = next(
            each
            for each in kinds_of(manifests, "NetworkPolicy")
            if selected([pod], each["spec"]["podSelector"]["matchLabels"])
        )
        scraped = {"from": [{"namespaceSelector": {"matchLabels": {"reco/metrics": "allowed"}}}]}
        for endpoint in monitor["spec"]["endpoints"]:
            assert ports[endpoint["port"]] in pod.ports()
            assert {**scraped, "ports": [{"port": ports[endpoint["port"]]}]} in policy["spec"]["ingress"]


def test_prometheus_has_the_key_that_metrics_ask_for(render: Callable[..., list[Object]]) -> None:
    asked = render({"metrics": {"enabled": True, "key": True}})
    [monitor] = [each for each in kinds_of(asked, "ServiceMonitor") if each["metadata"]["name"] == "reco"]
    credentials = {"name": "reco-keys", "key": "metrics-key"}
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": credentials}
    [pod] = [pod for pod in pods_of(asked) if pod.owner == "plugin"]
    values = variables(pod)
    assert values["RECO_SERVE_METRICS_KEY"] == "true"
    assert values["METRICS_KEY"] == {"secretKeyRef": credentials}
    assert values["RECO_SERVE_API_KEYS"] == "$(CALLER_KEYS),$(METRICS_KEY)"
    names = list(values)
    assert max(names.index("CALLER_KEYS"), names.index("METRICS_KEY")) < names.index("RECO_SERVE_API_KEYS"), (
        "else it stays as it is"
    )
    [open_] = [
        each
        for each in kinds_of(render({"metrics": {"enabled": True}}), "ServiceMonitor")
        if each["metadata"]["name"] == "reco"
    ]
    assert "authorization" not in open_["spec"]["endpoints"][0]


@on_each_set
def test_annotations_name_the_metrics_port(manifests: list[Object]) -> None:
    for each in kinds_of(manifests, "Deployment"):
        template = each["spec"]["template"]
        ports = {port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
        annotations = template["metadata"].get("annotations", {})
        if annotations.get("prometheus.io/scrape") == "true":
            assert int(annotations["prometheus.io/port"]) in ports


def test_pods_can_be_left_without_annotations(render: Callable[..., list[Object]]) -> None:
    for values, annotated in (({}, True), ({"metrics": {"annotations": False}}, False)):
        templates = [each["spec"]["template"]["metadata"] for each in kinds_of(render(values), "Deployment")]
        assert ["prometheus.io/scrape" in each.get("annotations", {}) for each in templates] == [annotated] * 2
