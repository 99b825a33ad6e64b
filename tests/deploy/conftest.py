"""The tools that read the deployment's files: docker compose, Helm and hadolint, from wheels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm"
WHOLE: dict[str, dict[str, Any]] = {
    "cpu": {},
    "gpu": yaml.safe_load((CHART / "values-gpu.yaml").read_text("utf-8"))
    | {"monitoring": {"enabled": True, "labels": {"release": "kube-prometheus-stack"}}},
}
"""What somebody might ask of the chart: all parts of it."""
PARTS: dict[str, dict[str, Any]] = {
    "no-triton": {"triton": {"enabled": False}, "images": {"plugin": "reco-plugin:0.1.0-cpu"}},
    "no-service": {"service": {"enabled": False}, "monitoring": {"enabled": True}},
    "service-alone": {
        "triton": {"enabled": False},
        "qdrant": {"enabled": False, "storageClassName": "fast"},
        "memory": {"url": "https://qdrant.example.com:6333"},
        "monitoring": {"enabled": True},
        "service": {
            "settings": {"RECO_SERVE_MAX_ITEMS": 512, "RECO_K": 5},
            "ingress": {"enabled": True, "host": "reco.example.com", "tlsSecret": "reco-tls", "className": "nginx"},
        },
    },
}
"""And some of it."""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def root() -> Path:
    """Of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a tool of this environment."""

    def call(tool: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).parent / tool, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)

    return call


@pytest.fixture(scope="session")
def compose(run: Run) -> Callable[..., dict[str, Any]]:
    """docker-compose.yml as Compose understands it, with these profiles, all when none is named."""

    def read(*profiles: str) -> dict[str, Any]:
        chosen = [word for profile in profiles or ("*",) for word in ("--profile", profile)]
        done = run("docker-compose", "--file", ROOT / "docker-compose.yml", *chosen, "config", "--format", "json")
        assert done.returncode == 0, done.stderr
        return yaml.safe_load(done.stdout)

    return read


@pytest.fixture(scope="session")
def render() -> Callable[..., list[dict[str, Any]]]:
    """All objects of the chart with these values, as Helm would send them."""
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")

    def render(values: Mapping[str, Any]) -> list[dict[str, Any]]:
        with helm.Chart.load(CHART) as chart:
            written = chart.render(dict(values), name="reco", namespace="reco")
        manifests = [text for name, text in written.items() if name.endswith(".yaml")]
        return [each for text in manifests for each in yaml.safe_load_all(text) if each]

    return render


@pytest.fixture(scope="session", params=WHOLE | PARTS)
def manifests(render: Callable[..., list[dict[str, Any]]], request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """All objects, for each of :data:`WHOLE` and :data:`PARTS`."""
    return render((WHOLE | PARTS)[request.param])


@pytest.fixture(scope="session", params=WHOLE)
def cluster(render: Callable[..., list[dict[str, Any]]], request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """All objects, for each of :data:`WHOLE`."""
    return render(WHOLE[request.param])
