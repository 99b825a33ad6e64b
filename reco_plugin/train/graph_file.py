"""Graphs with weights of any size: above a limit they lie in a second file, ``model.onnx.data``, beside the graph.

A protobuf message, and so a graph with its weights, holds 2 GiB at most. The second file is mapped into memory, not
read, and is written one tensor after the other. The graph holds its checksum, so the graph's own covers both.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from ..errors import ArtifactError
from ..files import sha256_file, weights_file

ONE_FILE = 2**29
"""Bytes of weights that are written into the graph's own file: that is copied twice when it is written."""
CHECKSUM = "weights_sha256"
"""Metadata of a graph: the checksum of its second file."""
_INLINE = 1024  # bytes; smaller tensors stay in the graph, where shapes are inferred from them
_PAGE = 4096  # bytes; tensors of this size or more begin with a page, so that they can be mapped


def read_graph(path: Path) -> ir.Model:
    """Read a graph; its weights stay on the disk until they are asked for.

    Raises:
        ArtifactError: it is no ONNX graph, or a file of its weights is missing or too short.
    """
    try:
        model = ir.load(path)
    except Exception as error:  # of protobuf's or of onnx_ir's, of several classes
        raise ArtifactError(f"{path} cannot be read as an ONNX graph: {error}. Export the model again") from None
    _check_all(model, path)
    return model


def _check_all(model: ir.Model, path: Path) -> None:
    for value in model.graph.initializers.values():
        if isinstance(tensor := value.const_value, ir.ExternalTensor):
            _check_weights(path, tensor)


def _check_weights(path: Path, tensor: ir.ExternalTensor) -> None:
    place = path.parent / tensor.location
    if not place.is_file():
        raise ArtifactError(f"{place} is missing: it holds weights of {path.name}, so copy both files together")
    needed, found = (tensor.offset or 0) + (tensor.length or tensor.nbytes), place.stat().st_size
    if found < needed:
        raise ArtifactError(
            f"{place} has {found:,} bytes, {path.name} needs {needed:,} or more: the file is truncated or belongs to "
            "another model. Copy both files again, together"
        )


def graph_of(model: onnx.ModelProto, path: Path) -> ir.Model:
    """Take a graph of protobuf's; weights in files of their own are read from beside ``path`` when they are asked for.

    Raises:
        ArtifactError: such a file is missing or too short.
    """
    graph = ir.from_proto(model)
    ir.external_data.set_base_dir(graph.graph, path.parent)
    _check_all(graph, path)
    return graph


def write_proto(model: onnx.ModelProto, path: Path, folder: Path, limit: int = ONE_FILE) -> None:
    """Write a graph of protobuf's as :func:`write_graph` does; weights in files of their own are read from ``folder``.

    Raises:
        ArtifactError: such a file is missing or too short.
        OSError: as above.
    """
    write_graph(graph_of(model, folder / path.name), path, limit)


def weights_size(model: ir.Model) -> int:
    """Bytes of the weights of a graph."""
    return sum(int(value.const_value.nbytes) for value in model.graph.initializers.values() if value.const_value)


def graph_bytes(path: Path) -> int:
    """Size of a graph's file or files."""
    weights = weights_file(path)
    return path.stat().st_size + (weights.stat().st_size if weights.exists() else 0)


def write_graph(model: ir.Model, path: Path, limit: int = ONE_FILE) -> None:
    """Write a graph, and its weights into a second file if they have more bytes than ``limit``; replaces both files.

    Both are written in a folder beside them and then moved, so ``model`` may read from the files that it replaces.
    At most one tensor of a second file is in RAM at a time.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the old files stay.
    """
    weights = weights_file(path)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        model.metadata_props.pop(CHECKSUM, None)
        if weights_size(model) > limit:
            new = folder / weights.name
            ir.external_data.unload_from_model(
                model, folder, weights.name, size_threshold_bytes=_INLINE, alignment=_PAGE, align_threshold=_PAGE
            )
            model.metadata_props[CHECKSUM] = sha256_file(new)
        else:
            ir.external_data.load_to_model(model)
        ir.save(model, folder / path.name)
        _release(model)
        _move(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, path: Path) -> None:
    """Put the finished files into their places; the graph last, since it is what names the other."""
    weights = weights_file(path)
    if (folder / weights.name).exists():
        (folder / weights.name).replace(weights)
    else:
        weights.unlink(missing_ok=True)
    (folder / path.name).replace(path)


def _release(model: ir.Model) -> None:
    """Unmap the files of the weights: a mapped file cannot be replaced everywhere."""
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value.release()


def changed(
    tensor: ir.TensorProtocol, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], dtype: npt.DTypeLike
) -> ir.TensorProtocol:
    """A tensor of the same shape that is computed when it is written, from weights that are read then.

    Args:
        tensor: the weights.
        change: makes another array of the same shape, and keeps no view of the one that it gets.
        dtype: of what it makes.
    """
    kind = ir.DataType.from_numpy(np.dtype(dtype))
    return ir.LazyTensor(lambda: ir.tensor(read(tensor, change)), kind, ir.Shape(tensor.shape.numpy()))


def read(tensor: ir.TensorProtocol, use: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """What ``use`` makes of a tensor's values; a mapped file is unmapped again."""
    found = use(tensor.numpy())
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()
    return found
