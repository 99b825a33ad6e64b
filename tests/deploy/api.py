"""The part of a Kubernetes API server that `lookup` of a chart asks: discovery, and objects by name or as a list."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .objects import Object

RESOURCES = {  # apiVersion -> kind -> plural, whether it is of a namespace
    "v1": {
        "Node": ("nodes", False),
        "Secret": ("secrets", True),
        "Pod": ("pods", True),
        "Service": ("services", True),
        "ServiceAccount": ("serviceaccounts", True),
    },
    "apps/v1": {"StatefulSet": ("statefulsets", True), "Deployment": ("deployments", True)},
    "autoscaling/v2": {"HorizontalPodAutoscaler": ("horizontalpodautoscalers", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "storage.k8s.io/v1": {"StorageClass": ("storageclasses", False)},
    "apiregistration.k8s.io/v1": {"APIService": ("apiservices", False)},
    "apiextensions.k8s.io/v1": {"CustomResourceDefinition": ("customresourcedefinitions", False)},
    "networking.k8s.io/v1": {"IngressClass": ("ingressclasses", False), "NetworkPolicy": ("networkpolicies", True)},
    "node.k8s.io/v1": {"RuntimeClass": ("runtimeclasses", False)},
    "scheduling.k8s.io/v1": {"PriorityClass": ("priorityclasses", False)},
}


@contextmanager
def api_server(objects: list[Object]) -> Iterator[str]:
    """Serve these objects; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            kept = [] if "labelSelector" in query else objects  # Helm looks for its own releases; there are none
            found = _answer(path.strip("/").split("/"), kept)
            body = json.dumps(
                found or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}
            ).encode()
            self.send_response(200 if found else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(path: list[str], objects: list[Object]) -> Object | None:
    if path == ["version"]:
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.3"}
    if path == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == ["apis"]:
        groups = [_group(each) for each in RESOURCES if "/" in each]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version, rest = (path[1], path[2:]) if path[0] == "api" else ("/".join(path[1:3]), path[3:])
    kinds = RESOURCES.get(version)
    if kinds is None:
        return None
    if not rest:
        listed = [
            {"name": plural, "singularName": "", "namespaced": inside, "kind": kind, "verbs": ["get", "list"]}
            for kind, (plural, inside) in kinds.items()
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": listed}
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    kind = next((kind for kind, (plural, _) in kinds.items() if plural == rest[0]), None)
    own = [
        each
        for each in objects
        if (each["apiVersion"], each["kind"]) == (version, kind) and each["metadata"].get("namespace") == namespace
    ]
    if len(rest) == 1:
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": own}
    return next((each for each in own if each["metadata"]["name"] == rest[1]), None)


def _group(version: str) -> Object:
    name, _, number = version.partition("/")
    here = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [here], "preferredVersion": here}
