"""Model folders of small encoders of every shape: whole or not at all, and equal to torch."""

from __future__ import annotations

import copy
import gzip
import json
import logging
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
import torch
from google.protobuf import text_format
from small_clip import DIMENSION, VISION, VIT
from tritonclient.grpc import model_config_pb2

from reco_plugin import Reco
from reco_plugin.artifact import GRAPHS, Artifact, Policy
from reco_plugin.config import Settings
from reco_plugin.errors import ArtifactError, ConfigError
from reco_plugin.files import weights_file
from reco_plugin.fuse import GraphFuser
from reco_plugin.sessions.ort import OrtSession
from reco_plugin.train import export as export_module
from reco_plugin.train.encoder import FrozenClip, load_frozen
from reco_plugin.train.export import Card, export
from reco_plugin.train.loop import Fusions, TorchFuser
from reco_plugin.train.model import FusionConfig
from reco_plugin.train.parity import BOUNDS, COUNT, SAMPLE_TEXTS, Parity, sample_images
from reco_plugin.train.precision import to_precision
from reco_plugin.train.recipe import Serving
from reco_plugin.types import MODALITIES, FuserName, Modality, Neighbours

pytestmark = pytest.mark.xdist_group("export")  # its first export takes eight seconds longer, in each process
TEXT = {"context_length": 20, "vocab_size": 4096, "width": 32, "heads": 2, "layers": 1}
CANONICAL = {"tokenizer_kwargs": {"clean": "canonicalize"}}
MODELS: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "resnet": {
        "embed_dim": DIMENSION,  # of the vit, whose fusions it shares
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64},
        "text_cfg": TEXT,
    },
    "custom-text": {"embed_dim": DIMENSION, "custom_text": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "siglip": {
        "embed_dim": DIMENSION,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": VISION | {"no_ln_pre": True, "pool_type": "avg"},
        "text_cfg": TEXT | {"context_length": 16, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
        | CANONICAL,
    },
}  # fmt: skip
PREPROCESS = {"siglip": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}}
DYNAMIC = {"vit", "resnet", "custom-text"}
FUSER: dict[str, FuserName] = {"vit": "paper", "resnet": "paper", "custom-text": "mean"}
"""Fusions beside the closed form; the others have none."""
DEFAULT: dict[str, FuserName] = {"resnet": "paper", "custom-text": "mean"}
POLICY = {"custom-text": Policy(k=3)}
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
    logged: int

    @property
    def graphs(self) -> list[str]:
        """Names of what was exported."""
        return [*GRAPHS, *(f"{self.fusions.config.fuser}_{side}" for side in MODALITIES if self.fusions)]

    def run(self, graph: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(OrtSession(self.folder / graph / "1" / "model.onnx", CPU).run(inputs))


def fusions_of(fuser: str, dimension: int) -> Fusions:
    """Far from any start, so that each part of the layer does something."""
    torch.manual_seed(3)
    fusions = Fusions(FusionConfig(fuser, dimension, heads=4, hidden=48))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in fusions.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return fusions.eval()


class Counting(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, write_encoder: Callable[..., str]) -> Callable[[str], Exported]:
    """Each model is exported once, with warnings as errors."""
    done: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in done:
            root = tmp_path_factory.mktemp(name)
            clip = load_frozen(write_encoder(root / "clip", MODELS[name], preprocess=PREPROCESS.get(name)))
            fusions = fusions_of(FUSER[name], clip.dimension) if name in FUSER else None
            handler = Counting()
            logging.getLogger().addHandler(handler)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    default = DEFAULT.get(name, "reco")
                    card = Card(POLICY.get(name, Policy()), default, trained_on="nothing", licenses=("none",))
                    parities = export(clip, fusions, root / "out", card=card)
            finally:
                logging.getLogger().removeHandler(handler)
            done[name] = Exported(clip, fusions, root / "out", parities, len(handler.records))
        return done[name]

    return get


def ragged(dimension: int, batch: int, k: int) -> dict[str, np.ndarray]:
    """Neighbours of which some are absent and some distrusted; the last row has none where there are several rows."""
    rng = np.random.default_rng(batch * 100 + k)

    def unit(*shape: int) -> np.ndarray:
        x = rng.normal(size=shape)
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)

    trust = rng.choice([0.0, 0.2, 1.0], size=(batch, k)).astype(np.float32)
    trust[0, 0] = 1.0
    if batch > 1:
        trust[-1] = 0.0
    similarity = rng.uniform(0, 1, size=(batch, k)).astype(np.float32)
    return {"query": unit(batch, dimension), "neighbours": unit(batch, k, dimension), "similarity": similarity} | {
        "trust": trust
    }


@pytest.mark.parametrize("name", MODELS)
def test_the_folder_is_whole(name: str, exported: Callable[[str], Exported]) -> None:
    made = exported(name)
    artifact = Artifact.load(made.folder)
    artifact.verify()
    manifest = artifact.manifest
    assert (manifest.digest, manifest.dimension, manifest.precision) == (made.clip.digest, made.clip.dimension, "fp32")
    assert manifest.text.dynamic is (name in DYNAMIC)
    assert manifest.text.context_length == MODELS[name]["text_cfg"]["context_length"]
    assert manifest.image.size == (MODELS[name]["vision_cfg"]["image_size"],) * 2
    assert manifest.fusion.fuser == DEFAULT.get(name, "reco") and manifest.fusion.trained_on == "nothing"
    assert manifest.fusers == ("reco", FUSER[name]) if name in FUSER else ("reco",)
    assert manifest.fusion.config.get("fuser") == FUSER.get(name)
    assert list(manifest.graphs) == [parity.graph for parity in made.parities] == made.graphs
    assert manifest.text.buckets == manifest.text.lengths
    for parity in made.parities:
        assert parity.least_cosine >= BOUNDS["fp32"].cosine and parity.overlap >= BOUNDS["fp32"].overlap
        assert parity.inputs >= COUNT and parity.size_bytes == manifest.graphs[parity.graph].size_bytes
        assert 0 <= parity.largest_difference < 1e-4
    assert sorted(p.name for p in made.folder.iterdir()) == sorted([*made.graphs, "manifest.json", "tokenizer.json"])
    assert [p.name for p in made.folder.parent.iterdir() if p.name.startswith(".")] == []  # no staging is left
    assert (made.folder.stat().st_mode & 0o777) == 0o755


@pytest.mark.parametrize("name", MODELS)
def test_the_export_is_silent(name: str, exported: Callable[[str], Exported]) -> None:
    assert exported(name).logged == 0


@pytest.mark.parametrize("name", MODELS)
def test_the_exported_encoder_equals_torch(name: str, exported: Callable[[str], Exported]) -> None:
    made = exported(name)
    images, texts = sample_images(7), list(SAMPLE_TEXTS)
    with Reco.open(made.folder, threads=1) as reco:
        for batch in (1, 7):
            theirs = made.clip.images(images[:batch])
            np.testing.assert_allclose(reco.encoder.images(images[:batch]), theirs, atol=1e-5)
            theirs = made.clip.texts(texts[:batch])
            np.testing.assert_allclose(reco.encoder.texts(texts[:batch]), theirs, atol=1e-5)
        many = np.concatenate([reco.encoder.texts([text]) for text in texts])  # each cut to a length of its own
        np.testing.assert_allclose(many, made.clip.texts(texts), atol=1e-5)
    assert np.linalg.matrix_rank(many[:4]) == 4  # the vectors differ


@pytest.mark.parametrize("name", MODELS)
def test_towers_equal_open_clips_own_functions(name: str, exported: Callable[[str], Exported]) -> None:
    clip = exported(name).clip
    tokens = torch.randint(1, 4000, (3, clip.text.context_length), dtype=torch.int32)
    tokens[:, 5], tokens[:, 6:] = 4095, 0
    pixels = torch.randint(0, 256, (3, *clip.image.size, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(x)[:, None, None] for x in (clip.image.mean, clip.image.std))
    with torch.no_grad():
        text = clip.model.encode_text(tokens.long(), normalize=True)  # type: ignore[operator]
        image = clip.model.encode_image((pixels.permute(0, 3, 1, 2) / 255 - mean) / std, normalize=True)  # type: ignore[operator]
        torch.testing.assert_close(clip.tower("text")(tokens), text, atol=1e-5, rtol=0)
        torch.testing.assert_close(clip.tower("image")(pixels), image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(DYNAMIC))
def test_cut_tokens_give_the_same_vectors(name: str, exported: Callable[[str], Exported]) -> None:
    made = exported(name)
    length = made.clip.text.context_length
    tokens = np.zeros((2, length), np.int32)
    tokens[:, :6] = [[4094, 7, 1000, 22, 9, 4095], [4094, 2000, 4095, 0, 0, 0]]
    whole = made.run("clip_text", tokens=tokens)["features"]
    for shorter in {6, 7, 13, 16, length - 1}:
        cut = np.ascontiguousarray(tokens[:, :shorter])
        np.testing.assert_allclose(made.run("clip_text", tokens=cut)["features"], whole, atol=1e-6)
    assert np.abs(made.run("clip_text", tokens=np.ascontiguousarray(tokens[:, :4]))["features"] - whole).max() > 1e-3


@pytest.mark.parametrize("name", FUSER)
@pytest.mark.parametrize(("batch", "k"), [(1, 1), (1, 5), (7, 3), (7, 11)])
def test_fusion_graphs_equal_torch(name: str, batch: int, k: int, exported: Callable[[str], Exported]) -> None:
    made = exported(name)
    inputs = ragged(made.clip.dimension, batch, k)
    assert made.fusions is not None
    for side in MODALITIES:
        found = made.run(f"{FUSER[name]}_{side}", **inputs)
        with torch.no_grad():
            refined, weights = made.fusions.sides[side](*map(torch.from_numpy, inputs.values()))
        np.testing.assert_allclose(found["refined"], refined.numpy(), atol=1e-5)
        np.testing.assert_allclose(found["weights"], weights.numpy(), atol=1e-5)
        if batch > 1:
            np.testing.assert_array_equal(found["refined"][-1], inputs["query"][-1])


@pytest.mark.parametrize("name", MODELS)
def test_every_graph_has_the_ports_that_its_triton_configuration_names(
    name: str, exported: Callable[[str], Exported]
) -> None:
    made = exported(name)
    types = {"tensor(float)": "TYPE_FP32", "tensor(uint8)": "TYPE_UINT8", "tensor(int32)": "TYPE_INT32"}
    for graph in made.graphs:
        session = ort.InferenceSession(made.folder / graph / "1" / "model.onnx")
        config = text_format.Parse(
            (made.folder / graph / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
        )  # Triton's own schema: an unknown field or a wrong type is an error
        for told, ports in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
            assert all(isinstance(port.shape[0], str) for port in ports)  # any batch size
            shapes = [[-1 if isinstance(dim, str) else dim for dim in port.shape[1:]] for port in ports]
            assert [(port.name, types[port.type], shape) for port, shape in zip(ports, shapes, strict=True)] == [
                (port.name, model_config_pb2.DataType.Name(port.data_type), list(port.dims)) for port in told
            ]
        for warm in config.model_warmup:  # what Triton runs before it is ready must run
            arrays = {
                name: np.zeros((warm.batch_size, *value.dims), _NUMPY[value.data_type])
                for name, value in warm.inputs.items()
            }
            assert all(len(found) == warm.batch_size for found in session.run(None, arrays))
        assert config.model_warmup


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_fuser_of_the_folder_equals_torch_and_the_graph_keeps_all_inputs(
    modality: Modality, exported: Callable[[str], Exported]
) -> None:
    made = exported("custom-text")
    session = ort.InferenceSession(made.folder / f"mean_{modality}" / "1" / "model.onnx")
    assert [port.name for port in session.get_inputs()] == ["query", "neighbours", "similarity", "trust"]
    inputs = ragged(DIMENSION, 7, 5)
    found = Neighbours([[]] * 7, inputs["similarity"], inputs["neighbours"], inputs["trust"] > 0)
    assert made.fusions is not None
    graph, torch_ = GraphFuser(Artifact.load(made.folder), CPU, "mean"), TorchFuser(made.fusions)
    assert graph.name == torch_.name == "mean"
    ours, theirs = (fuser.fuse(modality, inputs["query"], found, inputs["trust"]) for fuser in (graph, torch_))
    np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=1e-6)
    np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-6)


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.65), ("int8", 0.9)])
@pytest.mark.parametrize("name", ["clip_image", "clip_text"])
def test_smaller_weights_stay_near(
    name: str, precision: Any, share: float, exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    made = exported("vit")
    source, target = made.folder / name / "1" / "model.onnx", tmp_path / "model.onnx"
    shutil.copy(source, target)
    to_precision(target, precision)
    inputs: dict[str, np.ndarray] = {"tokens": np.random.default_rng(0).integers(1, 4096, (7, 20)).astype(np.int32)}
    if name == "clip_image":
        inputs = {"pixels": np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3)).astype(np.uint8)}
    exact, small = made.run(name, **inputs)["features"], OrtSession(target, CPU).run(inputs)["features"]
    assert (exact * small).sum(1).min() >= BOUNDS[precision].cosine and not np.array_equal(exact, small)
    assert small.dtype == np.float32 and [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    types = {tensor.data_type for tensor in onnx.load(str(target)).graph.initializer if len(tensor.dims) == 2}
    assert (onnx.TensorProto.INT8 if precision == "int8" else onnx.TensorProto.FLOAT16) in types
    if name == "clip_text" and precision == "fp16":  # most of the image graph of so small a model is no weights
        assert target.stat().st_size < share * source.stat().st_size


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_fusions_stay_near(precision: Any, exported: Callable[[str], Exported], tmp_path: Path) -> None:
    made = exported("vit")
    for side in MODALITIES:
        target = tmp_path / f"{side}.onnx"
        shutil.copy(made.folder / f"paper_{side}" / "1" / "model.onnx", target)
        to_precision(target, precision)
        inputs = ragged(DIMENSION, 7, 4)
        exact, small = made.run(f"paper_{side}", **inputs), OrtSession(target, CPU).run(inputs)
        assert (exact["refined"] * small["refined"]).sum(1).min() >= BOUNDS[precision].cosine
        np.testing.assert_allclose(small["weights"], exact["weights"], atol=0.1)


@pytest.mark.parametrize("accelerator", ["cuda", "tensorrt"])
def test_int8_on_a_gpu_is_refused(accelerator: Any, exported: Callable[[str], Exported], tmp_path: Path) -> None:
    made = exported("vit")
    with pytest.raises(ConfigError, match=f"CPUs only, so accelerator '{accelerator}' .* use fp16"):
        export(made.clip, made.fusions, tmp_path / "m", precision="int8", serving=Serving(accelerator=accelerator))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_weights_above_the_limit_lie_in_a_second_file_and_give_the_same_vectors(
    precision: Any, exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    made = exported("vit")
    parities = export(made.clip, None, tmp_path / "two", precision=precision, limit=10_000)
    export(made.clip, None, tmp_path / "one", precision=precision)
    artifact = Artifact.load(tmp_path / "two")
    artifact.verify()
    assert artifact.manifest.digest == made.clip.digest and artifact.manifest.precision == precision
    for parity in parities:
        file = artifact.manifest.graphs[parity.graph]
        assert (file.weights is not None) is parity.graph.startswith("clip_")
        assert parity.size_bytes == file.size_bytes + (file.weights.size_bytes if file.weights else 0)
    for graph in ("clip_image", "clip_text"):
        version = tmp_path / "two" / graph / "1"
        assert sorted(path.name for path in version.iterdir()) == ["model.onnx", "model.onnx.data"]
        assert weights_file(version / "model.onnx").stat().st_size > 10_000
    images, texts = sample_images(3), list(SAMPLE_TEXTS)
    with Reco.open(tmp_path / "two", threads=1) as two, Reco.open(tmp_path / "one", threads=1) as one:
        np.testing.assert_array_equal(two.encoder.images(images), one.encoder.images(images))
        np.testing.assert_array_equal(two.encoder.texts(texts), one.encoder.texts(texts))
        assert two.manifest.fingerprint == one.manifest.fingerprint


def test_int8_from_end_to_end_says_so_and_keeps_the_fingerprint(
    exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    made = exported("vit")
    handler = Counting()
    logging.getLogger().addHandler(handler)
    try:
        parities = export(made.clip, None, tmp_path / "m", precision="int8")
    finally:
        logging.getLogger().removeHandler(handler)
    assert handler.records == [] and logging.root.manager.disable == 0
    manifest = Artifact.load(tmp_path / "m").manifest
    assert manifest.precision == "int8" and manifest.digest == Artifact.load(made.folder).manifest.digest
    assert all(BOUNDS["int8"].cosine <= parity.least_cosine for parity in parities)


def test_other_inputs_than_the_samples_are_encoded_alike(exported: Callable[[str], Exported]) -> None:
    made = exported("custom-text")
    with Reco.open(made.folder, threads=1) as reco:
        assert reco.manifest.policy.k == 3
        images, texts = sample_images(5), ["a much longer caption than that one of a single animal"] * 3
        np.testing.assert_allclose(reco.encoder.images(images), made.clip.images(images), atol=1e-5)
        np.testing.assert_allclose(reco.encoder.texts(texts), made.clip.texts(texts), atol=1e-5)


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
        from onnx import numpy_helper

        model = onnx.load(str(path))
        for tensor in model.graph.initializer:
            if len(tensor.dims) >= 2:
                array = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(array[::-1].copy(), tensor.name))
        onnx.save(model, str(path))

    monkeypatch.setattr(export_module, "to_precision", damage)
    with pytest.raises(ArtifactError, match=r"clip_image in fp32 differs.*least cosine .*overlap .*Nothing was writ"):
        export(made.clip, made.fusions, out)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert [p.name for p in out.parent.iterdir()] == (["m"] if existing else [])


def test_graphs_with_nan_are_refused(
    exported: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = exported("vit")
    clip = copy.deepcopy(made.clip)
    with torch.no_grad():
        clip.model.visual.conv1.weight.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(ArtifactError, match="least cosine nan"):
        export(clip, made.fusions, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_an_older_model_is_replaced_whole_and_anything_else_is_refused(
    exported: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = exported("vit")

    def written(case: Any, path: Path, *_: Any) -> Parity:  # not to wait for exports that are tested above
        shutil.copytree(made.folder / case.spec.name, path.parents[1])
        return Parity(case.spec.name, 48, 1.0, 1.0, 0.0, 0)

    monkeypatch.setattr(export_module, "export_graph", written)
    out = tmp_path / "m"
    shutil.copytree(made.folder, out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"format": 0, "gone": 1}))
    (out / "clip_image" / "2").mkdir()
    export(made.clip, made.fusions, out)
    Artifact.load(out).verify()
    assert not (out / "clip_image" / "2").exists() and [p.name for p in tmp_path.iterdir()] == ["m"]
    (tmp_path / "empty").mkdir()
    export(made.clip, made.fusions, tmp_path / "empty")
    Artifact.load(tmp_path / "empty")

    for name, content in {"notes.txt": "mine", "manifest.json": '{"name": "my web page", "icons": []}'}.items():
        foreign = tmp_path / f"foreign-{name}"
        foreign.mkdir()
        (foreign / name).write_text(content)
        with pytest.raises(ArtifactError, match="no model folder"):
            export(made.clip, made.fusions, foreign)
        assert (foreign / name).read_text() == content and len(list(foreign.iterdir())) == 1
    with pytest.raises(ArtifactError, match="no model folder"):
        export(made.clip, made.fusions, tmp_path / "foreign-notes.txt" / "notes.txt")


def test_the_fingerprint_covers_weights_preprocessing_and_tokenizer(
    tmp_path: Path, write_encoder: Callable[..., str]
) -> None:
    config = MODELS["vit"]
    cleaned = copy.deepcopy(config)
    cleaned["text_cfg"] |= CANONICAL
    swapped = write_encoder(tmp_path / "merges", config)
    merges = tmp_path / "merges" / "bpe.txt.gz"
    lines = gzip.decompress(merges.read_bytes()).decode().split("\n")
    lines[-2:] = lines[:-3:-1]  # the last two merges in the other order
    merges.write_bytes(gzip.compress("\n".join(lines).encode()))
    same, again = (load_frozen(write_encoder(tmp_path / name, config)).digest for name in ("a", "b"))
    others = [
        load_frozen(write_encoder(tmp_path / "weights", config, seed=1)).digest,
        load_frozen(write_encoder(tmp_path / "pixels", config, preprocess={"mean": [0.5, 0.5, 0.5]})).digest,
        load_frozen(write_encoder(tmp_path / "resize", config, preprocess={"interpolation": "bilinear"})).digest,
        load_frozen(write_encoder(tmp_path / "text", cleaned)).digest,
        load_frozen(swapped).digest,
    ]
    assert same == again and len({same, *others}) == 6


def test_models_without_weights_are_refused(tmp_path: Path, write_encoder: Callable[..., str]) -> None:
    empty = write_encoder(tmp_path / "empty", MODELS["vit"], weights=False)
    for name in (empty, "RN50", "local-dir:/nowhere", "no-such-model"):
        with pytest.raises(ConfigError, match=name):
            load_frozen(name, None)
    with pytest.raises(ConfigError, match="no_such_tag"):
        load_frozen("RN50", "no_such_tag")
    assert load_frozen(empty, random_weights=True).dimension == DIMENSION
