"""torch to ONNX: modules to export, each with inputs and the outputs to compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..artifact import clip_graph, fusion_graph
from ..calibration.gate import step
from ..errors import ArtifactError
from ..preprocess import Tokenizer, images_to_array
from ..preprocess.text import needed_tokens
from ..sessions.base import Arrays
from ..towers.nodes import make_step
from ..types import MODALITIES, ImageInput
from .graph_file import ONE_FILE, write_graph, write_proto
from .graph_inputs import fusion_inputs, step_inputs
from .loop import Fusions
from .one_token import pick_early
from .triton import GraphSpec

if TYPE_CHECKING:
    from .encoder import FrozenClip

_ROWS = 16  # compared at once, so that a large encoder fits


@dataclass(frozen=True)
class GraphSample:
    """Inputs of a graph and the outputs it must have; axis 0 is the batch in all of them."""

    inputs: Arrays
    expected: Arrays


def _keep() -> None:
    """Leave the weights where they are."""


class Traced:
    """What torch makes of modules that differ in their weights alone: it takes seconds, so they share it."""

    def __init__(self) -> None:
        self._program: Any = None
        self._graph: onnx.ModelProto | None = None

    def of(self, module: nn.Module, trace: Callable[[], Any]) -> Any:
        """The exporter's program with the weights of a module, optimised; ``trace`` makes one that is not."""
        if self._graph is None:
            self._program = trace()
            if self._program is None:
                return None
            self._graph = ir.to_proto(self._program.model)
        else:
            self._program.model = model = ir.from_proto(self._graph)
            for name, weight in (*module.named_parameters(), *module.named_buffers()):
                model.graph.initializers[name].const_value = ir.tensor(weight.detach().numpy(), name=name)
        self._program.optimize()
        return self._program


@dataclass(frozen=True)
class GraphCheck:
    """A module to export, or a graph that is there."""

    spec: GraphSpec  # its ports
    module: nn.Module | onnx.ModelProto  # inputs and outputs as in ``spec``, in order
    batches: list[GraphSample]  # for the parity check; the first is the exporter's example
    free: Callable[[], None] = _keep  # gives back the module's weights once they are written
    traced: Traced | None = None  # shared with a module that differs in its weights alone


def cases(
    clip: FrozenClip, fusions: Fusions | None, specs: dict[str, GraphSpec], images: list[ImageInput], texts: list[str]
) -> Iterator[GraphCheck]:
    """Yield one graph after the other, so that the inputs of only one are in RAM."""
    compared = {"image": _image_batches(clip, images), "text": _text_batches(clip, texts)}
    dimension = clip.dimension
    for modality in MODALITIES:
        free = partial(clip.free, modality) if clip.disposable else _keep
        yield GraphCheck(specs[clip_graph(modality)], clip.tower(modality), list(compared[modality]), free)
    yield from fusion_cases(dimension, fusions, specs)


def fusion_cases(dimension: int, fusions: Fusions | None, specs: dict[str, GraphSpec]) -> Iterator[GraphCheck]:
    """The closed form's step, and fusions where there are any; of both modalities."""
    moving = step_inputs(dimension)
    moved = GraphSample(moving, dict(zip(("refined", "strength"), step(**moving), strict=True)))
    made = make_step(dimension)
    yield from (GraphCheck(specs[fusion_graph(modality)], made, [moved]) for modality in MODALITIES)
    if fusions is None:
        return
    inputs = fusion_inputs(dimension)
    traced = Traced() if fusions.config.fuser == "paper" else None  # the others' numbers are constants of the graph
    for modality in MODALITIES:
        fusion = fusions.sides[modality]
        with torch.no_grad():
            refined, weights = fusion(*map(torch.from_numpy, inputs.values()))
        expected = {"refined": refined.numpy(), "weights": weights.numpy()}
        name = fusion_graph(modality, fusions.config.fuser)
        yield GraphCheck(specs[name], fusion, [GraphSample(inputs, expected)], traced=traced)


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
    """Write a case's graph, or its module for any batch size and any length where its ports say so.

    Args:
        case: the module.
        path: the graph's file.
        limit: bytes of weights above which they lie in a second file; they are written from where torch has them.
    """
    if isinstance(case.module, onnx.ModelProto):
        write_proto(case.module, path, path.parent, limit)
        onnx.checker.check_model(str(path))
        return
    module, arrays = case.module, case.batches[0].inputs.values()
    arguments = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    if len(arguments[0]) == 1:  # torch would take a batch of one for a constant
        arguments = tuple(torch.cat([argument, argument]) for argument in arguments)
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = [
        {0: batch} | {axis + 1: torch.export.Dim.DYNAMIC for axis, size in enumerate(port.dims) if size == -1}
        for port in case.spec.inputs
    ]

    def trace(*, optimize: bool = False) -> Any:
        with torch.no_grad():
            return torch.onnx.export(
                module.eval(),
                arguments,
                input_names=[port.name for port in case.spec.inputs],
                output_names=[port.name for port in case.spec.outputs],
                dynamic_shapes=tuple(shapes),
                dynamo=True,
                external_data=False,
                verbose=False,
                optimize=optimize,
            )

    program = case.traced.of(module, trace) if case.traced else trace(optimize=True)
    if program is None:
        raise ArtifactError(f"torch exported nothing for {case.spec.name}")
    pick_early(program.model)
    write_graph(program.model, path, limit)
    onnx.checker.check_model(str(path))
