"""Run ``reco export``: an encoder, the fusions of a run and inputs to compare on -> a model folder."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np

from ..artifact import Policy
from ..data import read_pairs
from ..data.labelled import TEMPLATES, check_templates
from ..defaults import NEIGHBOURS
from ..errors import ConfigError, DataError
from ..types import ImageInput
from .encoder import FrozenClip, load_frozen
from .export import Card, Samples, export
from .loop import FUSION, Fusions, load_fusions
from .model import FusionConfig
from .parity import Parity
from .recipe import ExportOptions, Recipe, Serving

_CHECKED = 96  # pairs of a source to compare: a large encoder takes a second per image
_LEAST = 20  # with fewer pairs, the ten nearest mean little


def export_model(options: ExportOptions, out: Path, serving: Serving | None = None) -> list[Parity]:
    """Export an encoder with the closed form, and the paper's layer where it is trained or asked for.

    Raises:
        ConfigError: the encoder cannot be loaded or exported, the fusion belongs to another one, or a template has no
            place for a name.
        DataError: ``options.check`` holds too few pairs, or vectors.
        ArtifactError: the parity check failed; nothing was written.
    """
    templates = check_templates(options.templates) or TEMPLATES
    fusion, clip = options.fusion, load_frozen(options.model, options.pretrained, random_weights=options.random_weights)
    if options.random_weights and not options.pretrained:
        warnings.warn(f"{options.model} is exported with RANDOM weights: its embeddings mean nothing", stacklevel=2)
    untrained = Fusions(FusionConfig("paper", clip.dimension)).eval() if options.fuser == "paper" else None
    fusions = _load_trained(clip, fusion) if fusion else untrained
    recipe = json.loads((fusion / Recipe.file).read_text()) if fusion and (fusion / Recipe.file).is_file() else {}
    samples = _samples(options.check) if options.check else Samples()
    policy = Policy(k=options.k or recipe.get("k", NEIGHBOURS))
    card = Card(policy, options.fuser, templates, recipe.get("source", ""), options.licenses)
    return export(clip, fusions, out, card=card, precision=options.precision, serving=serving, samples=samples)


def _load_trained(clip: FrozenClip, run: Path) -> Fusions:
    """Load the fusions of a run, if they were trained on this encoder."""
    fusions = load_fusions(run / FUSION)
    if fusions.config.dimension != clip.dimension:
        raise ConfigError(f"the fusion in {run} is {fusions.config.dimension}-d, the encoder {clip.dimension}-d")
    caches = {path.stem.split("-")[1] for path in run.glob("vectors-*.npz")}  # vectors-ENCODER-PAIRS.npz
    if caches and clip.digest[:12] not in caches:
        raise ConfigError(
            f"the fusion in {run} was trained on another encoder (sha256 {', '.join(sorted(caches))}) than "
            f"{clip.name} ({clip.digest[:12]}): give --model and --pretrained of the training"
        )
    return fusions


def _samples(source: str) -> Samples:
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
    return Samples(images, texts)
