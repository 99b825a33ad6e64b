"""Other fusions in a model folder: what stays and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reco_plugin.artifact import Artifact, Policy
from reco_plugin.errors import ArtifactError
from reco_plugin.train.loop import Fusions
from reco_plugin.train.model import FusionConfig
from reco_plugin.train.refit import refit
from reco_plugin.train.serving import serving
from reco_plugin.train.triton import graph_specs, render_config


@pytest.fixture
def base(model: Path, tmp_path: Path) -> Path:
    """A copy of the shipped model."""
    return Path(shutil.copytree(model, tmp_path / "base"))


def fusions(dimension: int = 128) -> Fusions:
    return Fusions(FusionConfig("mean", dimension, weight=2.0)).eval()


def test_options_of_triton_stay_and_the_checksum_is_of_the_new_graph(base: Path, tmp_path: Path) -> None:
    manifest = Artifact.load(base).manifest
    spec = graph_specs(manifest.image, manifest.text, manifest.dimension, manifest.policy.k)["reco_text"]
    cuda = render_config(spec, serving("cuda"), half=True, sha256=manifest.graphs["reco_text"].sha256)
    (base / "reco_text" / "config.pbtxt").write_text(cuda)
    found = refit(Artifact.load(base), fusions(), tmp_path / "new", policy=Policy(k=7), trained_on="here")
    assert [parity.graph for parity in found] == ["reco_image", "reco_text"]
    made = Artifact.load(tmp_path / "new").manifest
    text, image = ((tmp_path / "new" / name / "config.pbtxt").read_text() for name in ("reco_text", "reco_image"))
    assert made.graphs["reco_text"].sha256 in text and manifest.graphs["reco_text"].sha256 not in text
    assert "gpu_execution_accelerator" in text and "gpu_execution_accelerator" not in image
    assert "batch-1-length-7" in image
    assert (made.fusion.fuser, made.fusion.config["weight"], made.policy.k) == ("mean", 2.0, 7)
    assert made.licenses == manifest.licenses
    assert made.templates == manifest.templates == ("{}",)


def test_a_damaged_base_is_refused_and_nothing_is_written(base: Path, tmp_path: Path) -> None:
    artifact = Artifact.load(base)
    graph = artifact.graph("clip_image")
    content = bytearray(graph.read_bytes())
    content[1000] ^= 1
    graph.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"clip_image.*changed or damaged"):
        refit(artifact, fusions(), tmp_path / "new", policy=Policy(), trained_on="")
    assert {path.name for path in tmp_path.iterdir()} == {"base"}
