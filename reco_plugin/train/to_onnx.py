"""torch to ONNX: modules to export, each with inputs and the outputs to compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..artifact import clip_graph, fusion_graph
from ..preprocess import Tokenizer, images_to_array
from ..preprocess.text import needed_tokens
from ..sessions.base import Arrays
from ..types import MODALITIES, ImageInput
from .graph_file import ONE_FILE, note_weights
from .loop import Fusions
from .triton import GraphSpec

if TYPE_CHECKING:
    from .encoder import FrozenClip

_ROWS = 16  # compared at once, so that a large encoder fits


@dataclass(frozen=True)
class GraphSample:
    """Inputs of a graph and the outputs it must have; axis 0 is the batch in all of them."""

    inputs: Arrays
    expected: Arrays


@dataclass(frozen=True)
class GraphCheck:
    """A module to export."""

    spec: GraphSpec  # its ports
    module: nn.Module  # inputs and outputs as in ``spec``, in order
    batches: list[GraphSample]  # for the parity check; the first is the exporter's example


def cases(
    clip: FrozenClip, fusions: Fusions | None, specs: dict[str, GraphSpec], images: list[ImageInput], texts: list[str]
) -> Iterator[GraphCheck]:
    """Yield one graph after the other, so that the inputs of only one are in RAM."""
    compared = {"image": _image_batches(clip, images), "text": _text_batches(clip, texts)}
    for modality in MODALITIES:
        yield GraphCheck(specs[clip_graph(modality)], clip.tower(modality), list(compared[modality]))
    yield from fusion_cases(clip.dimension, fusions, specs)


def fusion_cases(dimension: int, fusions: Fusions | None, specs: dict[str, GraphSpec]) -> Iterator[GraphCheck]:
    """The fusions of both modalities, if there are any."""
    if fusions is None:
        return
    inputs = fusion_inputs(dimension)
    for modality in MODALITIES:
        fusion = fusions.sides[modality]
        with torch.no_grad():
            refined, weights = fusion(*map(torch.from_numpy, inputs.values()))
        expected = {"refined": refined.numpy(), "weights": weights.numpy()}
        name = fusion_graph(modality, fusions.config.fuser)
        yield GraphCheck(specs[name], fusion, [GraphSample(inputs, expected)])


def fusion_inputs(dimension: int, batch: int = 64, k: int = 6) -> Arrays:
    """Make fusion inputs as from a search: near neighbours, some absent, some without trust, one row without any."""
    rng = np.random.default_rng(0)
    query = rng.normal(size=(batch, dimension))
    near = query[:, None] + rng.normal(size=(batch, k, dimension))
    trust = rng.choice([0.0, 0.3, 1.0], size=(batch, k))
    trust[0] = 0.0
    return {
        "query": (query / np.linalg.norm(query, axis=-1, keepdims=True)).astype(np.float32),
        "neighbours": (near / np.linalg.norm(near, axis=-1, keepdims=True)).astype(np.float32),
        "similarity": rng.uniform(0.2, 1.0, size=(batch, k)).astype(np.float32),
        "trust": trust.astype(np.float32),
    }


def _image_batches(clip: FrozenClip, images: list[ImageInput]) -> Iterator[GraphSample]:
    """Yield batches with the outputs of open_clip's own function on pixels that are normalised beforehand."""
    mean, std = (torch.tensor(x)[:, None, None] for x in (clip.image.mean, clip.image.std))
    for start in range(0, len(images), _ROWS):
        pixels = images_to_array(images[start : start + _ROWS], clip.image)
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
        yield GraphSample({"pixels": pixels}, _features(clip.model.encode_image, x))


def _text_batches(clip: FrozenClip, texts: list[str]) -> Iterator[GraphSample]:
    """Yield a batch of every length in use, with the outputs of open_clip's own function on the whole context."""
    ids = Tokenizer(clip.tokenizer_json, clip.text)(texts).ids
    lengths = np.array(clip.text.lengths)
    ends = needed_tokens(ids, clip.text) if clip.text.dynamic else np.full(len(ids), lengths[-1])
    shortest = np.searchsorted(lengths, ends)  # index of the first length that holds the text
    turn = shortest + np.arange(len(ids)) % (len(lengths) - shortest)  # and in turn the longer ones too
    for index, length in enumerate(lengths):
        rows = np.flatnonzero(turn == index)
        for part in (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)):
            cut = np.ascontiguousarray(ids[part, :length])
            yield GraphSample({"tokens": cut}, _features(clip.model.encode_text, torch.from_numpy(ids[part]).long()))


def _features(encode: Any, x: Tensor) -> Arrays:
    with torch.no_grad():
        return {"features": F.normalize(encode(x), dim=-1).numpy()}


def to_onnx(case: GraphCheck, path: Path, limit: int = ONE_FILE) -> None:
    """Export a module for any batch size, and for any length where its ports say so.

    Args:
        case: the module.
        path: the graph's file.
        limit: bytes of weights above which they lie in a second file.
    """
    arrays = case.batches[0].inputs.values()
    arguments = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    if len(arguments[0]) == 1:  # torch would take a batch of one for a constant
        arguments = tuple(torch.cat([argument, argument]) for argument in arguments)
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = [
        {0: batch} | {axis + 1: torch.export.Dim.DYNAMIC for axis, size in enumerate(port.dims) if size == -1}
        for port in case.spec.inputs
    ]
    with torch.no_grad():
        program: Any = torch.onnx.export(
            case.module.eval(),
            arguments,
            input_names=[port.name for port in case.spec.inputs],
            output_names=[port.name for port in case.spec.outputs],
            dynamic_shapes=tuple(shapes),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    weights = (one.const_value for one in program.model.graph.initializers.values())
    program.save(path, external_data=sum(one.nbytes for one in weights) > limit)
    note_weights(path)
    onnx.checker.check_model(path)
