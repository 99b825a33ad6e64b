"""Other fusions in a model folder: what stays and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from two_files import split_graphs

from reco_plugin.artifact import Artifact, Policy
from reco_plugin.errors import ArtifactError
from reco_plugin.files import weights_file
from reco_plugin.train.loop import Fusions
from reco_plugin.train.model import FusionConfig
from reco_plugin.train.refit import refit

pytestmark = pytest.mark.xdist_group("export")  # as test_export.py


@pytest.fixture
def base(model: Path, tmp_path: Path) -> Path:
    """A copy of the shipped model."""
    return Path(shutil.copytree(model, tmp_path / "base"))


def fusions(dimension: int = 128) -> Fusions:
    return Fusions(FusionConfig("mean", dimension, weight=2.0)).eval()


def test_new_fusions_stand_beside_those_of_the_base(base: Path, tmp_path: Path) -> None:
    manifest = Artifact.load(base).manifest
    found = refit(Artifact.load(base), fusions(), tmp_path / "new", policy=Policy(k=7), trained_on="here")
    assert [parity.graph for parity in found] == ["mean_image", "mean_text"]
    made = Artifact.load(tmp_path / "new").manifest
    for name in ("mean_text", "mean_image"):
        config = (tmp_path / "new" / name / "config.pbtxt").read_text()
        told = text_format.Parse(config, model_config_pb2.ModelConfig())
        assert told.parameters["sha256"].string_value == made.graphs[name].sha256
        assert {port.name for port in told.input} == set(told.model_warmup[0].inputs)
    assert (made.fusion.fuser, made.fusion.config["weight"], made.policy.k) == ("mean", 2.0, 7)
    assert made.fusers == ("reco", "paper", "mean"), "the base's layer stays"
    assert made.licenses == manifest.licenses
    assert made.templates == manifest.templates == ("{}",)


def test_the_closed_form_alone_keeps_what_the_base_says_of_its_layer(base: Path, tmp_path: Path) -> None:
    before = Artifact.load(base)
    refit(before, None, tmp_path / "new", policy=Policy(k=7), trained_on="here")
    made = Artifact.load(tmp_path / "new")
    assert (made.manifest.fusion.fuser, made.manifest.fusers) == ("reco", ("reco", "paper"))
    assert made.manifest.fusion.config == before.manifest.fusion.config
    assert made.manifest.graphs == before.manifest.graphs
    assert made.manifest.fingerprint == before.manifest.fingerprint


def test_weights_in_a_second_file_are_taken_with_their_graph(base: Path, tmp_path: Path) -> None:
    before = split_graphs(base, "clip_image", "clip_text", "paper_image")
    refit(before, None, tmp_path / "new", policy=Policy(k=7), trained_on="here")
    made = Artifact.load(tmp_path / "new")
    made.verify()
    for name in ("clip_image", "clip_text", "paper_image"):
        assert made.manifest.graphs[name] == before.manifest.graphs[name] and made.manifest.graphs[name].weights
        assert weights_file(made.graph(name)).samefile(weights_file(before.graph(name)))


def test_a_damaged_base_is_refused_and_nothing_is_written(base: Path, tmp_path: Path) -> None:
    artifact = Artifact.load(base)
    graph = artifact.graph("clip_image")
    content = bytearray(graph.read_bytes())
    content[1000] ^= 1
    graph.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"clip_image.*changed or damaged"):
        refit(artifact, fusions(), tmp_path / "new", policy=Policy(), trained_on="")
    assert {path.name for path in tmp_path.iterdir()} == {"base"}
