"""Write a model folder: four ONNX graphs, their Triton configuration, tokenizer and manifest.

Everything is made and compared with torch in a temporary folder beside the target; only a folder that passed
takes the target's place.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from ..artifact import GRAPHS, MANIFEST, TOKENIZER, FusionInfo, Graph, Manifest, Policy, fusion_graph, sha256_file
from ..config import Settings
from ..errors import ArtifactError
from ..preprocess import Tokenizer, cut_to_longest, images_to_array
from ..sessions import open_session
from ..types import MODALITIES, ImageInput
from .encoder import FrozenClip
from .loop import Fusions
from .precision import to_precision
from .samples import SAMPLE_TEXTS, sample_images
from .triton import GraphSpec, clip_image_spec, clip_text_spec, fusion_spec, render_config

Precision = Literal["fp32", "fp16", "int8"]
LEAST_COSINE: dict[Precision, float] = {"fp32": 1 - 1e-6, "fp16": 0.9995, "int8": 0.98}
"""Lowest cosine between a graph's and torch's embedding of the same input at which it is still exported."""


@dataclass(frozen=True)
class Parity:
    """How close one exported graph is to torch on real inputs."""

    graph: str
    least_cosine: float
    largest_difference: float


@dataclass(frozen=True)
class _Case:
    """A torch module, the inputs to compare on, and what Triton must know of it."""

    spec: GraphSpec
    module: nn.Module
    inputs: dict[str, npt.NDArray[Any]]


def export(
    clip: FrozenClip,
    fusions: Fusions,
    out: Path,
    *,
    policy: Policy | None = None,
    precision: Precision = "fp32",
    images: list[ImageInput] | None = None,
    texts: list[str] | None = None,
    trained_on: str = "",
    licenses: tuple[str, ...] = (),
) -> list[Parity]:
    """Write a model folder that passed its parity check; returns what the check measured.

    Args:
        clip: the frozen encoder.
        fusions: trained or untrained fusions of the same dimension.
        out: the folder; an older model there is replaced when the new one is whole.
        policy: defaults of the refinement.
        precision: storage of the weights.
        images: inputs of the parity check; drawn samples when left out.
        texts: the same for texts.
        trained_on: what the fusions were trained on, for the manifest.
        licenses: of weights and data, for the manifest.

    Raises:
        ArtifactError: a graph differs from torch by more than its precision allows; nothing is written.
        ArtifactError: ``out`` holds something that is no model folder.
    """
    _check_target(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        cases = _cases(clip, fusions, images or sample_images(), texts or list(SAMPLE_TEXTS))
        parities = [_export_graph(case, staging, precision) for case in cases]
        (staging / TOKENIZER).write_text(clip.tokenizer_json, encoding="utf-8")
        manifest = Manifest(
            name=clip.name,
            digest=clip.digest,
            dimension=clip.dimension,
            image=clip.image,
            text=clip.text,
            fusion=FusionInfo(fuser=fusions.config.fuser, config=asdict(fusions.config), trained_on=trained_on),
            policy=policy or Policy(),
            precision=precision,
            graphs={name: _graph(staging / name / "1" / "model.onnx") for name in GRAPHS},
            licenses=licenses,
            made_with={package: version(package) for package in ("reco-plugin", "torch", "open_clip_torch", "onnx")},
        )
        (staging / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _swap(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return parities


def _cases(clip: FrozenClip, fusions: Fusions, images: list[ImageInput], texts: list[str]) -> list[_Case]:
    height, width = clip.image.size
    dimension = clip.dimension
    tokens = cut_to_longest(Tokenizer(clip.tokenizer_json, clip.text)(texts).ids, clip.text)
    length = -1 if clip.text.dynamic else clip.text.context_length
    pixels = images_to_array(images, clip.image)
    fusion_inputs = _fusion_inputs(dimension)
    return [
        _Case(clip_image_spec(height, width, dimension), clip.tower("image"), {"pixels": pixels}),
        _Case(clip_text_spec(length, dimension), clip.tower("text"), {"tokens": tokens}),
        *(_Case(fusion_spec(fusion_graph(side), dimension), fusions.sides[side], fusion_inputs) for side in MODALITIES),
    ]


def _fusion_inputs(dimension: int) -> dict[str, npt.NDArray[np.float32]]:
    """Neighbours as a search returns them: near the query, some absent, some distrusted."""
    rng = np.random.default_rng(0)
    query = rng.normal(size=(16, dimension))
    near = query[:, None] + rng.normal(size=(16, 6, dimension))
    trust = rng.choice([0.0, 0.3, 1.0], size=(16, 6))
    trust[0] = 0.0
    return {
        "query": (query / np.linalg.norm(query, axis=-1, keepdims=True)).astype(np.float32),
        "neighbours": (near / np.linalg.norm(near, axis=-1, keepdims=True)).astype(np.float32),
        "similarity": rng.uniform(0.2, 1.0, size=(16, 6)).astype(np.float32),
        "trust": trust.astype(np.float32),
    }


def _export_graph(case: _Case, folder: Path, precision: Precision) -> Parity:
    path = folder / case.spec.name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    arguments = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in case.inputs.values())
    with _quiet():
        _to_onnx(case, arguments, path)
        to_precision(path, precision)
    (path.parent.parent / "config.pbtxt").write_text(render_config(case.spec), encoding="utf-8")
    return _check_parity(case, arguments, path, precision)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hush what the exporter and the quantiser log and warn of their own insides: no caller can act on it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _to_onnx(case: _Case, arguments: tuple[torch.Tensor, ...], path: Path) -> None:
    if len(arguments[0]) == 1:  # torch would take a batch of one for a constant
        arguments = tuple(torch.cat([argument, argument]) for argument in arguments)
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = [
        {0: batch} | {axis + 1: torch.export.Dim.DYNAMIC for axis, size in enumerate(port.dims) if size == -1}
        for port in case.spec.inputs
    ]
    with torch.no_grad():
        program = torch.onnx.export(
            case.module.eval(),
            arguments,
            input_names=[port.name for port in case.spec.inputs],
            output_names=[port.name for port in case.spec.outputs],
            dynamic_shapes=tuple(shapes),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ArtifactError(f"torch exported nothing for {case.spec.name}")
    program.save(str(path), external_data=False)
    onnx.checker.check_model(str(path))


def _check_parity(case: _Case, arguments: tuple[torch.Tensor, ...], path: Path, precision: Precision) -> Parity:
    with torch.no_grad():
        result = case.module(*arguments)
    expected = (result if isinstance(result, torch.Tensor) else result[0]).numpy()
    name = case.spec.outputs[0].name
    found = open_session(path, Settings(provider="cpu")).run(case.inputs)[name]
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosine = float(((expected * found).sum(axis=1) / norms).min())
    parity = Parity(case.spec.name, cosine, float(np.abs(expected - found).max()))
    if not cosine >= LEAST_COSINE[precision]:
        raise ArtifactError(
            f"{case.spec.name} in {precision} differs from torch: least cosine {cosine:.6f}, allowed "
            f"{LEAST_COSINE[precision]:.6f}. Nothing was written; export with a higher precision."
        )
    return parity


def _graph(path: Path) -> Graph:
    return Graph(size_bytes=path.stat().st_size, sha256=sha256_file(path))


def _check_target(out: Path) -> None:
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not empty and not _is_model(out / MANIFEST):
        raise ArtifactError(f"{out} exists and is no model folder: choose another --out")


def _is_model(manifest: Path) -> bool:
    """Whether a file is a manifest of ours, of whatever version, and not that of a web page."""
    try:
        content = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "digest", "graphs"} <= content.keys()


def _swap(staging: Path, out: Path) -> None:
    """Put the finished folder in the target's place."""
    staging.chmod(0o755)
    old = out.with_name(f".{out.name}.old.{os.getpid()}")
    if out.exists():
        out.rename(old)
    staging.rename(out)
    shutil.rmtree(old, ignore_errors=True)
