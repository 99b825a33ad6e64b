"""Files of graphs: above a limit the weights lie in a second file, ``model.onnx.data``, beside the graph.

A protobuf message, and so a graph with its weights, holds 2 GiB at most. The graph holds the checksum of its second
file, so that the graph's own checksum covers both.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from ..files import sha256_file, weights_file

ONE_FILE = 2**29
"""Bytes of a graph that are written into one file."""
CHECKSUM = "weights_sha256"
"""Metadata of a graph: the checksum of its second file."""


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
    size = sum(len(one.raw_data) for one in model.graph.initializer)
    if size <= limit:
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
