"""Zero-shot classification: nearest class prompt, with neither, either or both sides refined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..data import Labelled
from ..errors import ConfigError
from ..types import Vectors
from .frozen import Progress, Refines, given, image_vectors, prompt_vectors, refined_candidates, refined_queries, silent
from .metrics import Interval, bootstrap, ranks, top_k
from .table import gain, percent, table

Side = Literal["image", "text", "both"]
SIDES: tuple[Side, ...] = get_args(Side)


@dataclass(frozen=True)
class Variant:
    """One line of the result.

    Attributes:
        refined: the side that was refined; ``"frozen"`` for none.
        top1: share of images whose class is nearest, with its 95 % interval.
        top5: share of images whose class is among the five nearest.
        gain: top-1 minus frozen, on the same images, with its 95 % interval.
        moved: mean cosine distance between frozen and refined images; 0 means untouched.
        moved_prompts: the same for the class prompts.
    """

    refined: str
    top1: Interval
    top5: float
    gain: Interval
    moved: float
    moved_prompts: float


@dataclass(frozen=True)
class ZeroShotResult:
    """Frozen against refined on one labelled set.

    Attributes:
        name: of the set.
        images: N.
        classes: C.
        options: of the refinement, as far as they were given.
        variants: frozen first.
    """

    name: str
    images: int
    classes: int
    options: dict[str, Any]
    variants: tuple[Variant, ...]

    def __getitem__(self, refined: str) -> Variant:
        return next(variant for variant in self.variants if variant.refined == refined)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; shares are from 0 to 1."""
        variants = [asdict(v) | {"top1": v.top1._asdict(), "gain": v.gain._asdict()} for v in self.variants]
        return {"task": "zero-shot"} | asdict(self) | {"variants": variants}

    def render(self) -> str:
        """A plain text table, in per cent and points."""
        title = f"zero-shot, {self.name}: {self.images:,} images, {self.classes:,} classes"
        rows = [
            [v.refined, percent(v.top1.mean), percent(v.top5), "" if v.refined == "frozen" else gain(v.gain)]
            for v in self.variants
        ]
        return f"{title}\n{table(['refined', 'top-1 %', 'top-5 %', 'gain in top-1, 95 % interval'], rows)}"


def zero_shot(
    reco: Refines, labelled: Labelled, *, sides: Sequence[Side] = SIDES, progress: Progress = silent, **options: Any
) -> ZeroShotResult:
    """Classify images by the nearest class prompt, frozen and refined.

    Images are refined as queries, prompts as candidates, which compete. With several templates, a class is the mean
    of its prompts' vectors; that mean is refined, once per class. An image's own pair (same id) is hidden from it.
    Intervals are drawn over the set's groups, by default its classes.

    Args:
        reco: refines, and encodes where the set holds raw images.
        labelled: the set.
        sides: what to refine: image, text, both; frozen always comes first.
        progress: told how many items each encoded batch had.
        options: k, search, fusion, gate or where, handed to ``reco.refine``.

    Raises:
        ConfigError: an unknown side, or raw images and no encoder.
        InputError: options that cannot be used.
    """
    if unknown := [side for side in sides if side not in SIDES]:
        raise ConfigError(f"unknown side {unknown[0]!r}: choose from {', '.join(SIDES)}")
    images, prompts = image_vectors(reco, labelled.images, progress), prompt_vectors(reco, labelled, progress)
    own = None if labelled.query_ids is None else [(id_,) for id_ in labelled.query_ids]
    refined_images = refined_prompts = None
    if set(sides) & {"image", "both"}:
        refined_images = refined_queries(reco, images, "image", own, **options)
    if set(sides) & {"text", "both"}:
        refined_prompts = refined_candidates(reco, prompts, "text", None, **options)
    groups = labelled.labels if labelled.groups is None else labelled.groups
    frozen = ranks(images, prompts, labelled.labels)
    variants = [_variant("frozen", frozen, frozen, groups, (0.0, 0.0))]
    for side in sides:
        query = images if side == "text" or refined_images is None else refined_images
        candidates = prompts if side == "image" or refined_prompts is None else refined_prompts
        moved = (_moved(images, query), _moved(prompts, candidates))
        variants.append(_variant(side, ranks(query, candidates, labelled.labels), frozen, groups, moved))
    return ZeroShotResult(labelled.name, len(images), len(prompts), given(options), tuple(variants))


def _variant(
    name: str,
    rank: npt.NDArray[np.int64],
    frozen: npt.NDArray[np.int64],
    groups: npt.NDArray[Any],
    moved: tuple[float, float],
) -> Variant:
    hits = (rank < 1).astype(np.float64)
    return Variant(name, bootstrap(hits, groups), top_k(rank, 5), bootstrap(hits - (frozen < 1), groups), *moved)


def _moved(frozen: Vectors, refined: Vectors) -> float:
    return 0.0 if refined is frozen else float(np.mean(1.0 - np.sum(frozen * refined, axis=1)))
