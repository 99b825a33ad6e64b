"""The tools that read the deployment's files: docker compose, Helm and hadolint, from wheels."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import chart

ROOT = Path(__file__).resolve().parents[2]
SETS = chart.read_sets()
"""What people might ask of the chart, by name."""
WHOLE = ("defaults", "gpu-and-monitoring")
"""Those with all parts, three nodes of Qdrant and Triton on CPUs or GPUs."""
READER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True, scope="session")
def what_is_the_same_is_read_once() -> Iterator[None]:
    """Kubernetes' library lists its versions and parses a megabyte of schemas for each object; Helm takes 60 ms."""
    from kubernetes_validate import utils

    made: dict[str, dict[str, str]] = {}
    real = chart.render

    def render(values: dict[str, Any], name: str = "reco", namespace: str = "reco") -> dict[str, str]:
        asked = json.dumps([values, name, namespace])
        if asked not in made:
            made[asked] = real(values, name, namespace)
        return dict(made[asked])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chart, "render", render)
        for name in ("all_versions", "schema_contents"):
            patch.setattr(utils, name, cache(getattr(utils, name)))
        yield


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
def written() -> Callable[..., dict[str, str]]:
    """All files of the chart with these values, as Helm would send them: name -> text."""
    pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")
    return chart.render


@pytest.fixture(scope="session")
def render(written: Callable[..., dict[str, str]]) -> Callable[..., list[dict[str, Any]]]:
    """All objects of the chart with these values."""

    def render(values: Mapping[str, Any], name: str = "reco", namespace: str = "reco") -> list[dict[str, Any]]:
        return read_objects(written(values, name, namespace))

    return render


def read_objects(files: Mapping[str, str]) -> list[dict[str, Any]]:
    """The objects of files of a chart."""
    texts = [text for file, text in files.items() if file.endswith(".yaml")]
    return [each for text in texts for each in yaml.load_all(text, READER) if each]


@pytest.fixture(scope="session")
def each_text(written: Callable[..., dict[str, str]]) -> dict[str, dict[str, str]]:
    """The chart's files, for each of :data:`SETS`."""
    return {name: written(values) for name, values in SETS.items()}


@pytest.fixture(scope="session")
def each_set(each_text: dict[str, dict[str, str]]) -> dict[str, list[dict[str, Any]]]:
    """All objects, for each of :data:`SETS`."""
    return {name: read_objects(files) for name, files in each_text.items()}


@pytest.fixture(scope="session", params=WHOLE)
def cluster(render: Callable[..., list[dict[str, Any]]], request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """All objects, for each of :data:`WHOLE`."""
    return render(SETS[request.param])
