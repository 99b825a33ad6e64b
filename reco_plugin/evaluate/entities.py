"""Entity recognition among very many names, as in OVEN: which of C entities, up to millions, does an image show?

Names are encoded part by part into a file and compared block by block, so neither all vectors nor all similarities
are ever in memory. A query may come with a question ("what is the make of this car?"); as in zero-shot
classification, only its image is used here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import numpy as np

from ..data import EntitySet
from ..encode import Progress
from ..errors import ConfigError
from ..options import RefineHow, given_options
from ..score import Refines
from ..types import Fingerprint, Vectors
from ..values import check_templates, fill
from .encoding import (
    CachedEncoder,
    Prompts,
    encoder_of,
    image_vectors,
    refine_candidates,
    refine_queries,
    silent,
    templates_of,
)
from .measure import Measured, by_unseen, mean_move, measure_sides, move_among, variants_of
from .ranking import Blocks, rank_blocks
from .reasons import count_own, reasons_of
from .results import EntityResult, per_query
from .task import Task, TaskItems

_TOP = 5
_REFINABLE = 50_000  # names that can be refined: the neighbours of all are held at once, 1 GiB at K=10, D=512
_ROWS = 1 << 15


def entities(
    reco: Refines,
    entity_set: EntitySet,
    *,
    template: str | None = None,
    candidates: bool = False,
    progress: Progress = silent,
    **options: Unpack[RefineHow],
) -> EntityResult:
    """Find the entity of each image among all names, frozen and with the image refined.

    Names stay frozen unless asked for: candidates are refined as a set, which needs the neighbours of all of them at
    once, so it is refused for more than 50,000; both sides are compared by exact scores, as :func:`.zero_shot` does. An
    image's own pair (same id) is hidden from it. Intervals are drawn over entities. Where the set says which queries
    are of unseen entities, accuracy among all candidates is also given for seen and unseen ones, with the harmonic
    mean.

    Args:
        reco: refines, and encodes raw images and names. A :class:`.encoding.CachedEncoder` keeps the vectors of the
            names; else they are in a temporary file.
        entity_set: the set.
        template: prompt with ``{}`` where the name goes; None: the model's (of several the first), or the name alone.
        candidates: also refine the names.
        progress: called with the number of items of each encoded batch.
        options: k, search, fusion, gate or where, as in ``reco.refine``.

    Raises:
        ConfigError: raw images or names and no encoder, a template without a place for the name or for names that are
            vectors, or too many names to refine.
        InputError: options that cannot be used.
        DataError: names that cannot be read, or their vectors not be written.
    """
    _check(entity_set, template, candidates=candidates)
    images = image_vectors(reco, entity_set.images, progress)
    prompts = _prompts(reco, entity_set, template)
    labels, unseen = entity_set.labels, entity_set.unseen
    own = None if entity_set.query_ids is None else [(id_,) for id_ in entity_set.query_ids]
    refined = refine_queries(reco, TaskItems(images, "image", labels, own), **options)
    with TemporaryDirectory(prefix="reco-entities-") as folder:
        names = _names(reco, entity_set, prompts, images.shape[1], Path(folder), progress)
        found = _measure_variants(reco, images, refined, names, options if candidates else None)
    variants = variants_of(found, labels)
    return EntityResult(
        name=entity_set.name,
        queries=len(images),
        entities=len(entity_set.entities),
        options=given_options(options),
        prompts=prompts,
        variants=variants,
        reasons=reasons_of(found, {line.refined: line.gain for line in variants}, "names"),
        own_pictures=count_own(reco, images, own),
        ranks=per_query(entity_set.query_ids or [f"image {row}" for row in range(1, len(images) + 1)], found),
        generalised=by_unseen(found, unseen, labels),
        generalised5=by_unseen(found, unseen, labels, _TOP),
    )


def _measure_variants(
    reco: Refines, images: Vectors, refined: TaskItems, names: Iterable[Vectors], options: RefineHow | None
) -> dict[str, Measured]:
    """Refined side -> its ranks; names (C, D) are refined too where there are options for that."""
    queries = np.concatenate([images, refined.vectors])  # in one pass over the names
    frozen, image = rank_blocks(queries, names, np.tile(refined.labels, 2), k=0).ranks.reshape(2, 1, -1)
    far = mean_move(images, refined.vectors)
    found = {"frozen": Measured(frozen), "image": Measured(image, (far, 0.0), refined.coverage)}
    if options is not None:
        vectors = np.concatenate(list(names))
        plain = TaskItems(vectors, "text", np.arange(len(vectors)))
        task = Task(replace(refined, vectors=images, moves=None), plain, refined.labels)
        moving = replace(task, queries=refined, candidates=refine_candidates(reco, plain, **options))
        moving = move_among(reco, task, moving, **options)
        measured = measure_sides(task, [moving], ("text", "both"))
        found |= {side: measured[side] for side in ("text", "both")}
    return found


def _check(entity_set: EntitySet, template: str | None, *, candidates: bool) -> None:
    """Refuse what cannot be measured, before anything is encoded."""
    total = len(entity_set.entities)
    if candidates and total > _REFINABLE:
        raise ConfigError(f"{total:,} names are too many to be refined as a set (at most {_REFINABLE:,}): leave them")
    if template is None:
        return
    check_templates([template])
    if entity_set.vectors() is not None:
        raise ConfigError(f"{entity_set.name} holds vectors of its names: a template has no effect, leave it out")


def _prompts(reco: Refines, entity_set: EntitySet, template: str | None) -> Prompts | None:
    """The prompts of the names; None where the set holds their vectors."""
    if entity_set.vectors() is not None:
        return None
    templates = templates_of(encoder_of(reco, "names"))
    if template is not None:
        return Prompts((template,), "caller", templates)
    if templates:
        return Prompts(templates[:1], "model", templates)
    return Prompts(("{}",), "default")


@dataclass(frozen=True)
class _Stored:
    """The vectors in the set itself, in blocks; can be iterated over again."""

    entity_set: EntitySet

    def __iter__(self) -> Iterator[Vectors]:
        return self.entity_set.vectors(_ROWS) or iter(())


def _names(
    reco: Refines, entity_set: EntitySet, prompts: Prompts | None, dimension: int, temporary: Path, progress: Progress
) -> Iterable[Vectors]:
    """The frozen vectors of all names, in blocks (c, D)."""
    if prompts is None:
        return _Stored(entity_set)
    template = prompts.templates[0]
    encoder = encoder_of(reco, "names")
    if not isinstance(encoder, CachedEncoder):
        encoder = CachedEncoder(encoder, Fingerprint("of this run", "unnamed", dimension), temporary)

    def texts() -> Iterator[str]:
        return (fill(template, name) for name in chain.from_iterable(entity_set.names()))

    return Blocks(encoder.stream(texts, len(entity_set.entities), progress), _ROWS)
