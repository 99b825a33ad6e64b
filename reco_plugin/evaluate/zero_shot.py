"""Zero-shot classification: nearest class prompt, with neither, either or both sides refined."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack, get_args

import numpy as np
import numpy.typing as npt

from ..data import Labelled
from ..errors import ConfigError, InputError
from ..request import RefineHow, said
from ..types import Vectors
from .frozen import Progress, Refined, Refines, image_vectors, refined_candidates, refined_queries, silent
from .generalised import generalised
from .prompts import prompt_vectors, prompts_of, with_templates
from .ranking import ranks
from .reasons import reasons_of
from .variants import Ranked, moved, variants_of
from .zero_shot_result import Part, ZeroShotResult

Side = Literal["image", "text", "both"]
SIDES: tuple[Side, ...] = get_args(Side)


def zero_shot(
    reco: Refines,
    labelled: Labelled,
    *,
    sides: Sequence[Side] = SIDES,
    progress: Progress = silent,
    **options: Unpack[RefineHow],
) -> ZeroShotResult:
    """Classify images by the nearest class prompt, frozen and refined.

    Names are put into the set's templates, or into the model's where it has none; with several, a class is the mean of
    its prompts' vectors, and that mean is refined, once per class. Images are refined as queries, prompts as
    candidates, which compete. An image's own pair (same id) is hidden from it. Intervals
    are drawn over the set's groups, by default its classes.

    Where the set says which classes are unseen, seen and unseen classes are also classified among themselves, their
    prompts refined as a set of their own, and the accuracy among all classes is split into the two.

    Args:
        reco: refines, and encodes where the set holds raw images.
        labelled: the set.
        sides: what to refine: image, text, both; frozen always comes first.
        progress: told how many items each encoded batch had.
        options: k, search, fusion, gate or where, handed to ``reco.refine``.

    Raises:
        ConfigError: an unknown side, or raw images and no encoder.
        InputError: options that cannot be used, or not one unseen flag for each class.
    """
    if unknown := [side for side in sides if side not in SIDES]:
        raise ConfigError(f"unknown side {unknown[0]!r}: choose from {', '.join(SIDES)}")
    unseen = None if labelled.unseen is None else _flags(labelled.unseen, labelled.classes)
    images, labelled = image_vectors(reco, labelled.images, progress), with_templates(reco, labelled)
    prompts = prompt_vectors(reco, labelled, progress)
    own = None if labelled.query_ids is None else [(id_,) for id_ in labelled.query_ids]
    moving = bool({"image", "both"} & set(sides))
    refined = refined_queries(reco, images, "image", own, **options) if moving else Refined(images, None)
    groups = labelled.labels if labelled.groups is None else labelled.groups
    task = _Task(images, refined, prompts, labelled.labels, groups)
    found = task.solve(reco, sides, options)
    whole = task.result(found)
    parts: dict[str, Part] = {}
    if unseen is not None:
        parts = {
            name: part.result(part.solve(reco, sides, options))
            for name, chosen in {"seen": ~unseen, "unseen": unseen}.items()
            if len((part := task.among(chosen)).images)
        }
    return ZeroShotResult(
        name=labelled.name,
        images=len(images),
        classes=len(prompts),
        options=said(options),
        prompts=prompts_of(labelled, getattr(reco, "encoder", None)),
        variants=whole.variants,
        reasons=whole.reasons,
        **parts,
        generalised=()
        if unseen is None
        else generalised({side: one.ranks for side, one in found.items()}, unseen[labelled.labels], groups),
    )


@dataclass(frozen=True)
class _Task:
    """Images (N, D), frozen and refined, with labels (N,) among prompts (C, D)."""

    images: Vectors
    refined: Refined
    prompts: Vectors
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[Any]

    def among(self, classes: npt.NDArray[np.bool_]) -> _Task:
        """Only the images of some classes (C,), and only those classes to choose from."""
        rows, number = classes[self.labels], np.cumsum(classes) - 1
        refined = Refined(self.refined.vectors[rows], None)  # how far these images are answered was not told
        labels = number[self.labels[rows]]
        return _Task(self.images[rows], refined, self.prompts[classes], labels, self.groups[rows])

    def solve(self, reco: Refines, sides: Collection[Side], options: RefineHow) -> dict[str, Ranked]:
        """Rank with each side refined; the prompts are refined as the set that competes here."""
        moving = bool({"text", "both"} & set(sides))
        refined = self.refined
        prompts = (
            refined_candidates(reco, self.prompts, "text", None, **options) if moving else Refined(self.prompts, None)
        )
        pairs = {
            "frozen": (self.images, self.prompts, None),
            "image": (refined.vectors, self.prompts, refined.coverage),
            "text": (self.images, prompts.vectors, prompts.coverage),
            "both": (refined.vectors, prompts.vectors, None),
        }
        return {
            side: Ranked(
                ranks(query, candidates, self.labels),
                moved(self.images, query),
                moved(self.prompts, candidates),
                coverage,
            )
            for side, (query, candidates, coverage) in ((side, pairs[side]) for side in ("frozen", *sides))
        }

    def result(self, found: Mapping[str, Ranked]) -> Part:
        """The lines of what :meth:`solve` found."""
        variants = variants_of(found, self.groups)
        return Part(len(self.images), len(self.prompts), variants, reasons_of(found, variants, "class prompts"))


def _flags(unseen: npt.NDArray[np.bool_], classes: Sequence[str]) -> npt.NDArray[np.bool_]:
    if unseen.shape != (len(classes),) or unseen.dtype != np.bool_:
        raise InputError(f"unseen must be {len(classes)} flags, one per class, got {unseen.dtype} {unseen.shape}")
    return unseen
