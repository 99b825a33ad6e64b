"""From pictures of candidates to a data set: worded; no blanks, copies of queries, look-alikes, nor what few draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reco_plugin.quickstart.dataset import BenchPair, make_rng

from .met_in_pretraining import MET_IN_PRETRAINING
from .package_set import Entity, PackageSet

_INK = 12  # a pixel that differs more from white, in any channel, belongs to the drawing
_LEAST_INK = 0.01
_AT_ONCE = 64  # images whose pixels a core's cache holds
_SAME = 0.12  # copies with another antialiasing or shade are nearer, another author's drawings are farther
_NAMELESS = 0.15  # the share of captions that tell about the entity but do not name it, as in the quickstart
_USUAL = 0.7  # the share of names that are the usual one
_MOST_HINTS = 2
_LEAST_FAMILIES = 2  # of the memory: a query must be able to find more than one author's drawing


class Picture(NamedTuple):
    """What one image of a candidate is."""

    entity: str
    style: str
    family: str


def assemble(
    name: str,
    entities: Sequence[Entity],
    pictures: Sequence[Picture],
    images: npt.NDArray[np.uint8],
    *,
    query_styles: tuple[str, ...],
    templates: Sequence[str],
) -> PackageSet:
    """Make the data set of the candidates that can be asked for and found.

    Args:
        name: of the data set.
        entities: candidates; of two that look the same, the earlier stays.
        pictures: what each image is.
        images: (N, 64, 64, 3) uint8.
        query_styles: styles that only ask.
        templates: for captions, with ``{}`` for the name.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row in map(int, np.flatnonzero(visible(images))):
        rows_of[pictures[row].entity].append(row)
    chosen = {key: without_copies(rows, pictures, images, query_styles) for key, rows in rows_of.items()}
    chosen = {key: found for key, found in chosen.items() if complete(found.values(), query_styles)}
    lost = twins([entity.key for entity in entities], chosen, images).keys() | MET_IN_PRETRAINING[name]
    kept = [entity for entity in entities if entity.key in chosen and entity.key not in lost]
    items = [
        BenchPair(key, style, family, caption(key, style, entity.names, entity.hints, templates), entity.split)
        for entity in kept
        for key, style, family in chosen[entity.key].values()
    ]
    rows = [row for entity in kept for row in chosen[entity.key]]
    return PackageSet(name, images[rows], items, kept, query_styles)


def complete(pictures: Iterable[Picture], query_styles: tuple[str, ...]) -> bool:
    """Whether these pictures of one entity suffice to ask for it and to find it: else nothing of it stays."""
    drawn = list(pictures)
    families = {picture.family for picture in drawn if picture.style not in query_styles}
    return len(families) >= _LEAST_FAMILIES and any(picture.style in query_styles for picture in drawn)


def without_copies(
    rows: Sequence[int], pictures: Sequence[Picture], images: npt.NDArray[np.uint8], query_styles: tuple[str, ...]
) -> dict[int, Picture]:
    """Keep the drawings of one entity that are no copies of a query; returns row -> picture.

    Two packages may trace one original. A copy of a query would answer it before any memory was needed, so it is
    dropped; copies among the rest are one family, as drawings of one author are.
    """
    same = alike(images[list(rows)])
    asks = np.array([pictures[row].style in query_styles for row in rows])
    found: dict[int, Picture] = {}
    for place, row in enumerate(rows):
        if asks[place] or not same[place, asks].any():
            first = next((rows[i] for i in range(place) if same[place, i] and rows[i] in found), row)
            found[row] = pictures[row]._replace(family=found.get(first, pictures[row]).family)
    return found


def twins(
    keys: Sequence[str], chosen: Mapping[str, Mapping[int, Picture]], images: npt.NDArray[np.uint8]
) -> dict[str, str]:
    """Find the entities that nobody can tell from an earlier one; returns later -> earlier.

    Two are twins when at least half of the styles that draw both draw them alike.

    Args:
        keys: of the entities, in the order that decides which one stays.
        chosen: entity -> row of ``images`` -> picture.
        images: (N, H, W, 3) uint8.
    """
    same = np.zeros((len(keys), len(keys)), np.int32)
    both = np.zeros_like(same)
    rows_of: dict[str, dict[int, int]] = defaultdict(dict)  # style -> place among the keys -> row
    for place, key in enumerate(keys):
        for row, picture in chosen.get(key, {}).items():
            rows_of[picture.style][place] = row
    for rows in rows_of.values():
        here = np.ix_([*rows], [*rows])
        both[here] += 1
        same[here] += alike(images[[*rows.values()]])
    found: dict[str, str] = {}
    for later, earlier in np.argwhere(np.tril((2 * same >= both) & (both > 0), -1)):
        if keys[earlier] not in found:
            found.setdefault(keys[later], keys[earlier])
    return found


def visible(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Tell which of (N, H, W, 3) images show anything on their white ground; returns (N,)."""
    shares = [np.zeros(0)]
    for start in range(0, len(images), _AT_ONCE):
        red, green, blue = np.moveaxis(images[start : start + _AT_ONCE] < 255 - _INK, -1, 0)
        shares.append((red | green | blue).mean(axis=(1, 2)))
    return np.concatenate(shares) >= _LEAST_INK


def alike(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Tell which of (N, H, W, 3) images are the same drawing; returns (N, N), symmetric.

    Two are when their Euclidean distance is below 12 % of the ink of the one that has more. Of 248 flags in the two
    query styles, none is so near to another package's drawing of it; of 602 black logos half are, traced from one
    original.

    >>> dark, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 20, np.uint8)
    >>> alike(np.stack([dark, grey, 255 - dark])).astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    ink = (255 - images.reshape(len(images), -1)).astype(np.float32) / 255
    squares = np.einsum("nd,nd->n", ink, ink)
    between = np.maximum(squares[:, None] + squares[None] - 2 * ink @ ink.T, 0)
    same = between <= _SAME**2 * np.maximum(squares[:, None], squares[None])
    return np.asarray(same | np.eye(len(images), dtype=np.bool_))


def caption(key: str, style: str, names: Sequence[str], hints: Sequence[str], templates: Sequence[str]) -> str:
    """Word the caption of an entity in a style; depends on the arguments alone.

    Args:
        key: the entity.
        style: of the drawing.
        names: any of them names it; the first does so most often.
        hints: facts that do not name it.
        templates: with ``{}`` for the name.

    >>> caption("de", "round", ["Germany"], [], ["flag of {}"])
    'flag of Germany'
    """
    rng = make_rng("caption", key, style)
    told = list(hints)
    rng.shuffle(told)
    if told and rng.random() < _NAMELESS:
        return ", ".join(told[: 1 + _MOST_HINTS])
    name = names[0] if len(names) == 1 or rng.random() < _USUAL else rng.choice(list(names[1:]))
    return ", ".join([rng.choice(list(templates)).format(name), *told[: rng.randint(0, _MOST_HINTS)]])
