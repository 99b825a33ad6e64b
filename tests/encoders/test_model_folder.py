"""A model folder: what is read from it, and what is noticed when it is not as it was written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from two_files import split_graphs
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.cli.app import app
from reco_plugin.encoders.model_folder import FORMAT, GRAPHS, MANIFEST, Artifact, Policy, whole_model
from reco_plugin.errors import ArtifactError
from reco_plugin.files import sha256_file, weights_file


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """A copy of the shipped model that may be spoilt."""
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture
def edit(copy: Path) -> Callable[..., None]:
    """Change fields of the copy's manifest."""

    def change(**fields: Any) -> None:
        manifest = json.loads((copy / MANIFEST).read_text())
        (copy / MANIFEST).write_text(json.dumps(manifest | fields))

    return change


def test_the_shipped_model_is_whole(model):
    artifact = Artifact.load(model)
    artifact.verify()
    assert set(artifact.manifest.graphs) == {*GRAPHS, "paper_image", "paper_text"}
    assert artifact.manifest.format in (3, FORMAT)
    assert (artifact.manifest.fusion.fuser, artifact.manifest.fusers) == ("reco", ("reco", "paper"))
    for name in artifact.manifest.graphs:
        assert artifact.graph(name).stat().st_size == artifact.manifest.graphs[name].size_bytes


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir], ids=["nothing", "empty"])
def test_a_folder_without_a_model_says_what_to_give(make, tmp_path):
    place = tmp_path / "elsewhere"
    make(place)
    with pytest.raises(ArtifactError, match=r"elsewhere.*manifest\.json is missing.*reco model export"):
        Artifact.load(place)


def test_a_truncated_graph_is_noticed_when_the_model_is_opened(copy):
    path = copy / "clip_text" / "1" / "model.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=rf"clip_text.*{len(whole) // 2:,} bytes.*{len(whole):,}.*truncated"):
        Reco.open(copy, memory=":memory:")


def test_a_changed_graph_of_the_same_size_is_noticed_by_its_checksum(copy):
    artifact = Artifact.load(copy)
    flip_a_byte(path := artifact.graph("clip_text"))
    named = rf"clip_text.*{sha256_file(path)[:12]}.*changed or damaged"
    with pytest.raises(ArtifactError, match=named):
        artifact.verify()
    with pytest.raises(ArtifactError, match=named):
        Reco.open(copy, memory=":memory:")
    flip_a_byte(path)
    flip_a_byte(artifact.tokenizer)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json has sha256.*changed or damaged"):
        Artifact.load(copy)
    for command in (["embed", "--plain", "--text", "x"], ["serve", "--port", "0", "--memory", ":memory:"]):
        done = CliRunner().invoke(app, [*command, "--model", str(copy)])
        assert done.exit_code != 0
        assert "changed or damaged" in done.stderr


@pytest.fixture
def split(copy: Path) -> Artifact:
    """The model with the weights of its text tower in a second file."""
    return split_graphs(copy, "clip_text")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (Path.unlink, "is missing: copy it again"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated or was replaced. Copy it or"),
        (lambda path: flip_a_byte(path), "changed or damaged, or belongs to another model. Copy it or"),
    ],
    ids=["missing", "truncated", "another"],
)
def test_spoilt_weights_are_noticed_when_the_model_is_opened(spoil, said, split):
    spoil(weights_file(split.graph("clip_text")))
    with pytest.raises(ArtifactError) as caught:
        Reco.open(split.folder, memory=":memory:")
    assert "clip_text/1/model.onnx.data" in str(caught.value) and said in str(caught.value)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_manifest_of_another_version_asks_for_another_export_whatever_else_it_holds(edit, copy):
    edit(format=FORMAT + 1, something_new=True, graphs="elsewhere")
    with pytest.raises(ArtifactError, match=rf"format {FORMAT + 1}.*reads {FORMAT}: export the model"):
        Artifact.load(copy)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"colour": "red"}, "colour"),
        ({"policy": {"k": 0}}, r"policy\.k"),
        ({"policy": {"coverage": 1.5}}, r"policy\.coverage.*got 1\.5"),
        ({"dimension": 10**9}, "dimension.*65536.*got 1000000000"),
        ({"templates": ["{c} icon", "a photo"]}, r"templates\.1"),
        ({"fusion": {"fuser": "magic"}}, r"fusion\.fuser"),
    ],
)
def test_a_manifest_with_something_unusable_names_it(fields, named, edit, copy):
    edit(**fields)
    with pytest.raises(ArtifactError, match=rf"is not a manifest: .*{named}"):
        Artifact.load(copy)


def test_a_manifest_from_before_coverage_is_read(edit, copy):
    edit(policy={"k": 7, "caution": "bold"})
    assert Artifact.load(copy).manifest.policy == Policy(k=7)


def test_a_model_that_cannot_be_put_in_place_leaves_the_old_one(copy, monkeypatch):
    rename, before = Path.rename, sorted(copy.iterdir())

    def fail(self: Path, target: Path) -> Path:
        if target == copy and (self / "new").exists():
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ArtifactError, match="cannot be written: Permission denied"), whole_model(copy) as folder:
        (folder / "new").touch()
    assert sorted(copy.iterdir()) == before
    assert [*copy.parent.iterdir()] == [copy]
    Artifact.load(copy).verify()
