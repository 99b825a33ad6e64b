"""Model folders of small encoders of every shape: whole or not at all, and equal to torch."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf import text_format
from onnx import numpy_helper
from small_clip import DIMENSION, VISION, VIT
from tritonclient.grpc import model_config_pb2
from two_files import split_graphs

from reco_plugin import Reco
from reco_plugin.encoders.model_folder import GRAPHS, Artifact, FusionInfo, Policy
from reco_plugin.encoders.runtimes.onnxruntime import OrtSession
from reco_plugin.errors import ArtifactError, ConfigError
from reco_plugin.export.export_options import ExportOptions, Precision, Recipe, Serving
from reco_plugin.export.folder import Card
from reco_plugin.export.parity import BOUNDS, COUNT, SAMPLE_TEXTS, Parity, sample_images
from reco_plugin.fusion.base import GraphFuser
from reco_plugin.settings import Settings
from reco_plugin.types import MODALITIES, Neighbours

pytest.importorskip("torch")
import torch

from reco_plugin.export import onnx_export as export_module
from reco_plugin.export.onnx_export import export, export_model, refit
from reco_plugin.export.open_clip import FrozenClip, load_frozen
from reco_plugin.export.train_layer import FUSION, FusionConfig, Fusions, TorchFuser, save_fusions

pytestmark = [
    pytest.mark.torch,
    pytest.mark.xdist_group("export"),
]  # its first export takes eight seconds longer, in each process
TEXT = {"context_length": 20, "vocab_size": 4096, "width": 32, "heads": 2, "layers": 1}
MODELS: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "resnet": {
        "embed_dim": DIMENSION,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64},
        "text_cfg": TEXT,
    },
    "timm": {  # as ConvNeXt, EVA02, PE Core and MobileCLIP2 have their picture's tower
        "embed_dim": DIMENSION,
        "vision_cfg": {"image_size": 64, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"}
        | {"timm_model_pretrained": False, "timm_drop": 0.0},
        "text_cfg": TEXT,
    },
    "custom-text": {"embed_dim": DIMENSION, "custom_text": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "siglip": {
        "embed_dim": DIMENSION,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": VISION | {"no_ln_pre": True, "pool_type": "avg"},
        "text_cfg": TEXT
        | {"context_length": 16, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
        | {"tokenizer_kwargs": {"clean": "canonicalize"}},
    },
}
PREPROCESS = {"siglip": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}}
CPU = Settings(provider="cpu", threads=1)
_NUMPY = {
    model_config_pb2.TYPE_UINT8: np.uint8,
    model_config_pb2.TYPE_INT32: np.int32,
    model_config_pb2.TYPE_FP32: np.float32,
}


@dataclass(frozen=True)
class Exported:
    """A model as torch runs it and the folder that was made of it."""

    clip: FrozenClip
    fusions: Fusions | None
    folder: Path
    parities: list[Parity]

    @property
    def graphs(self) -> list[str]:
        """Names of what was exported."""
        return [*GRAPHS, *(f"paper_{side}" for side in MODALITIES if self.fusions)]

    def run(self, graph: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(OrtSession(self.folder / graph / "1" / "model.onnx", CPU).run(inputs))


def fusions_of(dimension: int) -> Fusions:
    """Far from any start, so that each part of the layer does something."""
    torch.manual_seed(3)
    fusions = Fusions(FusionConfig(dimension, heads=4, hidden=48))
    with torch.no_grad():
        for parameter in fusions.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return fusions.eval()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, write_encoder: Callable[..., str]) -> Callable[[str], Exported]:
    """Each model is exported once, with warnings as errors; the first with the paper's layer."""
    done: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in done:
            root = tmp_path_factory.mktemp(name)
            clip = load_frozen(write_encoder(root / "clip", MODELS[name], preprocess=PREPROCESS.get(name)))
            fusions = fusions_of(clip.dimension) if name == "vit" else None
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                card = Card(Policy(k=3), FusionInfo(fuser="reco", trained_on="nothing"), licenses=("none",))
                done[name] = Exported(clip, fusions, root / "out", export(clip, fusions, root / "out", card=card))
        return done[name]

    return get


def ragged(dimension: int, batch: int, k: int) -> dict[str, np.ndarray]:
    """Neighbours of which some are absent; the last row has none where there are several rows."""
    rng = np.random.default_rng(batch * 100 + k)

    def unit(*shape: int) -> np.ndarray:
        x = rng.normal(size=shape)
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)

    trust = rng.choice([0.0, 0.2, 1.0], size=(batch, k)).astype(np.float32)
    trust[0, 0], trust[-1] = 1.0, trust[-1] * (batch == 1)
    similarity = rng.uniform(0, 1, size=(batch, k)).astype(np.float32)
    neighbours = unit(batch, k, dimension)
    return {"query": unit(batch, dimension), "neighbours": neighbours, "similarity": similarity, "trust": trust}


@pytest.mark.parametrize("name", MODELS)
def test_the_folder_is_whole_and_equals_torch(name: str, exported: Callable[[str], Exported]) -> None:
    made = exported(name)
    manifest = Artifact.load(made.folder).manifest
    assert (manifest.digest, manifest.dimension, manifest.precision) == (made.clip.digest, made.clip.dimension, "fp32")
    assert manifest.text.dynamic is (name != "siglip") and manifest.text.buckets == manifest.text.lengths
    assert manifest.image.size == (MODELS[name]["vision_cfg"]["image_size"],) * 2
    assert manifest.fusers == (("reco", "paper") if name == "vit" else ("reco",))
    assert (manifest.fusion.trained_on, manifest.policy.k, manifest.licenses) == ("nothing", 3, ("none",))
    assert list(manifest.graphs) == [parity.graph for parity in made.parities] == made.graphs
    for parity in made.parities:
        assert parity.least_cosine >= BOUNDS["fp32"].cosine and parity.overlap >= BOUNDS["fp32"].overlap
        assert parity.inputs >= COUNT and parity.size_bytes == manifest.graphs[parity.graph].size_bytes
    assert sorted(p.name for p in made.folder.iterdir()) == sorted([*made.graphs, "manifest.json", "tokenizer.json"])
    images, texts = sample_images(5), list(SAMPLE_TEXTS)
    with Reco.open(made.folder, threads=1) as reco:
        np.testing.assert_allclose(reco.encoder.images(images), made.clip.images(images), atol=1e-5)
        many = np.concatenate([reco.encoder.texts([text]) for text in texts])  # each cut to a length of its own
        np.testing.assert_allclose(many, made.clip.texts(texts), atol=1e-5)
    assert np.linalg.matrix_rank(many[:4]) == 4  # the vectors differ


@pytest.mark.parametrize("name", ["vit", "custom-text"])
def test_cut_tokens_give_the_same_vectors(name: str, exported: Callable[[str], Exported]) -> None:
    made = exported(name)
    tokens = np.zeros((2, made.clip.text.context_length), np.int32)
    tokens[:, :6] = [[4094, 7, 1000, 22, 9, 4095], [4094, 2000, 4095, 0, 0, 0]]
    with torch.no_grad():
        whole = made.clip.model.encode_text(torch.from_numpy(tokens).long(), normalize=True).numpy()  # type: ignore[operator]
    for shorter in (6, 13, tokens.shape[1]):
        cut = np.ascontiguousarray(tokens[:, :shorter])
        np.testing.assert_allclose(made.run("clip_text", tokens=cut)["features"], whole, atol=1e-5)
    assert np.abs(made.run("clip_text", tokens=np.ascontiguousarray(tokens[:, :4]))["features"] - whole).max() > 1e-3


@pytest.mark.parametrize(("batch", "k"), [(1, 1), (7, 11)])
def test_the_layer_of_the_folder_equals_torch(batch: int, k: int, exported: Callable[[str], Exported]) -> None:
    made, inputs = exported("vit"), ragged(DIMENSION, batch, k)
    assert made.fusions is not None
    found = Neighbours([[]] * batch, inputs["similarity"], inputs["neighbours"], inputs["trust"] > 0, inputs["trust"])
    fusers = (GraphFuser(Artifact.load(made.folder), CPU), TorchFuser(made.fusions))
    for side in MODALITIES:
        ours, theirs = (fuser.fuse(side, inputs["query"], found, inputs["trust"]) for fuser in fusers)
        np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=1e-5)
        np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-5)
        if batch > 1:
            np.testing.assert_array_equal(ours.vectors[-1], inputs["query"][-1])


@pytest.mark.parametrize("name", ["vit", "siglip"])
def test_every_graph_has_the_ports_that_its_triton_configuration_names(
    name: str, exported: Callable[[str], Exported]
) -> None:
    made = exported(name)
    types = {"tensor(float)": "TYPE_FP32", "tensor(uint8)": "TYPE_UINT8", "tensor(int32)": "TYPE_INT32"}
    for graph in made.graphs:
        session = ort.InferenceSession(made.folder / graph / "1" / "model.onnx")
        config = text_format.Parse((made.folder / graph / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        for named, ports in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
            assert all(isinstance(port.shape[0], str) for port in ports)  # any batch size
            shapes = [[-1 if isinstance(dim, str) else dim for dim in port.shape[1:]] for port in ports]
            assert [(port.name, types[port.type], shape) for port, shape in zip(ports, shapes, strict=True)] == [
                (port.name, model_config_pb2.DataType.Name(port.data_type), list(port.dims)) for port in named
            ]
        for warm in config.model_warmup:  # what Triton runs before it is ready must run
            arrays = {
                key: np.zeros((warm.batch_size, *value.dims), _NUMPY[value.data_type])
                for key, value in warm.inputs.items()
            }
            assert all(len(found) == warm.batch_size for found in session.run(None, arrays))
        assert config.model_warmup


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_weights_stay_near_in_one_file_or_two(
    precision: Precision, exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    made = exported("vit")
    parities = export(made.clip, None, tmp_path / "two", precision=precision, limit=10_000)
    export(made.clip, None, tmp_path / "one", precision=precision)
    manifest = Artifact.load(tmp_path / "two").manifest
    assert (manifest.precision, manifest.digest) == (precision, made.clip.digest)
    for parity in parities:
        file = manifest.graphs[parity.graph]
        assert file.weights is not None and parity.size_bytes == file.size_bytes + file.weights.size_bytes
        assert parity.least_cosine >= BOUNDS[precision].cosine
    with Reco.open(tmp_path / "two", threads=1) as two, Reco.open(tmp_path / "one", threads=1) as one:
        np.testing.assert_array_equal(two.encoder.images(sample_images(3)), one.encoder.images(sample_images(3)))
        exact = made.clip.texts(["a red fox"])
        assert not np.array_equal(one.encoder.texts(["a red fox"]), exact)


def test_int8_on_a_gpu_is_refused(exported: Callable[[str], Exported], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="accelerator 'cuda'"):
        export(exported("vit").clip, None, tmp_path / "m", precision="int8", serving=Serving(accelerator="cuda"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", [False, True])
def test_a_graph_that_differs_is_not_written(
    existing: bool, exported: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seam is where weights are made smaller: here it swaps the graph for that of another model."""
    made, out = exported("vit"), tmp_path / "models" / "m"
    if existing:
        shutil.copytree(made.folder, out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def damage(path: Path, *_: Any) -> None:
        model = onnx.load(str(path))
        for tensor in model.graph.initializer:
            if len(tensor.dims) >= 2:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
        onnx.save(model, str(path))

    monkeypatch.setattr(export_module, "to_precision", damage)
    with pytest.raises(ArtifactError, match="clip_image in fp32 differs"):
        export(made.clip, made.fusions, out)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert [p.name for p in out.parent.iterdir()] == (["m"] if existing else [])


def test_graphs_with_nan_are_refused(exported: Callable[[str], Exported], tmp_path: Path) -> None:
    clip = copy.deepcopy(exported("vit").clip)
    with torch.no_grad():
        clip.model.visual.conv1.weight.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(ArtifactError, match="least cosine nan"):
        export(clip, None, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def run_of(folder: Path, dimension: int = DIMENSION, encoder: str | None = None) -> Path:
    """A training run that `reco model train` might have left."""
    save_fusions(Fusions(FusionConfig(dimension)), folder / FUSION)
    recipe = {"k": 7, "source": "pairs.csv"} | ({"encoder": encoder} if encoder else {})
    (folder / Recipe.file).write_text(json.dumps(recipe))
    return folder


def test_a_training_run_brings_its_layer_and_defaults(vit: str, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", encoder=load_frozen(vit).digest)
    options = ExportOptions(model=vit, fusion=run, licenses=("MIT",), templates=("{} icon",), fuser="paper")
    export_model(options, tmp_path / "out")
    manifest = Artifact.load(tmp_path / "out").manifest
    assert (manifest.fusion.fuser, manifest.fusion.trained_on, manifest.policy.k) == ("paper", "pairs.csv", 7)
    assert manifest.fusion.config["dimension"] == DIMENSION
    assert (manifest.licenses, manifest.templates) == (("MIT",), ("{} icon",))


def test_what_does_not_fit_is_refused_before_anything_is_written(
    vit: str, tmp_path: Path, write_encoder: Callable[..., str]
) -> None:
    for options in (
        {"fuser": "paper"},
        {"templates": ("a photo",)},
        {"fusion": run_of(tmp_path / "narrow", 16)},
        {"fusion": run_of(tmp_path / "other", encoder="0123456789abcdef")},
    ):
        with pytest.raises(ConfigError):
            export_model(ExportOptions(model=vit, **options), tmp_path / "out")
    empty = write_encoder(tmp_path / "empty", MODELS["vit"], weights=False)
    with pytest.warns(UserWarning, match="RANDOM weights"):
        export_model(ExportOptions(model=empty, random_weights=True), tmp_path / "noise")
    assert not (tmp_path / "out").exists()


def test_a_refitted_folder_keeps_its_encoder(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "base")
    base = split_graphs(tmp_path / "base", "clip_image", "paper_image")
    found = refit(base, Fusions(FusionConfig(128)).eval(), tmp_path / "new", policy=Policy(k=7), trained_on="here")
    assert [parity.graph for parity in found] == ["paper_image", "paper_text"]
    made = Artifact.load(tmp_path / "new").manifest
    assert (made.fusion.fuser, made.fusion.trained_on, made.policy.k) == ("paper", "here", 7)
    assert made.graphs["paper_text"] != base.manifest.graphs["paper_text"]
    assert made.graphs["clip_image"] == base.manifest.graphs["clip_image"]
    assert made.fingerprint == base.manifest.fingerprint and made.templates == ("{}",)
    refit(base, None, tmp_path / "plain", policy=Policy(k=4), trained_on="")
    plain = Artifact.load(tmp_path / "plain").manifest
    assert (plain.fusion.fuser, plain.graphs, plain.policy.k) == ("reco", base.manifest.graphs, 4)


def test_a_damaged_base_is_refused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "base")
    base = Artifact.load(tmp_path / "base")
    with base.graph("clip_image").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x00\x01\x02")
    with pytest.raises(ArtifactError, match="clip_image"):
        refit(base, None, tmp_path / "new", policy=Policy(), trained_on="")
    assert not (tmp_path / "new").exists()
