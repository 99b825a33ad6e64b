"""The self-test of imported towers: both are run, as their makers say and as they will be served, and compared.

It asserts what no file says for sure: that every input counts, that batches do not mix, that both towers share a space,
that a text may be cut to its length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from ..config import Settings
from ..errors import ArtifactError, SessionError
from ..preprocess import TextConfig
from ..sessions.base import Arrays
from ..sessions.ort import OrtSession
from ..train.parity import BOUNDS, COUNT, Precision, sample_images, sample_texts
from ..types import Modality, Vectors
from .graph import Tower
from .pixels import Pixels
from .texts import TextSteps

ROWS = 8  # run at once
_SAME = 1e-5  # of a value of a unit vector in float32, between a batch and its rows, or a cut text and the whole
_ALIVE = 1e-4  # by which vectors of different inputs must differ somewhere
_CPU = Settings(provider="cpu")

RunTower = Callable[[npt.NDArray[np.generic]], Vectors]


class Runner:
    """A graph of a file or in RAM, run on rows of one input."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._session = OrtSession(path, _CPU, logs=False, whole_int8=True)
        except SessionError as error:
            raise ArtifactError(f"ONNX Runtime cannot load {path}: {_reason(error)}") from None

    def run(self, inputs: Arrays, output: str) -> npt.NDArray[np.float32]:
        """One output, as float32."""
        try:
            found = self._session.run(inputs)[output]
        except SessionError as error:
            raise ArtifactError(f"{self.path} failed in the self-test: {_reason(error)}") from None
        return np.asarray(found, np.float32)


def _reason(error: SessionError) -> str:
    return " ".join(str(error).split(". Export the model")[0].split())[:600]


def sample_pixels(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Drawn pictures (N, H, W, 3)."""
    from ..preprocess import images_to_array

    return images_to_array(sample_images(COUNT), pixels.image)


def sample_ids(texts: TextSteps) -> npt.NDArray[np.int32]:
    """Tokens of unusual and plain captions (N, L)."""
    from ..preprocess import Tokenizer

    return Tokenizer(texts.tokenizer_json, texts.text)(sample_texts(COUNT)).ids


def run_as_made(tower: Tower, rows: npt.NDArray[np.generic], prepared: Arrays) -> Vectors:
    """Vectors (N, D) of the maker's own graph, unit-norm, each row alone where the graph takes no more."""
    runner = Runner(tower.path)
    other = _other_inputs(tower)
    step = 1 if tower.one_row else ROWS
    parts = []
    for start in range(0, len(rows), step):
        inputs = {name: values[start : start + step] for name, values in prepared.items()}
        size = len(next(iter(inputs.values())))
        inputs |= {name: np.repeat(value, size, axis=0) for name, value in other.items()}
        parts.append(runner.run(inputs, tower.output))
    found = np.concatenate(parts)
    if found.ndim != 2:
        raise ArtifactError(f"{tower.path}: {tower.output} has the shape {found.shape}, and vectors are (B, D)")
    return _unit(found, f"{tower.path}: {tower.output}")


def _other_inputs(tower: Tower) -> Arrays:
    """Inputs of the file that the tower does not need, for one row: those of the other tower, or dead ones."""
    whole = onnx.load(str(tower.path), load_external_data=False).graph
    own = {tower.main.name, *(value.name for value in tower.others.values())}
    weights = {one.name for one in whole.initializer}
    found: Arrays = {}
    for one in whole.input:
        if one.name not in own | weights:
            tensor = one.type.tensor_type
            usual = (1, 3, 224, 224) if len(tensor.shape.dim) == 4 else (1, 8)
            sizes = [dim.dim_value or size for dim, size in zip(tensor.shape.dim[1:], usual[1:], strict=False)]
            found[one.name] = np.ones((1, *sizes), onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return found


def pixel_inputs(tower: Tower, pixels: Pixels, rows: npt.NDArray[np.uint8]) -> Arrays:
    """What the image tower itself takes, of pixels (N, H, W, 3): as its processor would make it."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tower.main.type)
    values: npt.NDArray[np.generic] = rows
    if dtype != np.uint8:
        mean, std = (np.asarray(each, np.float32) for each in (pixels.image.mean, pixels.image.std))
        values = ((rows.astype(np.float32) * np.float32(pixels.scale) - mean) / std).astype(dtype)
    return {tower.main.name: values if tower.channels_last else np.ascontiguousarray(values.transpose(0, 3, 1, 2))}


def text_inputs(tower: Tower, texts: TextSteps, ids: npt.NDArray[np.int32]) -> Arrays:
    """What the text tower itself takes, of ids (N, L): as its tokenizer would make it."""
    length = ids.shape[1]
    filled = ids != texts.text.pad_id
    needed = (filled * np.arange(1, length + 1)).max(axis=1) + (texts.text.end_id is not None)
    whole = np.ones_like(ids)
    found = {
        "mask": (np.arange(length) < needed[:, None]) if texts.masked else whole,
        "position_ids": whole * np.arange(length),
        "token_type_ids": whole * 0,
    }
    types = {value.name: (found[role], value.type) for role, value in tower.others.items()}
    types[tower.main.name] = (ids, tower.main.type)
    return {name: values.astype(onnx.helper.tensor_dtype_to_np_dtype(kind)) for name, (values, kind) in types.items()}


def check_tower(name: str, modality: Modality, vectors: Vectors, where: Path) -> None:
    """Check that vectors (N, D) of different inputs are finite and differ.

    Raises:
        ArtifactError: they do not.
    """
    what = "picture" if modality == "image" else "text"
    moved = np.abs(vectors - vectors[:1]).max()
    if moved < _ALIVE:
        raise ArtifactError(
            f"{where}: {name} is a dead input: every {what} has the same vector (largest difference {moved:.1e}). "
            f"Choose another graph by --{modality}, or output by --{modality}-output"
        )


def mixes_rows(run: RunTower, rows: npt.NDArray[np.generic], precision: Precision) -> bool:
    """Whether a batch gives other vectors than its rows one by one, or fails."""
    try:
        together = run(rows[:3])
        alone = np.concatenate([run(rows[index : index + 1]) for index in range(3)])
    except ArtifactError:
        return True
    return together.shape != alone.shape or not _are_same(together, alone, precision)


def takes_short_texts(run: RunTower, ids: npt.NDArray[np.int32], text: TextConfig, precision: Precision) -> bool:
    """Whether texts cut to their length have the vectors of the whole context."""
    from ..preprocess.text import needed_tokens

    lengths = needed_tokens(ids, text)
    order = np.argsort(lengths)[:: max(len(ids) // 12, 1)]
    try:
        for row in order:
            whole = run(ids[row : row + 1])
            shorter = {int(lengths[row]), min(int(lengths[row]) + 3, ids.shape[1])}
            cuts = [run(np.ascontiguousarray(ids[row : row + 1, :length])) for length in shorter]
            if not all(_are_same(cut, whole, precision) for cut in cuts):
                return False
    except ArtifactError:  # the graph has a fixed length inside
        return False
    return bool(lengths.min() < ids.shape[1])


def _are_same(found: Vectors, expected: Vectors, precision: Precision) -> bool:
    if precision == "fp32":
        return bool(np.abs(found - expected).max() <= _SAME)
    return bool((found * expected).sum(axis=1).min() >= BOUNDS[precision].cosine)


def _unit(vectors: npt.NDArray[np.float32], where: str) -> Vectors:
    if not np.isfinite(vectors).all():
        raise ArtifactError(
            f"{where} holds NaN or infinity for {int((~np.isfinite(vectors)).any(axis=1).sum())} of {len(vectors)} "
            "inputs: the weights are damaged, or overflow in this precision; take another file or --precision"
        )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not norms.all():
        raise ArtifactError(f"{where} is a vector of zeros for some inputs: choose another output")
    return np.asarray(vectors / norms, np.float32)


def run_as_served(path: Path, port: str) -> RunTower:
    """Vectors of a graph as the package serves it, checked for NaN."""
    runner = Runner(path)

    def run(rows: npt.NDArray[np.generic]) -> Vectors:
        parts: Sequence[Vectors] = [
            runner.run({port: rows[start : start + ROWS]}, "features") for start in range(0, len(rows), ROWS)
        ]
        return _unit(np.concatenate(parts), f"{path.parent.parent.name}")

    return run
