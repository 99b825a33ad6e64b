"""Files of graphs, and smaller weights in them: int8 by ONNX Runtime's quantiser, or fp16 that is cast up when loaded.

Above a limit the weights lie in a second file, ``model.onnx.data``, beside the graph: a protobuf message, and so a
graph with its weights, holds 2 GiB at most. The graph holds the checksum of its second file, so that the graph's own
checksum covers both.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..files import sha256_file, weights_file
from .options import Precision

ONE_FILE = 2**29
"""Bytes of a graph that are written into one file."""
CHECKSUM = "weights_sha256"
"""Metadata of a graph: the checksum of its second file."""
_SMALL = 256  # weights with fewer values stay: they save nothing, and include constants such as epsilons


def graph_file(folder: Path, name: str) -> Path:
    """Path of a graph in a model folder."""
    return folder / name / "1" / "model.onnx"


def graph_bytes(path: Path) -> int:
    """Size of a graph's file or files."""
    weights = weights_file(path)
    return path.stat().st_size + (weights.stat().st_size if weights.exists() else 0)


def save(model: onnx.ModelProto, path: Path, limit: int = ONE_FILE) -> None:
    """Write a graph whose weights are in RAM.

    Args:
        model: the graph.
        path: its file; an older one is replaced.
        limit: bytes above which the weights go into a second file.
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
    """Put the checksum of a graph's second file, if it has one, into the graph."""
    if (weights := weights_file(path)).exists():
        graph = onnx.load(path, load_external_data=False)
        helper.set_model_props(graph, {CHECKSUM: sha256_file(weights)})
        onnx.save(graph, path)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress logs and warnings of the exporter and the quantiser, on which no caller can act."""
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
        precision: ``fp32`` leaves it, ``fp16`` halves the weights, ``int8`` quarters matrices and embeddings.
        limit: bytes of weights above which they lie in a second file.
    """
    if precision == "fp16":
        model = onnx.load(path)
        _store_fp16(model.graph)
        save(model, path, limit)
    elif precision == "int8":
        _quantise(path, limit)


def _quantise(path: Path, limit: int) -> None:
    """Quantise the weights; activations are quantised as they come.

    Weights have 7 bits: sums of two products of 8 bits overflow on x86 processors without VNNI.
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
    """Keep large weights as float16, and cast them up: half the bytes, and the same arithmetic on any processor."""
    casts = []
    for weights in graph.initializer:
        values = numpy_helper.to_array(weights)
        if weights.data_type == TensorProto.FLOAT and values.size >= _SMALL:
            name = weights.name
            weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
            casts.append(helper.make_node("Cast", [weights.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
