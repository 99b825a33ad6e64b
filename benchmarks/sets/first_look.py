"""How hard a data set is before anything is refined, as figures and as a picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from reco_plugin.evaluate.ranking import ranks, top_k
from reco_plugin.quickstart.entities import EntitySplit, make_rng
from reco_plugin.types import Vectors

from .package_set import PackageSet
from .vectors import VectorSet

_GAP = 2
_GROUND = (150, 170, 190)  # between black and white drawings, so that both show


@dataclass(frozen=True)
class FirstLook:
    """Shares of one split, frozen vectors only.

    Attributes:
        queries: how many.
        labels: how many names compete.
        top1: queries whose own name, among those of the split, is nearest.
        top5: is among the five nearest.
        image_hit1: queries whose nearest pair of the whole memory, image to image, is of their entity.
        image_hit5: one of the five nearest is.
        text_hit1: names whose nearest caption of the whole memory is of their entity.
        across_hit5: queries that find a caption of their entity among the five nearest: what the encoder lacks.
    """

    queries: int
    labels: int
    top1: float
    top5: float
    image_hit1: float
    image_hit5: float
    text_hit1: float
    across_hit5: float

    def line(self, name: str) -> str:
        """One line of a table, shares in per cent."""
        values = asdict(self)
        counts = f"{values.pop('queries'):>7} {values.pop('labels'):>6}"
        return f"{name:<16}{counts} " + " ".join(f"{100 * share:>11.1f}" for share in values.values())


HEAD = f"{'':<16}queries labels " + " ".join(f"{name:>11}" for name in list(FirstLook.__annotations__)[2:])


def first_look(data: VectorSet, split: EntitySplit = "unseen") -> FirstLook:
    """Measure frozen zero-shot accuracy and what a search in the whole memory finds."""
    labels = np.flatnonzero(np.array(data.splits) == split)
    asked = np.flatnonzero(np.isin(data.truth, labels))
    images, truth = data.queries.image[asked], data.truth[asked]
    found = ranks(images, data.prompts[labels], np.searchsorted(labels, truth))
    by_image = _found(images, data.memory.image, truth, data.memory_entity)
    return FirstLook(
        queries=len(asked),
        labels=len(labels),
        top1=float(top_k(found, 1)),
        top5=float(top_k(found, 5)),
        image_hit1=float(by_image[:, 0].mean()),
        image_hit5=float(by_image.any(axis=1).mean()),
        text_hit1=float(_found(data.prompts[labels], data.memory.text, labels, data.memory_entity)[:, 0].mean()),
        across_hit5=float(_found(images, data.memory.text, truth, data.memory_entity).any(axis=1).mean()),
    )


def _found(
    queries: Vectors, memory: Vectors, truth: npt.NDArray[np.int64], owner: npt.NDArray[np.int64], k: int = 5
) -> npt.NDArray[np.bool_]:
    """Whether each of the k nearest is of the query's entity, nearest first; (Q, k)."""
    nearest = np.argsort(-(queries @ memory.T), axis=1, kind="stable")[:, :k]
    return np.asarray(owner[nearest] == truth[:, None])


def sheet(data: PackageSet, columns: int = 24) -> Image.Image:
    """Draw some entities, one a column, one style a row, query styles first."""
    styles = sorted({item.style for item in data.items}, key=lambda style: (style not in data.query_styles, style))
    entities = make_rng("sheet", data.name).sample(list(data.entities), min(columns, len(data.entities)))
    step = data.images.shape[1] + _GAP
    picture = Image.new("RGB", (step * len(entities), step * len(styles)), _GROUND)
    column = {entity.key: place for place, entity in enumerate(entities)}
    for image, item in zip(data.images, data.items, strict=True):
        if item.entity in column:
            picture.paste(Image.fromarray(image), (step * column[item.entity], step * styles.index(item.style)))
    return picture
