"""Ready towers in every layout: the vectors are their maker's, and what is wrong is said before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tokenizers
import torch
from families import FAMILIES, vector
from onnx import TensorProto, helper
from PIL import Image
from products import axes_of_products
from typer.testing import CliRunner

from reco_plugin import Pair, Reco
from reco_plugin.artifact import Artifact
from reco_plugin.calibration.gate import step
from reco_plugin.cli.app import app
from reco_plugin.config import Settings
from reco_plugin.errors import ArtifactError, ConfigError, DataError, RecoError
from reco_plugin.sessions.ort import OrtSession
from reco_plugin.towers.add import AddedModel, add_model
from reco_plugin.towers.nodes import make_step
from reco_plugin.towers.options import AddOptions
from reco_plugin.train import graph_file
from reco_plugin.train import precision as precision_module
from reco_plugin.train.graph_inputs import step_inputs
from reco_plugin.train.parity import SAMPLE_TEXTS, sample_images

Written = Callable[[str, str], Path]
Added = Callable[..., tuple[AddedModel, Path]]
CPU = Settings(provider="cpu", threads=1)
TEXTS = [text for text in SAMPLE_TEXTS if text]


def add(source: Path | str | None, out: Path, **options: Any) -> AddedModel:
    return add_model(None if source is None else str(source), AddOptions.of(**options), out)


@pytest.fixture(scope="module")
def added(written: Written, tmp_path_factory: pytest.TempPathFactory) -> Added:
    """A function that adds a family in a layout once, and returns what was said and the folder, to be left alone."""

    @cache
    def get(family: str, layout: str, precision: str = "fp32") -> tuple[AddedModel, Path]:
        out = tmp_path_factory.mktemp("added") / "out"
        return add(written(family, layout), out, precision=precision), out

    return get


@pytest.fixture
def js(written: Written, tmp_path: Path) -> Path:
    """A copy of CLIP as transformers.js has it, to spoil."""
    return Path(shutil.copytree(written("CLIP", "transformers_js"), tmp_path / "js"))


@pytest.mark.parametrize("layout", ["transformers_js", "optimum"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_vectors_are_those_of_transformers(family: str, layout: str, added: Added) -> None:
    result, out = added(family, layout)
    text, image = vectors_of_transformers(family)
    with Reco.open(out, threads=1) as reco:
        assert_near(reco.encoder.texts(TEXTS), text, 1e-5)
        assert_near(np.concatenate([reco.encoder.texts([one]) for one in TEXTS]), text, 1e-5)
        assert_near(reco.encoder.images(pictures()), image, 2e-3)  # torchvision resizes otherwise by a step of 256
    for graph in ("clip_image", "clip_text"):  # of the last layer only the attention is computed for all tokens
        made = onnx.load(str(out / graph / "1" / "model.onnx"))
        assert axes_of_products(made, after="Softmax").count(3) <= 1
    length, told = made.graph.input[0].type.tensor_type.shape.dim[1].dim_value, result.manifest.text
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


def test_immichs_batches_of_one_are_served_in_batches(written: Written, added: Added) -> None:
    result, out = added("", "immich")
    alone = OrtSession(written("", "immich") / "textual" / "model.onnx", CPU)
    with Reco.open(out, memory=":memory:", threads=1) as reco:
        found = reco.encoder.texts(["a red fox", "snow"])
        ids = reco.encoder.preparation.tokenizer(["a red fox", "snow"]).ids
        for row in range(2):
            made = alone.run({"text": ids[row : row + 1]})["text_embedding"]
            np.testing.assert_allclose(found[row], made[0], atol=1e-6)
        assert reco.encoder.images(sample_images(3)).shape == (3, 24)
        reco.memory.add([Pair(str(row), image, f"picture {row}") for row, image in enumerate(sample_images(3))])
        assert reco.embed_texts(["a red fox"]).shape == (1, 24)
    manifest = Artifact.load(out).manifest
    assert manifest == result.manifest
    assert (manifest.text.clean, manifest.text.dynamic, manifest.image.like) == ("lower", False, "open_clip")


def test_batches_of_one_are_made_smaller_too(added: Added) -> None:
    whole, (smaller, out) = added("", "immich")[0].manifest, added("", "immich", "int8")
    assert smaller.manifest.graphs["clip_text"].size_bytes < 0.8 * whole.graphs["clip_text"].size_bytes
    with Reco.open(out, threads=1) as reco:
        assert reco.encoder.texts(["a red fox", "snow"]).shape == (2, 24)


def test_single_files_give_the_same_model_and_their_flags_are_named(js: Path, added: Added, tmp_path: Path) -> None:
    whole = added("CLIP", "transformers_js")[0].manifest
    given = {
        "image": js / "onnx" / "vision_model.onnx",
        "text": js / "onnx" / "text_model.onnx",
        "tokenizer": js / "tokenizer.json",
        "preprocess": js / "preprocessor_config.json",
    }
    found = add(None, tmp_path / "files", **given).manifest
    assert (found.digest, found.image) == (whole.digest, whole.image)
    for flag in given:
        with pytest.raises(ConfigError, match=f"--{flag}"):
            add(None, tmp_path / "less", **{name: path for name, path in given.items() if name != flag})
    with pytest.raises(ConfigError, match="is not there"):
        add(None, tmp_path / "less", **given | {"image": js / "other.onnx"})


def test_texts_are_cut_where_the_graph_allows_it(added: Added) -> None:
    result, out = added("CLIP", "transformers_js")
    assert result.manifest.text.lengths == (16, 32, 48, 64, 77)
    with Reco.open(out, threads=1) as reco:
        tokens = reco.encoder.preparation.tokenizer(["a red fox"]).ids
    graph = OrtSession(out / "clip_text" / "1" / "model.onnx", CPU)
    whole = graph.run({"tokens": tokens})["features"]
    cut = graph.run({"tokens": np.ascontiguousarray(tokens[:, :16])})["features"]
    np.testing.assert_allclose(cut, whole, atol=1e-6)
    assert "length" in (out / "clip_text" / "config.pbtxt").read_text()


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.75), ("int8", 0.99)])
def test_a_smaller_precision_is_made_where_none_is_there(precision: str, share: float, added: Added) -> None:
    (first, whole), (second, smaller) = (added("CLIP", "transformers_js", kind) for kind in ("fp32", precision))
    assert second.manifest.digest == first.manifest.digest and second.manifest.precision == precision
    sizes = [model.manifest.graphs["clip_text"].size_bytes for model in (first, second)]
    assert sizes[1] < share * sizes[0]
    with Reco.open(whole, threads=1) as one, Reco.open(smaller, threads=1) as other:
        assert (one.encoder.texts(["a fox"]) * other.encoder.texts(["a fox"])).sum() > 0.98


def test_a_published_file_of_the_precision_is_taken(js: Path, tmp_path: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for name in ("vision_model", "text_model"):
        half = convert_float_to_float16(onnx.load(js / "onnx" / f"{name}.onnx"), keep_io_types=False)
        onnx.save(half, js / "onnx" / f"{name}_fp16.onnx")
    whole, half = add(js, tmp_path / "whole").manifest, add(js, tmp_path / "half", precision="fp16").manifest
    assert half.digest != whole.digest
    with Reco.open(tmp_path / "whole", threads=1) as one, Reco.open(tmp_path / "half", threads=1) as other:
        assert (one.encoder.images(sample_images(2)) * other.encoder.images(sample_images(2))).sum(1).min() > 0.999


def test_both_towers_get_the_precision_however_their_files_are_named(js: Path, tmp_path: Path) -> None:
    for name, suffix in (("vision_model", "_quantized"), ("text_model", "_int8")):
        path = js / "onnx" / f"{name}{suffix}.onnx"
        shutil.copyfile(js / "onnx" / f"{name}.onnx", path)
        precision_module.to_precision(path, "int8")
    assert add(js, tmp_path / "published", precision="int8").manifest.precision == "int8"
    add(js, tmp_path / "given", precision="int8", image=js / "onnx" / "vision_model.onnx")
    for out in ("published", "given"):
        for name in ("clip_image", "clip_text"):
            nodes = onnx.load(tmp_path / out / name / "1" / "model.onnx").graph.node
            assert "MatMulInteger" in {node.op_type for node in nodes}, (out, name)


@pytest.mark.parametrize("named", [True, False])
def test_a_published_file_with_weights_of_eight_bits_runs_by_exact_products(
    named: bool, js: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On processors without VNNI sums of such products overflow: least cosines of 0.96 were seen."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    paths = {name: js / "onnx" / f"{name}_int8.onnx" for name in ("vision_model", "text_model")}
    for name, path in paths.items():
        quantize_dynamic(
            js / "onnx" / f"{name}.onnx", path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"]
        )
    given = {} if named else {"image": paths["vision_model"], "text": paths["text_model"]}
    add(js, tmp_path / "whole", precision="int8", **given)
    add(js, tmp_path / "made", precision="int8", image=js / "onnx" / "vision_model.onnx")
    with pytest.raises(ArtifactError, match=r"vision_model_int8\.onnx are smaller .* by --precision int8"):
        add(js, tmp_path / "not said", image=paths["vision_model"])
    asked: list[bool] = []
    opening = OrtSession.__init__

    def watched(self: OrtSession, path: Path, settings: Settings, **more: bool) -> None:
        asked.append(more.get("whole_int8", False))
        opening(self, path, settings, **more)

    monkeypatch.setattr(OrtSession, "__init__", watched)
    for folder, provider in (("whole", "cpu"), ("made", "cpu")):
        with Reco.open(tmp_path / folder, threads=1, provider=provider) as reco:
            reco.encoder.texts(["a fox"])
    assert asked[0] and not asked[-1], asked
    assert "whole_int8" not in json.loads((tmp_path / "made" / "manifest.json").read_text())


def test_another_output_is_another_encoder(js: Path, tmp_path: Path) -> None:
    for name, output in (("vision_model", "image_embeds"), ("text_model", "text_embeds")):
        model = onnx.load(js / "onnx" / f"{name}.onnx")
        model.graph.node.append(helper.make_node("Tanh", [output], [f"{output}_features"]))
        model.graph.output.append(helper.make_tensor_value_info(f"{output}_features", TensorProto.FLOAT, ["b", 24]))
        onnx.save(model, js / "onnx" / f"{name}.onnx")
    told = add(js, tmp_path / "told").manifest
    chosen = {"image_output": "image_embeds_features", "text_output": "text_embeds_features"}
    other = add(js, tmp_path / "other", **chosen).manifest
    assert other.digest != told.digest
    same = add(js, tmp_path / "same", image_output="image_embeds", text_output="text_embeds").manifest
    assert same.digest == told.digest


def test_padding_in_the_tokenizers_file_changes_no_vector(written: Written, added: Added, tmp_path: Path) -> None:
    source = written("Chinese-CLIP", "transformers_js")
    padded = Path(shutil.copytree(source, tmp_path / "padded"))
    tokenizer = tokenizers.Tokenizer.from_file(str(padded / "tokenizer.json"))
    tokenizer.enable_padding(length=52, pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(padded / "tokenizer.json"))
    one, two = added("Chinese-CLIP", "transformers_js")[0].manifest, add(padded, tmp_path / "two").manifest
    assert two.digest == one.digest and two.text == one.text


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("preprocessor_config.json", {"rescale_factor": None}),
        ("preprocessor_config.json", {"image_mean": ["a", "b", "c"]}),
        ("tokenizer_config.json", {"padding_side": "middle"}),
        ("config.json", {"model_cfg": 3}),
    ],
)
def test_values_that_cannot_be_one_name_their_file(name: str, values: dict[str, Any], js: Path, tmp_path: Path) -> None:
    path = js / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ConfigError, match=rf"{name}.*holds a value that cannot be read"):
        add(js, tmp_path / "out")


def test_a_length_that_holds_no_word_is_refused(js: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"texts of 2 tokens hold no word.*--context-length"):
        add(js, tmp_path / "out", context_length=2)


def test_weights_in_files_of_their_own_are_read(js: Path, added: Added, tmp_path: Path) -> None:
    before, first = added("CLIP", "transformers_js")
    path = js / "onnx" / "text_model.onnx"
    model = onnx.load(path)
    path.unlink()
    onnx.save(model, path, save_as_external_data=True, location="text_model.onnx_data", size_threshold=64)
    np.testing.assert_allclose(before.parities[1].least_cosine, add(js, tmp_path / "two").parities[1].least_cosine)
    with Reco.open(first, threads=1) as one, Reco.open(tmp_path / "two", threads=1) as two:
        np.testing.assert_array_equal(two.encoder.texts(["a red fox"]), one.encoder.texts(["a red fox"]))
    (js / "onnx" / "text_model.onnx_data").unlink()
    with pytest.raises(ArtifactError, match=r"text_model\.onnx_data is missing.*Fetch both"):
        add(js, tmp_path / "three")


@pytest.mark.parametrize(
    ("layout", "precision"),
    [("optimum", "fp32"), ("transformers_js", "fp32"), ("transformers_js", "fp16"), ("optimum", "int8")],
)
def test_large_towers_get_a_second_file(
    layout: str, precision: str, written: Written, added: Added, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, first = added("CLIP", layout, precision)
    for write in (graph_file.write_graph, precision_module.to_precision):
        monkeypatch.setattr(write, "__defaults__", (*(write.__defaults__ or ())[:-1], 1000))
    two = add(written("CLIP", layout), tmp_path / "two", precision=precision)
    for name in ("clip_image", "clip_text"):
        assert one.manifest.graphs[name].weights is None and two.manifest.graphs[name].weights is not None
    images, texts = sample_images(2), ["a red fox", "snow"]
    with Reco.open(first, threads=1) as whole, Reco.open(tmp_path / "two", threads=1) as split:
        np.testing.assert_array_equal(split.encoder.texts(texts), whole.encoder.texts(texts))
        np.testing.assert_array_equal(split.encoder.images(images), whole.encoder.images(images))
        assert split.manifest.fingerprint == whole.manifest.fingerprint


def settings(folder: Path, name: str, **values: Any) -> None:
    """Change a file of settings; None takes a field out."""
    path = folder / name
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def change(path: Path, how: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    how(model)
    onnx.save(model, path)


def kill_input(model: onnx.ModelProto) -> None:
    """Multiply pixels by zero."""
    name = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["dead" if one == name else one for one in node.input]
    model.graph.initializer.append(helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]))
    model.graph.node.insert(0, helper.make_node("Mul", [name, "zero"], ["dead"]))


def cut_input(model: onnx.ModelProto) -> None:
    """Let the vector be a constant."""
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["loose" if one == output else one for one in node.output]
    value = helper.make_tensor("constant", TensorProto.FLOAT, [1, 24], [1.0] * 24)
    model.graph.initializer.append(value)
    model.graph.node.append(helper.make_node("Identity", ["constant"], [output]))


def widen(model: onnx.ModelProto) -> None:
    """Double the dimension."""
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["half" if one == output else one for one in node.output]
    model.graph.node.append(helper.make_node("Concat", ["half", "half"], [output], axis=1))
    del model.graph.output[0].type.tensor_type.shape.dim[1:]
    model.graph.output[0].type.tensor_type.shape.dim.add()


def poison(model: onnx.ModelProto) -> None:
    weights = next(one for one in model.graph.initializer if len(one.dims) == 2)
    values = onnx.numpy_helper.to_array(weights).copy()
    values[0] = np.nan
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))


def end_in_states(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "last_hidden_state"
    shape = model.graph.output[0].type.tensor_type.shape
    shape.dim.add()
    for node in model.graph.node:
        node.output[:] = ["last_hidden_state" if one == "text_embeds" else one for one in node.output]


def other_vocabulary(js: Path) -> None:
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(js / "tokenizer.json"))
    backend.add_tokens([f"word{number}" for number in range(10)])
    backend.save(str(js / "tokenizer.json"))


def two_models(js: Path) -> None:
    for part, name in (("visual", "vision_model"), ("textual", "text_model")):
        (js / part).mkdir()
        shutil.copy(js / "onnx" / f"{name}.onnx", js / part / "model.onnx")


IMAGE, TEXT = Path("onnx", "vision_model.onnx"), Path("onnx", "text_model.onnx")
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "dead input": (lambda js: change(js / IMAGE, kill_input), "pixel_values is a dead input.*--image"),
    "input not used": (lambda js: change(js / TEXT, cut_input), "depends on no input of token ids.*input_ids is dead"),
    "two dimensions": (lambda js: change(js / IMAGE, widen), "two dimensions: .* has 48.* has 24"),
    "NaN": (lambda js: change(js / IMAGE, poison), "NaN or infinity for .* of 48.*damaged"),
    "states": (lambda js: change(js / TEXT, end_in_states), "states of all tokens.*text_embeds"),
    "another vocabulary": (other_vocabulary, "another vocabulary: its largest id is 4,105.*4,096 rows.*--tokenizer"),
    "two models": (two_models, "holds two models, onnx/vision_model.onnx and visual/model.onnx: choose by --image"),
    "no tokenizer": (lambda js: (js / "tokenizer.json").unlink(), "no tokenizer.json: give it by --tokenizer"),
    "no graph": (lambda js: shutil.rmtree(js / "onnx"), "none of the layouts.*it has no ONNX graph"),
    "one graph": (lambda js: (js / IMAGE).unlink(), "its graphs are onnx/text_model.onnx: choose by --image"),
    "damaged graph": (lambda js: (js / TEXT).write_bytes(b"no graph"), "cannot be read as an ONNX graph"),
    "damaged settings": (lambda js: (js / "config.json").write_text("{"), "config.json cannot be read"),
    "a list of settings": (lambda js: (js / "config.json").write_text("[]"), "no settings, but a list"),
    "damaged tokenizer": (lambda js: (js / "tokenizer.json").write_text("{}"), "no file of the tokenizers library"),
    "other size": (
        lambda js: settings(js, "preprocessor_config.json", size={"shortest_edge": 40}, crop_size=40),
        r"takes pictures of \(32, 32\).*makes \(40, 40\).*--preprocess",
    ),
    "crop": (lambda js: settings(js, "preprocessor_config.json", crop_size=24), "then cutting 24 out"),
    "no crop": (lambda js: settings(js, "preprocessor_config.json", do_center_crop=False), "set crop_size"),
    "interpolation": (lambda js: settings(js, "preprocessor_config.json", resample=1), "resample 1 is not supported"),
    "mean": (lambda js: settings(js, "preprocessor_config.json", image_mean=[0.5]), "one number for each"),
    "patches": (lambda js: settings(js, "preprocessor_config.json", max_num_patches=256), "NaFlex"),
    "pad token": (lambda js: settings(js, "tokenizer_config.json", pad_token="<none>"), "--pad-token"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_and_nothing_is_written(name: str, js: Path, tmp_path: Path) -> None:
    spoil, words = BAD[name]
    spoil(js)
    with pytest.raises(RecoError, match=words):
        add(js, tmp_path / "out" / "model")
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_no_length_is_asked_for(js: Path, tmp_path: Path) -> None:
    settings(js, "tokenizer_config.json", model_max_length=None)
    settings(js, "config.json", text_config=None)
    with pytest.raises(ConfigError, match="--context-length"):
        add(js, tmp_path / "out")
    assert add(js, tmp_path / "out", context_length=32).manifest.text.context_length == 32


def test_a_hub_that_is_not_reached_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", fail)
    with pytest.raises(DataError, match=r"org/name \(ConnectionError\).*hf download org/name --local-dir"):
        add("hf://org/name", tmp_path / "out")
    with pytest.raises(ConfigError, match="neither a folder here nor a repository"):
        add("nothing here", tmp_path / "out")


def test_a_repository_is_read_file_by_file(js: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    fetched: list[str] = []

    def fetch(repository: str, name: str, revision: str | None = None) -> str:
        fetched.append(name)
        return str(js / name)

    names = [path.relative_to(js).as_posix() for path in js.rglob("*") if path.is_file()]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: [*names, "model.safetensors"])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert add("org/name", tmp_path / "out").manifest.name == "name"
    assert "model.safetensors" not in fetched and "onnx/vision_model.onnx" in fetched


def test_the_step_equals_numpy_for_any_dimension(tmp_path: Path) -> None:
    for dimension in (1, 24, 1152):
        onnx.checker.check_model(make_step(dimension), full_check=True)
        onnx.save(make_step(dimension), tmp_path / "step.onnx")
        given = step_inputs(dimension, 16, seed=dimension)
        found = OrtSession(tmp_path / "step.onnx", CPU).run(given)
        for name, expected in zip(("refined", "strength"), step(**given), strict=True):
            np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "LA", "CMYK"])
def test_pixels_are_those_of_transformers_own_transform_in_pil(mode: str, js: Path, tmp_path: Path) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from reco_plugin.preprocess import images_to_array
    from reco_plugin.towers.pixels import read_pixels
    from reco_plugin.towers.source import read_json

    path = js / "preprocessor_config.json"
    pixels = read_pixels(read_json(path), path)
    theirs = CLIPImageProcessorPil(**json.loads(path.read_text()))
    for picture in (*sample_images(6), Image.radial_gradient("L").resize((33, 76))):
        image = picture.convert("RGB").convert(mode)
        mean, std = pixels.image.mean, pixels.image.std
        ours = ((images_to_array([image], pixels.image)[0] / np.float32(255) - mean) / std).transpose(2, 0, 1)
        np.testing.assert_allclose(ours, theirs(image)["pixel_values"][0], atol=1e-5)


def test_the_command_shows_what_was_checked(js: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["model", "add", str(js), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "js: transformers.js, 24-d" in done.output and "clip_image" in done.output and "--template" in done.output
    again = run(app, ["model", "add", str(js), "--out", str(tmp_path / "out"), "--template", "{}", "--json"])
    assert json.loads(again.stdout)["dimension"] == 24
    assert Artifact.load(tmp_path / "out").manifest.templates == ("{}",)
    (js / "tokenizer.json").unlink()
    failed = run(app, ["model", "add", str(js), "--out", str(tmp_path / "out")])
    assert failed.exit_code == 1 and "error: " in failed.output and "--tokenizer" in failed.output
    assert Artifact.load(tmp_path / "out").manifest.templates == ("{}",)  # the older one stays
