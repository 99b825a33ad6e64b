"""Ready towers in both layouts: the vectors are their maker's, and what is wrong is said before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.cli.app import app
from reco_plugin.encoders.model_folder import Artifact, Manifest
from reco_plugin.errors import ArtifactError, ConfigError, RecoError
from reco_plugin.export import ready
from reco_plugin.export.export_options import AddOptions
from reco_plugin.export.parity import SAMPLE_TEXTS, sample_images

pytest.importorskip("torch")
import torch
from families import FAMILIES, vector

pytestmark = pytest.mark.torch

Written = Callable[[str, str], Path]
Added = Callable[..., tuple[Manifest, Path]]
TEXTS = [text for text in SAMPLE_TEXTS if text]


def add(source: Path | str, out: Path, **options: Any) -> Manifest:
    ready.add(str(source), AddOptions(**options), out)
    return Artifact.load(out).manifest


@pytest.fixture(scope="module")
def added(written: Written, tmp_path_factory: pytest.TempPathFactory) -> Added:
    """A function that adds a family in a layout once, and returns its manifest and the folder, to be left alone."""

    @cache
    def get(family: str, layout: str, precision: str = "fp32") -> tuple[Manifest, Path]:
        out = tmp_path_factory.mktemp("added") / "out"
        return add(written(family, layout), out, precision=precision), out

    return get


@pytest.fixture
def js(written: Written, tmp_path: Path) -> Path:
    """A copy of CLIP as transformers.js has it, to spoil."""
    return Path(shutil.copytree(written("CLIP", "transformers_js"), tmp_path / "js"))


@pytest.mark.parametrize(("family", "layout"), [("CLIP", "optimum"), *((name, "transformers_js") for name in FAMILIES)])
def test_the_vectors_are_those_of_transformers(family: str, layout: str, added: Added) -> None:
    manifest, out = added(family, layout)
    text, image = vectors_of_transformers(family)
    with Reco.open(out, threads=1) as reco:
        assert_near(reco.encoder.texts(TEXTS), text, 1e-5)
        assert_near(np.concatenate([reco.encoder.texts([one]) for one in TEXTS]), text, 1e-5)
        assert_near(reco.encoder.images(pictures()), image, 2e-3)  # torchvision resizes otherwise by a step of 256
    port = onnx.load(out / "clip_text" / "1" / "model.onnx").graph.input[0]
    length, told = port.type.tensor_type.shape.dim[1].dim_value, manifest.text
    assert length == (0 if told.dynamic else told.context_length), "of texts; 0 takes any"


@cache
def vectors_of_transformers(family: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Of :data:`TEXTS` and :func:`pictures`."""
    model, tokenizer = FAMILIES[family].build()
    given = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    pixels = FAMILIES[family].processor()(pictures(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return vector(model.get_text_features(**given)), vector(model.get_image_features(pixel_values=pixels))


def pictures() -> list[Image.Image]:
    return [image.convert("RGB") for image in sample_images(5)]


def assert_near(found: np.ndarray, expected: torch.Tensor, atol: float) -> None:
    np.testing.assert_allclose(found, torch.nn.functional.normalize(expected, dim=-1).numpy(), atol=atol)


def refused(kind: type[RecoError], source: Path | str, folder: Path, *words: str, **options: Any) -> None:
    """The error names what is wrong, and nothing is written."""
    with pytest.raises(kind) as error:
        add(source, folder / "refused", **options)
    assert all(word in str(error.value) for word in words), error.value
    assert not (folder / "refused").exists()


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def weights_of(path: Path, times: float) -> None:
    """Multiply all weights of a graph."""
    model = onnx.load(path)
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT:
            weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(times), weights.name))
    onnx.save(model, path)


def test_graphs_that_are_no_towers_are_refused(js: Path, written: Written, tmp_path: Path) -> None:
    text, image = js / "onnx" / "text_model.onnx", js / "onnx" / "vision_model.onnx"
    kept = text.read_bytes()
    weights_of(text, float("nan"))
    refused(ArtifactError, js, tmp_path, "text_embeds", "finite")
    weights_of(text, 0.0)
    refused(ArtifactError, js, tmp_path)
    shutil.copy(image, text)
    refused(ArtifactError, js, tmp_path, "text_model.onnx", "pixel_values", "input_ids", "optimum")
    text.write_bytes(b"no graph")
    refused(ArtifactError, js, tmp_path, "text_model.onnx", "ONNX")
    text.write_bytes(kept)
    shutil.copy(written("SigLIP", "transformers_js") / "onnx" / "vision_model.onnx", image)
    change(js / "preprocessor_config.json", size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    refused(ArtifactError, js, tmp_path)  # of other pictures


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("preprocessor_config.json", {"image_mean": ["a", "b", "c"]}),
        ("preprocessor_config.json", {"resample": 1}),
        ("preprocessor_config.json", {"size": {"shortest_edge": 99}}),
        ("tokenizer_config.json", {"padding_side": "middle"}),
    ],
)
def test_settings_that_cannot_be_followed_name_their_file(
    name: str, values: dict[str, Any], js: Path, tmp_path: Path
) -> None:
    change(js / name, **values)
    refused(ConfigError, js, tmp_path, name)


def test_what_is_not_there_is_named(js: Path, tmp_path: Path) -> None:
    refused(ConfigError, tmp_path / "nowhere", tmp_path, "nowhere")
    refused(ConfigError, js / "config.json", tmp_path, "config.json")
    for name in ("tokenizer.json", "preprocessor_config.json"):
        kept = (js / name).read_text()
        (js / name).unlink()
        refused(ConfigError, js, tmp_path, name)
        (js / name).write_text("{")
        refused(RecoError, js, tmp_path, name)
        (js / name).write_text(kept)
    (js / "onnx" / "text_model.onnx").unlink()
    refused(ConfigError, js, tmp_path, "vision_model.onnx", "optimum-cli export onnx")


def test_a_repository_of_the_hub_is_fetched(js: Path, added: Added, tmp_path: Path, monkeypatch: Any) -> None:
    """Only the files of its layout, at the named revision."""
    asked: list[Any] = []

    def files(_: Any, repository: str, *, revision: str | None) -> list[str]:
        asked.append((repository, revision))
        return [path.relative_to(js).as_posix() for path in js.rglob("*") if path.is_file()] + ["onnx/model_fp16.onnx"]

    def snapshot(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(js)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    manifest = add("hf://org/clip", tmp_path / "out", revision="v2")
    assert (manifest.name, manifest.digest) == ("clip", added("CLIP", "transformers_js")[0].digest)
    assert asked == [("org/clip", "v2"), ["*.json", "onnx/vision_model.onnx*", "onnx/text_model.onnx*"]]


def test_the_command_says_what_was_compared(js: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["model", "add", str(js), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "transformers.js, 24-d" in done.output and "clip_image" in done.output
    again = run(app, ["model", "add", str(js), "--out", str(tmp_path / "out"), "--template", "{}", "--json"])
    assert json.loads(again.stdout)["dimension"] == 24
    assert Artifact.load(tmp_path / "out").manifest.templates == ("{}",)
    (js / "tokenizer.json").unlink()
    failed = run(app, ["model", "add", str(js), "--out", str(tmp_path / "out")])
    assert failed.exit_code == 1 and "error: " in failed.output
    assert Artifact.load(tmp_path / "out").manifest.templates == ("{}",)  # the older one stays
