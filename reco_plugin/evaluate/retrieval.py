"""Image-text retrieval in both directions, either side refined or not, and each modality among its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import numpy.typing as npt

from ..data import Captioned
from ..encode import Progress
from ..options import RefineHow, given_options
from ..score import Refines
from ..types import Modality, Role, Vectors
from .encoding import image_vectors, refine_candidates, refine_queries, silent, text_vectors
from .measure import (
    Measured,
    gain,
    mean_move,
    measure_among_own,
    measure_exact,
    measure_sides,
    move_among,
    try_cautions,
)
from .ranking import RECALL_AT
from .reasons import Reason, Tried, count_own, little, why
from .results import PerQuery, RetrievalResult, RetrievalVariant, per_query
from .task import Task, TaskItems

_DEPTH = 10  # of nDCG
_REFINED = ("frozen", "query", "index", "both", "exact")
_DIRECTIONS: tuple[tuple[Modality, Modality], ...] = (("text", "image"), ("image", "text"))


def retrieval(
    reco: Refines,
    captioned: Captioned,
    *,
    progress: Progress = silent,
    **options: Unpack[RefineHow],
) -> RetrievalResult:
    """Search images by texts and texts by images, frozen and refined.

    A text finds its image; an image finds any of its texts. The searching side is refined as queries, the searched side
    as candidates, which compete. They are compared as vectors, as in a search index, also where both sides are refined;
    and then by exact scores, too, where the fusion has them (:meth:`reco_plugin.reco.Reco.scores`). Pairs of the memory
    that are the image's own (same id) are hidden from the image and from its texts. Intervals are drawn over images.
    Each modality is also searched among its own, where enough images have several texts, or share one.

    Args:
        reco: refines, and encodes where the set holds raw images and texts.
        captioned: the set.
        progress: called with the number of items of each encoded batch.
        options: k, search, fusion, gate or where, as in ``reco.refine``.

    Raises:
        ConfigError: raw images or texts and no encoder.
        InputError: options that cannot be used.
    """
    plain, owner = _encoded(reco, captioned, progress), captioned.text_of_image
    queries = {side: refine_queries(reco, items, **options) for side, items in plain.items()}
    index = {side: refine_candidates(reco, items, **options) for side, items in plain.items()}
    variants, reasons, by_query = list[RetrievalVariant](), list[Reason | None](), dict[str, PerQuery]()
    for asks, searched in _DIRECTIONS:
        task = Task(plain[asks], plain[searched], plain[asks].labels)
        refined = replace(task, queries=queries[asks], candidates=index[searched])
        described = np.isin(task.queries.labels, task.candidates.labels)  # images without texts are no queries
        asked, moved = task.only(described), refined.only(described)
        found = _measured(reco, asked, moved, **options)
        variants += (lines := _lines(f"{asks}->{searched}", found, task.groups[described]))
        names = _names(captioned, asks, described)
        by_query[f"{asks}->{searched}"] = per_query(names, dict(zip(_REFINED, found.values(), strict=False)))
        lost = _lost(found, asks, names)
        cautions = try_cautions(reco, asked, queries[asks], **options) if little(lines[1].gain) else {}
        others = [{other.refined: other.gain for other in lines[1:] if other is not line} for line in lines[1:3]]
        reasons.append(_reason(lines[1], plain[asks], queries[asks], Tried(cautions, others[0], lost)))
        reasons.append(_reason(lines[2], plain[searched], index[searched], Tried(others=others[1])))
    own, alike = _among_own(reco, plain, captioned, **options)
    return RetrievalResult(
        captioned.name,
        len(plain["image"]),
        len(plain["text"]),
        given_options(options),
        (*variants, *own),
        tuple(reason for reason in reasons if reason is not None),
        _count_repeated(captioned.texts, owner),
        count_own(reco, plain["image"].vectors, captioned.ids),
        by_query,
        alike,
    )


def _encoded(reco: Refines, captioned: Captioned, progress: Progress) -> dict[Modality, TaskItems]:
    """Texts, (M, D), and images, (N, D), labelled by the image; errors as in :func:`retrieval`."""
    images, texts = image_vectors(reco, captioned.images, progress), text_vectors(reco, captioned.texts, progress)
    owner, own = captioned.text_of_image, captioned.ids
    return {
        "text": TaskItems(texts, "text", owner, None if own is None else [own[row] for row in owner]),
        "image": TaskItems(images, "image", np.arange(len(images)), own),
    }


def _measured(reco: Refines, asked: Task, moved: Task, **options: Unpack[RefineHow]) -> dict[str, Measured]:
    """Each side frozen and refined, and by exact scores where the fusion has them."""
    found = dict(measure_sides(asked, [moved], depth=_DEPTH))
    exact = measure_exact(asked, move_among(reco, asked, moved, **options), _DEPTH)
    return found if exact is None else found | {"exact": exact}


def _alike(images: TaskItems, captioned: Captioned) -> TaskItems:
    """Images, labelled by the first one that shares a text with them."""
    labels = _first_with_a_text_of(captioned.texts, captioned.text_of_image, len(images))
    return replace(images, labels=labels)


def _among_own(
    reco: Refines, plain: Mapping[Modality, TaskItems], captioned: Captioned, **options: Unpack[RefineHow]
) -> tuple[list[RetrievalVariant], dict[str, int]]:
    """The lines of each modality among its own, and by direction how many have another one of their image, or text."""
    lines, alike = list[RetrievalVariant](), dict[str, int]()
    for items in (plain["text"], _alike(plain["image"], captioned)):
        direction = f"{items.modality}->{items.modality}"
        found, labels = measure_among_own(reco, items, _DEPTH, **options)
        lines += _lines(direction, found, labels)
        alike[direction] = len(labels)
    return lines, alike


def _first_with_a_text_of(
    texts: Sequence[str] | Vectors, owner: npt.NDArray[np.int64], images: int
) -> npt.NDArray[np.int64]:
    """Of each image, (N,), the first one that shares a text with it: itself, where none does; M texts."""
    first, shown = dict[str | bytes, int](), np.arange(images)
    for text, image in zip(texts, owner.tolist(), strict=True):
        key = text if isinstance(text, str) else text.tobytes()
        shown[image] = min(shown[image], first.setdefault(key, image))
    return shown


def _names(captioned: Captioned, asks: Modality, chosen: npt.NDArray[np.bool_]) -> list[str]:
    """What the chosen queries, (N,), are called: texts by themselves, images by their first id, others by their row."""
    items = captioned.texts if asks == "text" else captioned.images
    if asks == "image" and captioned.ids is not None:
        names = [own[0] for own in captioned.ids]
    elif asks == "text" and not isinstance(items, np.ndarray):
        names = [str(text) for text in items]
    else:
        names = [f"{asks} {row}" for row in range(1, len(items) + 1)]
    return [names[row] for row in np.flatnonzero(chosen).tolist()]


def _lost(found: Mapping[str, Measured], refined: str, names: Sequence[str]) -> list[str]:
    """Names of the queries, of N, that frozen vectors answer and refined ones do not."""
    rows = np.flatnonzero((found["frozen"].ranks[0] == 0) & (found[refined].ranks[0] > 0))
    return list(dict.fromkeys(names[row] for row in rows.tolist()))


def _count_repeated(texts: Sequence[str] | Vectors, owner: npt.NDArray[np.int64]) -> int:
    """Count texts that describe another image too: the same text, or the same vector (M, D)."""
    owners: dict[str | bytes, set[int]] = defaultdict(set)
    keys = [text if isinstance(text, str) else text.tobytes() for text in texts]
    for key, image in zip(keys, owner.tolist(), strict=True):
        owners[key].add(image)
    return sum(len(owners[key]) > 1 for key in keys)


def _reason(line: RetrievalVariant, plain: TaskItems, refined: TaskItems, tried: Tried) -> Reason | None:
    """Say why a line with one side (N, D) refined gained little."""
    role: Role = "query" if line.refined == "query" else "candidate"
    far = mean_move(plain.vectors, refined.vectors)
    return why(f"{line.direction} {line.refined}", f"{line.side}s", role, line.gain, refined.coverage, far, tried=tried)


def _lines(direction: str, found: Mapping[str, Measured], groups: npt.NDArray[np.int64]) -> list[RetrievalVariant]:
    """The lines of one direction; groups are (N,)."""
    return [
        RetrievalVariant(
            direction=direction,
            refined=refined,
            recall={k: float(one.top(k).mean()) for k in RECALL_AT},
            gain=gain(one, found["frozen"], groups),
            ndcg10=float(np.mean(one.ndcg)),
        )
        for refined, one in zip(_REFINED, found.values(), strict=False)  # not all fusions have exact scores
    ]
