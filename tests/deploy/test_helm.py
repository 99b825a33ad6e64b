"""Helm's own command line, where there is one: 3 and 4 send what the library sends, and the page's commands work.

Looked for on PATH as helm, helm3 and helm4, and in HELM (paths between colons).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from benchmarks.chart import CHART

from .api import api_server
from .conftest import SETS
from .objects import Object
from .registry import registry
from .test_preflight import ENOUGH, METRICS, STORAGE, node

NAMED = [each for each in os.environ.get("HELM", "").split(os.pathsep) if each]
FOUND = dict.fromkeys(filter(None, [*NAMED, *map(shutil.which, ("helm", "helm3", "helm4"))]))
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=list(FOUND) or [pytest.param("", marks=pytest.mark.skip(reason="no helm on PATH or in HELM"))])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Call:
    """Run it, with an empty home."""

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        version = ["--kube-version", "1.36.0"] if words[0] == "template" else []
        command = [request.param, *map(str, words), *version]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    return call


def _sorted(objects: list[Object]) -> list[Object]:
    return sorted(objects, key=lambda each: (each["kind"], each["metadata"]["name"]))


def test_each_version_sends_the_same(helm: Call, render: Callable[..., list[Object]], tmp_path: Path) -> None:
    for name, values in SETS.items():
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values), "utf-8")
        done = helm("template", "reco", CHART, "-n", "reco", "-f", file)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        sent = [each for each in yaml.safe_load_all(done.stdout) if each]
        assert _sorted(sent) == _sorted(render(values)), name


def test_numbers_of_a_file_and_of_a_flag_arrive_alike(helm: Call) -> None:
    setting = "RECO_SERVE_MAX_BODY_BYTES"
    for words in (["--set", f"settings.{setting}=64000000"], ["--set-json", f'settings={{"{setting}": 64000000}}']):
        done = helm("template", "reco", CHART, *words)
        assert f'name: {setting}\n              value: "64000000"' in done.stdout, done.stderr


def test_a_wrong_word_is_refused_with_the_right_ones(helm: Call) -> None:
    done = helm("template", "reco", CHART, "--set", "triton.gpus=true")
    assert done.returncode != 0
    assert {"gpus", "gpu", "replicaCount"} <= set(re.findall(r"\w+", done.stderr))


def test_the_check_of_the_page_says_what_is_missing(helm: Call, root: Path) -> None:
    page = (root / "docs" / "deployment.md").read_text("utf-8")
    [line] = re.findall(r"^helm (.*--set preflight=true) > /dev/null$", page, flags=re.MULTILINE)
    words = [CHART if word == "deploy/helm" else word for word in line.replace("mine.yaml", "/dev/null").split()]
    words.append("--disable-openapi-validation")  # which a real server answers
    with api_server(ENOUGH) as url:
        enough = helm(*words, "--kube-apiserver", url)
    assert enough.returncode == 0, enough.stderr
    with api_server([node("n0"), STORAGE, METRICS]) as url:
        lacking = helm(*words, "--kube-apiserver", url)
    assert lacking.returncode != 0
    for said in ("nodes: qdrant.replicaCount is 3", "keys: the secret reco-qdrant-keys has no api-key"):
        assert said in lacking.stderr


def test_it_can_be_packed_and_pushed(helm: Call, tmp_path: Path) -> None:
    done = helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    [archive] = tmp_path.glob("reco-*.tgz")
    installed = helm("template", "blue", archive, "-f", CHART / "values-small.yaml")
    assert "name: blue-reco-qdrant" in installed.stdout.replace('"', "")
    with registry() as host:
        pushed = helm("push", archive, f"oci://{host}/charts", "--plain-http")
        assert pushed.returncode == 0, pushed.stderr
        version = archive.name.removeprefix("reco-").removesuffix(".tgz")
        words = ("template", "blue", f"oci://{host}/charts/reco", "--version", version, "--plain-http")
        pulled = helm(*words, "-f", CHART / "values-small.yaml")
    assert pulled.stdout.endswith(installed.stdout), pulled.stderr  # Helm 4 tells there what it pulled
