"""Entity recognition among very many names, as in OVEN: which of C entities, up to millions, does an image show?

Names are encoded portion by portion into a file and compared block by block, so neither all vectors nor all
similarities are ever in memory. A query may come with a question ("what is the make of this car?"); as in zero-shot
classification, only its image is used here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import numpy as np
import numpy.typing as npt

from ..data import EntitySet
from ..data.classes import check_templates, fill
from ..errors import ConfigError
from ..request import RefineHow, said
from ..types import Fingerprint, Vectors
from .blocks import Blocks, rank_blocks
from .cached import CachedEncoder
from .entity_result import EntityResult
from .frozen import Progress, Refines, encoder_of, image_vectors, refined_candidates, refined_queries, silent
from .generalised import generalised
from .prompts import Prompts, templates_of
from .reasons import reasons_of
from .variants import Ranked, moved, variants_of

NAME_ALONE = "{}"
"""The template that is the name of the entity and nothing else."""
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
    once, so it is refused for more than 50,000. An image's own pair (same id) is hidden from it. Intervals are drawn
    over entities. Where the set says which queries are of unseen entities, accuracy is also given for both kinds apart,
    among all candidates, with the harmonic mean.

    Args:
        reco: refines, and encodes what the set holds raw. When its encoder is a :class:`.cached.CachedEncoder`, the
            names' vectors are kept there; else they lie in a temporary file.
        entity_set: the set.
        template: prompt with ``{}`` where the name goes; None: the model's (of several the first), or the name alone.
        candidates: also refine the names.
        progress: told how many items each encoded batch had.
        options: k, search, fusion, gate or where, handed to ``reco.refine``.

    Raises:
        ConfigError: raw images or names and no encoder, a template without a place for the name or for names that are
            vectors, or too many names to refine.
        InputError: options that cannot be used.
        DataError: names that cannot be read, or their vectors not be written.
    """
    _check(entity_set, template, candidates=candidates)
    images = image_vectors(reco, entity_set.images, progress)
    prompts = _prompts(reco, entity_set, template)
    own = None if entity_set.query_ids is None else [(id_,) for id_ in entity_set.query_ids]
    refined = refined_queries(reco, images, "image", own, **options)
    with TemporaryDirectory(prefix="reco-entities-") as folder:
        names = _names(reco, entity_set, prompts, images.shape[1], Path(folder), progress)
        ranks = _ranks({"frozen": images, "image": refined.vectors}, names, entity_set.labels)
        moved_names, told = 0.0, {"image": refined.coverage}
        if candidates:
            plain = np.concatenate(list(names))
            refined_names = refined_candidates(reco, plain, "text", None, **options)
            ranks |= _ranks({"text": images, "both": refined.vectors}, [refined_names.vectors], entity_set.labels)
            moved_names, told["text"] = moved(plain, refined_names.vectors), refined_names.coverage
    far = {"frozen": (0.0, 0.0), "image": (moved(images, refined.vectors), 0.0), "text": (0.0, moved_names)}
    far["both"] = (far["image"][0], far["text"][1])
    found = {side: Ranked(rank, *far[side], told.get(side)) for side, rank in ranks.items()}
    variants = variants_of(found, entity_set.labels)
    unseen = entity_set.unseen
    split = [() if unseen is None else generalised(ranks, unseen, entity_set.labels, k) for k in (1, _TOP)]
    return EntityResult(
        name=entity_set.name,
        queries=len(images),
        entities=len(entity_set.entities),
        options=said(options),
        prompts=prompts,
        variants=variants,
        reasons=reasons_of(found, variants, "names"),
        generalised=split[0],
        generalised5=split[1],
    )


def _check(entity_set: EntitySet, template: str | None, *, candidates: bool) -> None:
    """Refuse what cannot be done before anything is encoded."""
    total = len(entity_set.entities)
    if candidates and total > _REFINABLE:
        raise ConfigError(f"{total:,} names are too many to be refined as a set (at most {_REFINABLE:,}): leave them")
    if template is None:
        return
    check_templates([template])
    if entity_set.vectors() is not None:
        raise ConfigError(f"{entity_set.name} holds vectors of its names: a template cannot change them, leave it out")


def _prompts(reco: Refines, entity_set: EntitySet, template: str | None) -> Prompts | None:
    """What names are put into; None where the set holds their vectors."""
    if entity_set.vectors() is not None:
        return None
    templates = templates_of(encoder_of(reco, "names"))
    if template is not None:
        return Prompts((template,), "caller", templates)
    if templates:
        return Prompts(templates[:1], "model", templates)
    return Prompts((NAME_ALONE,), "default")


@dataclass(frozen=True)
class _Stored:
    """The vectors that the set itself has, in blocks, each time anew."""

    entity_set: EntitySet

    def __iter__(self) -> Iterator[Vectors]:
        return self.entity_set.vectors(_ROWS) or iter(())


def _names(
    reco: Refines, entity_set: EntitySet, prompts: Prompts | None, dimension: int, temporary: Path, progress: Progress
) -> Iterable[Vectors]:
    """The frozen vectors of all names, in blocks."""
    if prompts is None:
        return _Stored(entity_set)
    template = prompts.templates[0]
    encoder = encoder_of(reco, "names")
    if not isinstance(encoder, CachedEncoder):
        encoder = CachedEncoder(encoder, Fingerprint("of this run", "unnamed", dimension), temporary)

    def texts() -> Iterator[str]:
        return (fill(template, name) for name in chain.from_iterable(entity_set.names()))

    return Blocks(encoder.stream(texts, len(entity_set.entities), progress), _ROWS)


def _ranks(
    queries: dict[str, Vectors], names: Iterable[Vectors], labels: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[np.int64]]:
    """Ranks of the queries of several variants, in one go over the names."""
    found = rank_blocks(np.concatenate(list(queries.values())), names, np.tile(labels, len(queries)), k=0)
    return dict(zip(queries, np.split(found.ranks, len(queries)), strict=True))
