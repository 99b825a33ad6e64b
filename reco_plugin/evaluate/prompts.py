"""The prompt templates of class names: the caller's, the source's, the model's, or CLIP's own, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data import Labelled
from ..data.labelled import TEMPLATES, TemplatesFrom, fill
from ..encode import Progress
from ..score import Refines
from ..types import Vectors
from .encoding import Encodes, encoder_of, image_vectors, silent, templates_of
from .task import Task, task_of

_WHOSE: Mapping[TemplatesFrom, str] = {
    "caller": "as asked for",
    "source": "from the source",
    "model": "from the model",
    "default": "by default: neither source nor model names any",
}


@dataclass(frozen=True)
class Prompts:
    """The templates in use, and where they are from."""

    templates: tuple[str, ...]  # with ``{}`` where the name goes
    templates_from: TemplatesFrom
    trained_with: tuple[str, ...] = ()  # the templates that the encoder was trained with, where known

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values."""
        return {"templates": list(self.templates), "from": self.templates_from}

    def __str__(self) -> str:
        known = self.templates_from == "model" or not self.trained_with or set(self.trained_with) & set(self.templates)
        instead = "" if known else f"; the model was trained with {_some(self.trained_with)}"
        return f"{_some(self.templates)} ({_WHOSE[self.templates_from]}{instead})"


def _some(templates: tuple[str, ...]) -> str:
    return repr(templates[0]) + (f" and {len(templates) - 1} more" if len(templates) > 1 else "")


def prompts_of(labelled: Labelled, encoder: Encodes | None) -> Prompts | None:
    """The prompts of a set's class names; None where it holds prompt vectors."""
    if labelled.prompts is not None:
        return None
    return Prompts(labelled.templates, labelled.templates_from, templates_of(encoder))


def with_templates(reco: Refines, labelled: Labelled) -> Labelled:
    """The set with the model's templates where it has none of its own, or CLIP's where the model has none.

    Raises:
        ConfigError: class names without templates, and no encoder.
    """
    if labelled.prompts is not None or labelled.templates:
        return labelled
    if templates := templates_of(encoder_of(reco, "class names")):
        return replace(labelled, templates=templates, templates_from="model")
    return replace(labelled, templates=TEMPLATES, templates_from="default")


def prompt_vectors(reco: Refines, labelled: Labelled, progress: Progress = silent) -> Vectors:
    """One frozen vector (C, D) per class: the mean over the templates, normalised.

    Raises:
        ConfigError: no prompt vectors and no encoder.
    """
    if labelled.prompts is not None:
        return labelled.prompts
    encoder, templates = encoder_of(reco, "class names"), with_templates(reco, labelled).templates
    prompts = ([fill(template, name) for name in labelled.classes] for template in templates)
    total = np.sum([encoder.texts(texts, progress) for texts in prompts], axis=0)
    return np.asarray(total / np.linalg.norm(total, axis=1, keepdims=True), np.float32)


def labelled_task(reco: Refines, labelled: Labelled, progress: Progress = silent) -> Task:
    """Make the classification task of a labelled set, of frozen vectors.

    Raises:
        ConfigError: raw images or class names, and no encoder.
    """
    images = image_vectors(reco, labelled.images, progress)
    return task_of(labelled, images, prompt_vectors(reco, labelled, progress))
