"""What the chart makes: who finds whom, and who is let through."""

from __future__ import annotations

from collections.abc import Iterator

from .objects import Object, Pod, kinds_of, pods_of, selected


def test_services_and_budgets_find_pods(manifests: list[Object]) -> None:
    pods = pods_of(manifests)
    for service in kinds_of(manifests, "Service"):
        [pod] = selected(pods, service["spec"]["selector"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= pod.ports(), service["metadata"]["name"]
    budgets = kinds_of(manifests, "PodDisruptionBudget")
    assert {selected(pods, each["spec"]["selector"]["matchLabels"])[0].owner for each in budgets} == {
        pod.owner for pod in pods
    }
    for scaler in kinds_of(manifests, "HorizontalPodAutoscaler"):
        [target] = [
            each
            for each in manifests
            if each["metadata"]["name"] == scaler["spec"]["scaleTargetRef"]["name"] and each["kind"] == "Deployment"
        ]
        assert "replicas" not in target["spec"], "applying it would undo what the autoscaler decided"


def _callers(manifests: list[Object]) -> Iterator[tuple[Pod, Pod, str]]:
    """Who asks whom on which port, as the settings and the probes of the cluster need it."""
    pods = {pod.owner: pod for pod in pods_of(manifests)}
    if "qdrant" in pods:
        yield from ((pods["qdrant"], pods["qdrant"], port) for port in ("p2p", "http"))
    for server in ("triton", "qdrant"):
        if {"plugin", server} <= pods.keys():
            yield from ((pods["plugin"], pods[server], port) for port in ("http", "grpc"))


def _lets(rules: list[Object], side: str, other: Pod, port: str) -> bool:
    """Whether a list of ingress (`from`) or egress (`to`) rules lets a pod of the namespace through."""
    return any(
        peer.get("podSelector", {}).get("matchLabels", {"": ""}).items() <= other.labels.items()
        and ("ports" not in rule or {"port": port} in rule["ports"])
        for rule in rules
        for peer in rule.get(side, [])
    )


def test_policies_let_through_what_is_needed(manifests: list[Object]) -> None:
    policies = kinds_of(manifests, "NetworkPolicy")
    assert {"podSelector": {}, "policyTypes": ["Ingress"]} in [each["spec"] for each in policies], "deny by default"
    for caller, asked, port in _callers(manifests):
        for pod, other, side, key in [(asked, caller, "from", "ingress"), (caller, asked, "to", "egress")]:
            own = [
                each["spec"] for each in policies if selected([pod], each["spec"]["podSelector"].get("matchLabels", {}))
            ]
            rules = [rule for spec in own for rule in spec.get(key, [])]
            restricted = any(key.capitalize() in spec["policyTypes"] for spec in own)
            assert not restricted or _lets(rules, side, other, port), f"{caller.owner} -> {asked.owner}:{port}, {key}"


def test_policies_name_ports_that_exist(manifests: list[Object]) -> None:
    for policy in kinds_of(manifests, "NetworkPolicy"):
        for pod in selected(pods_of(manifests), policy["spec"]["podSelector"].get("matchLabels", {"": ""})):
            named = {port["port"] for rule in policy["spec"].get("ingress", []) for port in rule.get("ports", [])}
            assert named <= pod.ports(), policy["metadata"]["name"]


def test_prometheus_finds_its_targets_and_is_let_in(manifests: list[Object]) -> None:
    services, pods = kinds_of(manifests, "Service"), pods_of(manifests)
    for monitor in kinds_of(manifests, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        found = [each for each in services if wanted.items() <= each["metadata"]["labels"].items()]
        [service] = found
        [pod] = selected(pods, service["spec"]["selector"])
        ports = {port["name"]: port["targetPort"] for port in service["spec"]["ports"]}
        policy = next(
            each
            for each in kinds_of(manifests, "NetworkPolicy")
            if each["spec"]["podSelector"] == {"matchLabels": wanted}
        )
        scraped = {"from": [{"namespaceSelector": {"matchLabels": {"reco/metrics": "allowed"}}}]}
        for endpoint in monitor["spec"]["endpoints"]:
            assert ports[endpoint["port"]] in pod.ports()
            assert {**scraped, "ports": [{"port": ports[endpoint["port"]]}]} in policy["spec"]["ingress"]


def test_annotations_name_the_metrics_port(manifests: list[Object]) -> None:
    for each in kinds_of(manifests, "Deployment"):
        template = each["spec"]["template"]
        ports = {port["containerPort"] for container in template["spec"]["containers"] for port in container["ports"]}
        assert template["metadata"]["annotations"]["prometheus.io/scrape"] == "true"
        assert int(template["metadata"]["annotations"]["prometheus.io/port"]) in ports
