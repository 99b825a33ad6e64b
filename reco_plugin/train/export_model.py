"""What ``reco export`` does: an encoder, the fusions of a run and inputs to compare on -> a model folder."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..artifact import Policy
from ..data import read_pairs
from ..data.classes import TEMPLATES, check_templates
from ..defaults import CANDIDATE_HEIGHT
from ..errors import ConfigError, DataError
from ..types import ImageInput
from .encoder import FrozenClip, load_frozen
from .export import export
from .loop import FUSION, Fusions, load_fusions
from .model import FuserKind, FusionConfig
from .parity import Parity, Precision
from .run import RECIPE, Recipe
from .serving import Serving

_CHECKED = 96  # pairs of a source that are compared: a large encoder takes a second per image
_LEAST = 20  # pairs below which ten nearest are no choice


@dataclass(frozen=True)
class _Samples:
    images: list[ImageInput]
    texts: list[str]


def export_model(
    model: str,
    out: Path,
    *,
    pretrained: str | None = None,
    fusion: Path | None = None,
    fuser: FuserKind = "training-free",
    precision: Precision = "fp32",
    serving: Serving | None = None,
    k: int | None = None,
    templates: tuple[str, ...] = (),
    source: str | None = None,
    licenses: tuple[str, ...] = (),
    random_weights: bool = False,
) -> list[Parity]:
    """Export an encoder with trained (``fusion``) or untrained (``fuser``) fusions.

    Args:
        model: open_clip's name, ``hf-hub:ORG/NAME`` or ``local-dir:PATH``.
        out: the folder to write.
        pretrained: open_clip's tag of weights, or a checkpoint file.
        fusion: folder of a training run.
        fuser: kind of untrained fusions, without ``fusion``.
        precision: of the weights.
        serving: what Triton is told.
        k: neighbours by default; those of the training when None.
        templates: prompts that the encoder was trained with, ``{}`` where a name goes; CLIP's own when left out.
        source: pairs that the graphs are compared with torch on; drawn samples when None.
        licenses: of weights and data, for the manifest.
        random_weights: allow a model without weights.

    Raises:
        ConfigError: the encoder cannot be loaded or exported, the fusion belongs to another one, or a template has no
            place for a name.
        DataError: ``source`` holds too few pairs, or vectors.
        ArtifactError: the parity check failed; nothing was written.
    """
    templates = check_templates(templates) or TEMPLATES
    clip = load_frozen(model, pretrained, random_weights=random_weights)
    if random_weights and not pretrained:
        warnings.warn(f"{model} is exported with RANDOM weights: its embeddings mean nothing", stacklevel=2)
    fusions = _trained(clip, fusion) if fusion else Fusions(FusionConfig(fuser, clip.dimension)).eval()
    recipe = json.loads((fusion / RECIPE).read_text()) if fusion and (fusion / RECIPE).is_file() else {}
    samples = _samples(source) if source else _Samples([], [])
    return export(
        clip,
        fusions,
        out,
        policy=Policy(
            k=k or recipe.get("k", Recipe.k),
            gate=fusions.config.fuser != "paper",
            candidate_height=1.0
            if fusions.text_gate
            else CANDIDATE_HEIGHT,  # a fitted fusion says itself how far texts may move
        ),
        templates=templates,
        precision=precision,
        serving=serving,
        images=samples.images,
        texts=samples.texts,
        trained_on=recipe.get("source", ""),
        licenses=licenses,
    )


def _trained(clip: FrozenClip, run: Path) -> Fusions:
    """The fusions of a run, if it was this encoder that they were trained around."""
    fusions = load_fusions(run / FUSION)
    if fusions.config.dimension != clip.dimension:
        raise ConfigError(f"the fusion in {run} is {fusions.config.dimension}-d, the encoder {clip.dimension}-d")
    caches = {path.stem.removeprefix("vectors-") for path in run.glob("vectors-*.npz")}
    if caches and clip.digest[:12] not in caches:
        raise ConfigError(
            f"the fusion in {run} was trained around another encoder (sha256 {', '.join(sorted(caches))}) than "
            f"{clip.name} ({clip.digest[:12]}): give --model and --pretrained of the training"
        )
    return fusions


def _samples(source: str) -> _Samples:
    images: list[ImageInput] = []
    texts: list[str] = []
    for pair in read_pairs(source):
        if isinstance(pair.image, np.ndarray) or not isinstance(pair.text, str):
            raise DataError(f"{source} holds vectors: the check encodes images and texts, so it needs them raw")
        images.append(pair.image)
        texts.append(pair.text)
        if len(images) == _CHECKED:
            break
    if len(images) < _LEAST:
        raise DataError(f"{source} holds {len(images)} pairs; the check takes {_LEAST} to {_CHECKED}")
    return _Samples(images, texts)
