"""Zero-shot classification: nearest class prompt, with neither, either or both sides refined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import numpy.typing as npt

from ..data import Labelled
from ..encode import Progress
from ..errors import ConfigError, InputError
from ..options import RefineHow, given_options
from ..score import Refines
from .encoding import labelled_task, prompts_of, silent, with_templates
from .measure import Measured, by_unseen, gain, measure_sides, move_among, refine_task, try_cautions, variants_of
from .reasons import Tried, count_own, little, reasons_of
from .results import SomeClasses, ZeroShotResult, per_query
from .task import SIDES, Side, Task

_REFINABLE = 50_000  # prompts: 1 GiB of neighbours at K=10, D=512


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
    candidates, which compete. An image's own pair (same id) is hidden from it. Where both are refined by the closed
    form, they are compared by exact scores, see :meth:`reco_plugin.reco.Reco.scores`.
    Intervals are drawn over the set's groups, by default its classes.

    The prompts of more than 50,000 classes stay plain, since the neighbours of all of them would be held at once.

    Where the set says which classes are unseen, seen and unseen classes are also classified among themselves, their
    prompts refined as a set of their own, and the accuracy among all classes is split into the two.

    Args:
        reco: refines, and encodes where the set holds raw images.
        labelled: the set.
        sides: what to refine: image, text, both; frozen always comes first.
        progress: called with the number of items of each encoded batch.
        options: k, search, fusion, gate or where, as in ``reco.refine``.

    Raises:
        ConfigError: an unknown side, or raw images and no encoder.
        InputError: options that cannot be used, or not one unseen flag for each class.
    """
    if labelled.unseen is not None:
        _check_flags(labelled.unseen, labelled.classes)
    sides = _sides(sides, len(labelled.classes))
    task = labelled_task(reco, labelled, progress)
    refined = refine_task(reco, task, sides, **options)
    found = measure_sides(task, [refined], sides)
    parts: dict[str, SomeClasses] = {}
    if task.unseen is not None:
        prompts = {"text"} if {"text", "both"} & set(sides) else set()
        for name, chosen in (("seen", ~task.unseen), ("unseen", task.unseen)):
            if len(part := task.among(chosen)):
                again = refine_task(reco, part, prompts, **options)  # other prompts compete; images do not
                again = replace(again, queries=refined.among(chosen).queries)
                again = move_among(reco, part, again, **options) if "both" in sides else again
                parts[name] = _part(part, measure_sides(part, [again], sides))
    names = labelled.query_ids or [f"image {row}" for row in range(1, len(labelled) + 1)]
    tried = _tried(reco, task, refined, found, **options) if "image" in sides else None
    own = count_own(reco, task.queries.vectors, task.queries.own)
    return ZeroShotResult(
        **vars(replace(_part(task, found, tried), own_pictures=own, ranks=per_query(names, found))),
        name=labelled.name,
        options=given_options(options),
        prompts=prompts_of(with_templates(reco, labelled), getattr(reco, "encoder", None)),
        seen=parts.get("seen"),
        unseen=parts.get("unseen"),
        generalised=by_unseen(found, task.query_unseen, task.groups),
    )


def _sides(sides: Sequence[Side], classes: int) -> list[Side]:
    """The sides to refine, checked; without prompts where there are too many of them."""
    if unknown := [side for side in sides if side not in SIDES]:
        raise ConfigError(f"unknown side {unknown[0]!r}: choose from {', '.join(SIDES)}")
    return [side for side in sides if side == "image" or classes <= _REFINABLE]


def _tried(
    reco: Refines,
    task: Task,
    refined: Task,
    found: Mapping[str, Measured],
    **options: Unpack[RefineHow],
) -> Tried | None:
    """What else was measured of refined images, where they gain little."""
    if not little(gain(found["image"], found["frozen"], task.groups)):
        return None
    lost = np.flatnonzero((found["frozen"].ranks[0] == 0) & (found["image"].ranks[0] > 0))
    classes = dict.fromkeys(task.classes[label] for label in task.queries.labels[lost])
    others = {side: gain(found[side], found["frozen"], task.groups) for side in ("text", "both") if side in found}
    return Tried(try_cautions(reco, task, refined.queries, **options), others, list(classes))


def _part(task: Task, found: Mapping[str, Measured], tried: Tried | None = None) -> SomeClasses:
    """The lines of one part of the classes."""
    variants = variants_of(found, task.groups)
    names = [task.classes[label] for label in task.candidates.labels]
    reasons = reasons_of(
        found, {line.refined: line.gain for line in variants}, "class prompts", names, {"image": tried} if tried else {}
    )
    return SomeClasses(images=len(task), classes=len(task.candidates), variants=variants, reasons=reasons)


def _check_flags(unseen: npt.NDArray[np.bool_], classes: Sequence[str]) -> None:
    if unseen.shape != (len(classes),) or unseen.dtype != np.bool_:
        raise InputError(f"unseen must be {len(classes)} flags, one per class, got {unseen.dtype} {unseen.shape}")
