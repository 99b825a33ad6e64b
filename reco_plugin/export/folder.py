"""Files of a model folder: tokenizer, manifest, Triton's ``config.pbtxt``, precision of graphs. Loads no torch."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..encoders.model_folder import (
    TOKENIZER,
    FusionInfo,
    Manifest,
    ModelFile,
    Policy,
    clip_graph,
    fusion_graph,
    write_manifest,
)
from ..encoders.preprocess import ImageConfig, TextConfig
from ..encoders.runtimes.triton_address import CHECKSUM, Port
from ..errors import importing
from ..files import sha256_file, weights_file
from ..types import MODALITIES, FuserName
from ..values import TEMPLATES, check_templates
from .export_options import ENGINE_CACHE, ManifestOptions, Precision, Serving

_DELAY_US = 1000  # longest time that Triton waits for a preferred batch


@dataclass(frozen=True)
class EncoderCard:
    """The entries of a manifest for the encoder."""

    name: str  # readable name of model and weights
    digest: str  # sha256 over weights, preprocessing and tokenizer
    dimension: int  # D
    image: ImageConfig
    text: TextConfig
    tokenizer_json: str  # content of ``tokenizer.json``


@dataclass(frozen=True)
class Card:
    """The other entries of a manifest."""

    policy: Policy = field(default_factory=Policy)  # default options of a refinement
    fusion: FusionInfo = field(default_factory=lambda: FusionInfo(fuser="reco"))
    templates: tuple[str, ...] = ()  # prompts of the encoder's training
    licenses: tuple[str, ...] = ()  # licences of weights and data
    matryoshka: tuple[int, ...] = ()  # shorter dimensions that the encoder was trained for

    @classmethod
    def of(cls, options: ManifestOptions, policy: Policy | None = None, fuser: FuserName = "reco") -> Card:
        """Make the card from the options of a command.

        Raises:
            ConfigError: a template has no ``{}``.
        """
        templates = check_templates(options.templates) or TEMPLATES
        fusion = FusionInfo(fuser=fuser)
        return cls(policy or Policy(), fusion, templates, options.licenses, options.matryoshka)


def write_beside(
    folder: Path,
    graphs: Iterable[str],
    encoder: EncoderCard,
    card: Card,
    precision: Precision,
    serving: Serving,
    made_with: Mapping[str, str],
) -> None:
    """Write tokenizer, manifest and Triton configurations of a folder that has its graphs."""
    (folder / TOKENIZER).write_text(encoder.tokenizer_json, encoding="utf-8")
    manifest = Manifest(
        name=encoder.name,
        digest=encoder.digest,
        dimension=encoder.dimension,
        image=encoder.image,
        text=encoder.text,
        templates=card.templates,
        matryoshka=card.matryoshka,
        fusion=card.fusion,
        policy=card.policy,
        precision=precision,
        graphs={name: ModelFile.of(graph_file(folder, name)) for name in graphs},
        tokenizer=ModelFile.of(folder / TOKENIZER),
        licenses=card.licenses,
        made_with=dict(made_with),
    )
    write_manifest(folder, manifest)
    write_configs(folder, manifest, manifest.graphs, serving)


def write_configs(folder: Path, manifest: Manifest, graphs: Iterable[str], serving: Serving) -> None:
    """Write ``config.pbtxt`` of graphs of a manifest."""
    specs = graph_specs(manifest.image, manifest.text, manifest.dimension, manifest.policy.k)
    for name in graphs:
        config = render_config(
            specs[name], serving, half=manifest.precision == "fp16", sha256=manifest.graphs[name].sha256
        )
        (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")


@dataclass(frozen=True)
class GraphSpec:
    """The ports and lengths of one graph."""

    name: str  # name of the graph's folder
    inputs: tuple[Port, ...]  # in the order of the graph
    outputs: tuple[Port, ...]
    lengths: tuple[
        int, ...
    ] = ()  # sizes of the dimensions that are -1, ascending: token lengths, or a number of neighbours
    engine: bool = True
    """Whether TensorRT compiles the graph. The fusions run on CUDA, since they take about 1 % of the time of an encoder
    and any number of neighbours."""


def graph_specs(image: ImageConfig, text: TextConfig, dimension: int, neighbours: int) -> dict[str, GraphSpec]:
    """Return all graphs that a model may have, by name. The image graph normalises pixels."""
    features = _floats(features=(dimension,))
    pixels = Port("pixels", "TYPE_UINT8", (*image.size, 3))
    tokens = Port("tokens", "TYPE_INT32", (-1 if text.dynamic else text.context_length,))
    neighbours_in = _floats(query=(dimension,), neighbours=(-1, dimension), similarity=(-1,), trust=(-1,))
    refined = _floats(refined=(dimension,), weights=(-1,))
    specs = [
        GraphSpec(clip_graph("image"), (pixels,), features),
        GraphSpec(clip_graph("text"), (tokens,), features, text.lengths if text.dynamic else ()),
        *(GraphSpec(fusion_graph(side), neighbours_in, refined, (neighbours,), engine=False) for side in MODALITIES),
    ]
    return {spec.name: spec for spec in specs}


def _floats(**dims: tuple[int, ...]) -> tuple[Port, ...]:
    return tuple(Port(name, "TYPE_FP32", size) for name, size in dims.items())


def render_config(spec: GraphSpec, how: Serving | None = None, *, half: bool = False, sha256: str | None = None) -> str:
    """Return the content of ``config.pbtxt``. KIND_AUTO runs on GPUs if there are any, else on the CPU.

    Args:
        spec: the graph.
        how: batches, queue and accelerator.
        half: whether TensorRT computes in float16.
        sha256: checksum of the graph, which a client compares with its model folder.

    Raises:
        MissingExtra: the Triton client is not installed, which has the schema.
    """
    with importing("tritonclient", "triton", "writing a model folder"):
        from google.protobuf import json_format, text_format
        from tritonclient.grpc.model_config_pb2 import ModelConfig
    how = how or Serving()
    config = {
        "backend": "onnxruntime",
        "max_batch_size": how.max_batch,
        "input": [_port(port) for port in spec.inputs],
        "output": [_port(port) for port in spec.outputs],
        "instance_group": [{"kind": "KIND_AUTO", "count": 1}],
        "dynamic_batching": {
            "preferred_batch_size": how.preferred_batches,
            "max_queue_delay_microseconds": _DELAY_US if how.preferred_batches else 0,
            "default_queue_policy": {"max_queue_size": how.max_queue},
        },
        "optimization": {"execution_accelerators": {"gpu_execution_accelerator": _accelerators(spec, how, half=half)}},
        "model_warmup": list(_warmups(spec, how)),
        "parameters": {CHECKSUM: {"string_value": sha256}} if sha256 else {},
    }
    if how.accelerator == "none":
        del config["optimization"]
    text: str = text_format.MessageToString(json_format.ParseDict(config, ModelConfig()))
    return text


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "data_type": port.type, "dims": port.dims}


def _warmups(spec: GraphSpec, how: Serving) -> Iterator[dict[str, Any]]:
    """Yield warm-ups of zeros for every length and batch size in use."""
    lengths = spec.lengths or (0,)
    first, *larger = sorted({1, *how.preferred_batches})
    for batch, length in [*((first, length) for length in lengths), *((batch, lengths[-1]) for batch in larger)]:
        yield {
            "name": f"batch-{batch}" + (f"-length-{length}" if length else ""),
            "batch_size": batch,
            "inputs": {
                port.name: {"data_type": port.type, "dims": _shape(port, length), "zero_data": True}
                for port in spec.inputs
            },
        }


def _accelerators(spec: GraphSpec, how: Serving, *, half: bool) -> list[dict[str, Any]]:
    """Return the accelerators of a GPU; CUDA runs the nodes that TensorRT does not."""
    cuda = {
        "cudnn_conv_algo_search": "HEURISTIC",  # the default benchmarks all algorithms for each new batch size
        "arena_extend_strategy": "kSameAsRequested",  # the default doubles the memory whenever it grows
    }
    if not (half and spec.engine):
        cuda["use_tf32"] = "0"  # else float32 would be computed with 10 bits of mantissa
    blocks = [{"name": "cuda", "parameters": cuda}]
    if how.accelerator == "tensorrt" and spec.engine:
        blocks.insert(0, {"name": "tensorrt", "parameters": _tensorrt(spec, how, half=half)})
    return blocks


def _tensorrt(spec: GraphSpec, how: Serving, *, half: bool) -> dict[str, str]:
    """Return options of Triton's ONNX Runtime backend. Without profiles, each batch size takes minutes to compile."""
    shortest, usual, longest = (spec.lengths[i] if spec.lengths else 0 for i in (0, len(spec.lengths) // 2, -1))
    return {
        "precision_mode": "FP16" if half else "FP32",
        "trt_layer_norm_fp32_fallback": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": ENGINE_CACHE,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": ENGINE_CACHE,
        "trt_profile_min_shapes": _profile(spec, 1, shortest),
        "trt_profile_opt_shapes": _profile(spec, min(how.preferred_batches, default=how.max_batch), usual),
        "trt_profile_max_shapes": _profile(spec, how.max_batch, longest),
    }


def _profile(spec: GraphSpec, batch: int, length: int) -> str:
    shapes = (f"{port.name}:{'x'.join(map(str, (batch, *_shape(port, length))))}" for port in spec.inputs)
    return ",".join(shapes)


def _shape(port: Port, length: int) -> tuple[int, ...]:
    return tuple(length if size == -1 else size for size in port.dims)


ONE_FILE = 2**29
"""Largest size in bytes of a graph with one file."""
WEIGHTS_CHECKSUM = "weights_sha256"
"""Metadata key of a graph for the checksum of its second file."""
_MIN_VALUES = 256  # smaller weights stay float32, since they include constants such as epsilons


def graph_file(folder: Path, name: str) -> Path:
    """Return the path of a graph in a model folder."""
    return folder / name / "1" / "model.onnx"


def graph_bytes(path: Path) -> int:
    """Return the size of a graph's files."""
    weights = weights_file(path)
    return path.stat().st_size + (weights.stat().st_size if weights.exists() else 0)


def save(model: onnx.ModelProto, path: Path, limit: int = ONE_FILE) -> None:
    """Write a graph whose weights are in RAM.

    Args:
        model: the graph.
        path: its file, which is replaced.
        limit: bytes above which the weights have a second file.
    """
    weights = weights_file(path)
    weights.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if sum(len(one.raw_data) for one in model.graph.initializer) <= limit:
        onnx.save(model, path)
        return
    onnx.save(model, path, save_as_external_data=True, location=weights.name)
    note_weights(path)


def note_weights(path: Path) -> None:
    """Add the checksum of a graph's second file to the graph, if there is one."""
    if (weights := weights_file(path)).exists():
        graph = onnx.load(path, load_external_data=False)
        helper.set_model_props(graph, {WEIGHTS_CHECKSUM: sha256_file(weights)})
        onnx.save(graph, path)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress logs and warnings of the exporter and the quantiser."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def to_precision(path: Path, precision: Precision, limit: int = ONE_FILE) -> None:
    """Rewrite a float32 graph in place; its inputs and outputs keep their types.

    Args:
        path: the graph.
        precision: ``fp32`` changes nothing, ``fp16`` stores weights as float16, ``int8`` quantises matrices and
            embeddings.
        limit: bytes of weights above which they have a second file.
    """
    if precision == "fp16":
        model = onnx.load(path)
        _store_fp16(model.graph)
        save(model, path, limit)
    elif precision == "int8":
        _quantise(path, limit)


def _quantise(path: Path, limit: int) -> None:
    """Quantise weights to 7 bits, and activations at run time.

    With 8 bits, sums of two products would overflow on x86 processors without VNNI.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / path.name
        large = graph_bytes(path) > ONE_FILE
        for file in (path, weights_file(path)):
            if file.exists():
                shutil.move(file, source.with_name(file.name))
        with quiet():
            quantize_dynamic(
                source,
                path,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                op_types_to_quantize=["MatMul", "Gemm", "Gather"],
                use_external_data_format=large,
            )
    save(onnx.load(path), path, limit)


def _store_fp16(graph: onnx.GraphProto) -> None:
    """Store large weights as float16 and cast them to float32 at run time."""
    casts = []
    for weights in graph.initializer:
        values = numpy_helper.to_array(weights)
        if weights.data_type == TensorProto.FLOAT and values.size >= _MIN_VALUES:
            name = weights.name
            weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
            casts.append(helper.make_node("Cast", [weights.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
