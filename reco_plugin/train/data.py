"""Training data of the fusion: frozen pairs and the neighbours of both sides, searched once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..defaults import SAME_IMAGE
from ..memory import Memory
from ..progress import progress_bar
from ..retrieve import Retrieval, retrieve
from ..types import MODALITIES, Modality, Records, Vectors
from .found import Collector, FoundRows, flush, new_array, open_array, open_rows

_LOOK = 32  # neighbours to check for near-duplicates at first; more where all of them are
_ROWS = 256  # queries per search


@dataclass(frozen=True)
class FusionData:
    """N training pairs."""

    pairs: Records  # frozen vectors of both sides, (N, D) each; without ids and payloads where opened from files
    groups: npt.NDArray[np.int64]  # (N,); pairs of one group show the same thing and are never negatives of one another
    neighbours: dict[Modality, FoundRows]  # K neighbours of each query of that side

    def __len__(self) -> int:
        return len(self.groups)


def hidden_ids(memory: Memory, pairs: Records, threshold: float = SAME_IMAGE) -> list[set[str]]:
    """Find the ids to hide from each of N pairs: itself and near-duplicate images.

    Without this the fusion learns to copy the query's own caption out of the memory.
    """
    hidden: list[set[str]] = []
    for start in range(0, len(pairs), _ROWS):
        near = _near_duplicates(memory, pairs.image[start : start + _ROWS], threshold, _LOOK)
        hidden += [ids | {pairs.ids[row]} for row, ids in enumerate(near, start)]
    return hidden


def _near_duplicates(memory: Memory, images: Vectors, threshold: float, look: int) -> list[set[str]]:
    """Find the ids of all images of the memory at least this near, for each of (B, D) images."""
    found = retrieve(memory, images, "image", Retrieval(k=look))
    near = [
        {id_ for id_, cosine in zip(ids, similarity, strict=False) if cosine >= threshold}
        for ids, similarity in zip(found.ids, found.similarity, strict=True)
    ]
    crowded = [row for row, ids in enumerate(near) if len(ids) == look]
    if crowded:
        for row, ids in zip(crowded, _near_duplicates(memory, images[crowded], threshold, 4 * look), strict=True):
            near[row] = ids
    return near


def gather(
    memory: Memory,
    pairs: Records,
    how: Retrieval,
    groups: Sequence[str] | None = None,
    hidden: Sequence[Collection[str]] | None = None,
    folder: Path | None = None,
) -> FusionData:
    """Search the memory for both queries of every pair.

    Args:
        memory: any memory; it may hold the pairs themselves.
        pairs: frozen vectors, (N, D) each.
        how: k and the search and fusion modes to train for.
        groups: (N,) groups of pairs that show the same thing; each pair is its own when None.
        hidden: from :func:`hidden_ids`, with its defaults when None.
        folder: a new folder for the vectors and neighbours as memory maps, also for other processes
            (:func:`open_data`); it appears when complete. In RAM when None.
    """
    hidden = hidden if hidden is not None else hidden_ids(memory, pairs)
    names = groups if groups is not None else pairs.ids
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    numbers = np.array([number[name] for name in names], np.int64)
    part = _part(folder) if folder else None
    with progress_bar(total=2 * len(pairs), desc="find neighbours", unit="query") as bar:
        neighbours = {side: _neighbours(memory, pairs, side, how, hidden, part, bar.update) for side in MODALITIES}
    if folder and part:
        pairs = _store(pairs, numbers, part)
        part.rename(folder)
    return FusionData(pairs, numbers, neighbours)


def open_data(folder: Path) -> FusionData:
    """Open the folder of :func:`gather`, without the ids, which training does not need."""
    image, text, groups = (open_array(folder, name) for name in (*MODALITIES, "groups"))
    return FusionData(Records([], image, text, []), groups, {side: open_rows(folder, side) for side in MODALITIES})


def _neighbours(
    memory: Memory,
    pairs: Records,
    side: Modality,
    how: Retrieval,
    hidden: Sequence[Collection[str]],
    folder: Path | None,
    progress: Callable[[int], object],
) -> FoundRows:
    found = Collector(folder, side, len(pairs), how.k, memory.count(), pairs.image.shape[1])
    for start in range(0, len(pairs), _ROWS):
        rows = slice(start, start + _ROWS)
        found.add(start, retrieve(memory, pairs.side(side)[rows], side, how, exclude=hidden[rows]))
        progress(len(pairs.ids[rows]))
    return found.rows()


def _part(folder: Path) -> Path:
    """Make an empty folder beside it to write to; removes that of a killed process."""
    part = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def _store(pairs: Records, groups: npt.NDArray[np.int64], folder: Path) -> Records:
    """Write the vectors of pairs, (N, D) each, to files; returns the pairs with memory maps."""
    for name, array in (("image", pairs.image), ("text", pairs.text), ("groups", groups)):
        stored = new_array(folder, name, array.shape, array.dtype)
        stored[:] = array
        flush(stored)
    return Records(pairs.ids, open_array(folder, "image"), open_array(folder, "text"), pairs.payloads)
