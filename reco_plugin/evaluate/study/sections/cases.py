"""What happened to single queries? The largest rises and falls, each class once."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ....defaults import MAX_PIXELS
from ....files import as_data_error, whole_file
from ....memory.picture_folders import PictureFiles, folders_nearby, stored_thumbnail
from ....refine import used_pairs
from ....types import ImageInput, Payload, Refinement, Vectors
from ...findings import Case, RetrievedPair, Section
from ...measure import each_label_once, measure, nearest, refine_task
from ...task import Side, Task
from ..study import Study
from ..tables import VARIANTS

COUNT, QUICK_COUNT = 12, 4
SIZE = 128  # of a thumbnail, in pixels
_REFINED: dict[Side, str] = {
    "image": "images refined and class prompts plain",
    "text": "class prompts refined and images plain",
    "both": "images and class prompts refined",
}
_Ranks: TypeAlias = npt.NDArray[np.int64]


class Cases(NamedTuple):
    """The section, best gains and worst harms."""

    section: Section
    gains: tuple[Case, ...]
    harms: tuple[Case, ...]


def cases(study: Study) -> Cases:
    """Queries with the largest changes of reciprocal rank, so that from third to first is more than from 300 to 100."""
    task, ours = study.test, study.ours
    refined = refine_task(ours.refiners(study.full)[0], task, {ours.sides})
    before, after = (one.ranks[0] for one in (study.frozen, measure(task, [refined])))
    change = 1.0 / (1.0 + after) - 1.0 / (1.0 + before)
    count = QUICK_COUNT if study.config.quick else COUNT
    show = _Show(study, refined, before, after)
    rose, fell = (order[by[order] > 0] for by in (change, -change) for order in [np.argsort(-by, kind="stable")])
    gains = [show(row) for row in study.watch(each_label_once(rose, task, count), "gains")]
    harms = [show(row) for row in study.watch(each_label_once(fell, task, count), "harms")]
    section = Section(
        key="cases",
        title="What happened to single queries?",
        about=(
            f"{int((change > 0).sum()):,} of {len(task):,} queries rose, {int((change < 0).sum()):,} fell. Shown are "
            f"the best gains and the worst harms by reciprocal rank, with {_REFINED[ours.sides]}, one query per class"
            + (", with the first model." if len(study.subject.names) > 1 else ".")
            + ("" if study.shows.known else " The pairs have no captions, so what is relevant is not known.")
        ),
    )
    return Cases(section, tuple(gains), tuple(harms))


class _Show:
    """Makes a case of a query's row."""

    def __init__(self, study: Study, refined: Task, before: _Ranks, after: _Ranks) -> None:
        self.study, self.refined, self.before, self.after = study, refined, before, after
        places = folders_nearby(study.subject.memory.store.location, study.config.memory_from)
        files = [PictureFiles(folders) for folders in places]
        self.pictures = _Thumbnails(study.folder / "pictures", study.labelled.images, files)
        self.refiner = study.ours.refiners(study.full)[0]
        self.row_of = {id_: row for row, id_ in enumerate(study.records.ids)}
        self.prompt_refinement = (
            self.refiner.refine(study.test.candidates.vectors, modality="text", role="candidate", explain=True)
            if study.ours.sides != "image"
            else None
        )

    def __call__(self, row: int) -> Case:
        task = self.study.test
        label = int(task.queries.labels[row])
        picture = None if task.rows is None else self.pictures.query(int(task.rows[row]))
        return Case(
            name=task.classes[label],
            picture=picture,
            refined=VARIANTS[self.study.ours.sides],
            rank_before=int(self.before[row]),
            rank_after=int(self.after[row]),
            before=nearest(task, row),
            after=nearest(self.refined, row),
            neighbours=self._neighbours(row, label),
            prompt_neighbours=()
            if self.prompt_refinement is None
            else self._show_pairs(self.prompt_refinement, int(np.searchsorted(task.candidates.labels, label)), label),
        )

    def _neighbours(self, row: int, label: int) -> tuple[RetrievedPair, ...]:
        if self.study.ours.sides == "text":
            return ()
        queries, own = self.study.test.queries.vectors, self.study.test.queries.own
        hidden = None if own is None else own[row : row + 1]
        found = self.refiner.refine(queries[row : row + 1], modality="image", explain=True, exclude=hidden)
        return self._show_pairs(found, 0, label)

    def _show_pairs(self, refinement: Refinement, row: int, label: int) -> tuple[RetrievedPair, ...]:
        shows = self.study.shows
        of_class = set(shows.pair[shows.number == label].tolist())
        return tuple(
            RetrievedPair(
                caption=str(used.payload.get("caption", used.id)),
                picture=self.pictures.pair(used.id, used.payload),
                similarity=used.similarity,
                reliability=used.reliability,
                relevant=self.row_of[used.id] in of_class if shows.known else None,
            )
            for used in used_pairs(refinement, row)
        )


@dataclass(frozen=True)
class _Thumbnails:
    """Writes thumbnails of queries and pairs into the run's folder."""

    folder: Path  # made with the first one
    images: Sequence[ImageInput] | Vectors  # of the labelled set; vectors have no pictures
    files: Sequence[PictureFiles]  # of pairs; the first that finds one counts

    def query(self, row: int) -> str | None:
        """Write the thumbnail of a row of the labelled set; returns its file name."""
        return None if isinstance(self.images, np.ndarray) else self._write(f"query-{row}", self.images[row])

    def pair(self, id_: str, payload: Payload) -> str | None:
        """Write the thumbnail of a pair, found as the playground finds it; returns its file name."""
        own, name = stored_thumbnail(payload), f"pair-{hashlib.sha256(id_.encode()).hexdigest()[:16]}"
        if own is not None:
            return self._write(name, base64.b64decode(own.partition(",")[2]))
        file = next((found for files in self.files if (found := files.of(id_, payload))), None)
        return None if file is None else self._write(name, file)

    def _write(self, name: str, image: ImageInput) -> str | None:
        """None where the image cannot be read: a report may lack a thumbnail."""
        from PIL import Image

        path = self.folder / f"{name}.webp"
        if path.is_file():
            return path.name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PIL's warnings of odd metadata and of size
                source = io.BytesIO(image) if isinstance(image, bytes) else image
                opened = Image.open(source) if isinstance(source, str | os.PathLike | io.BytesIO) else source.copy()
                with opened as picture:
                    if picture.width * picture.height > MAX_PIXELS:  # an image that the encoder refuses is not decoded
                        return None
                    picture.draft("RGB", (SIZE, SIZE))
                    small = picture.convert("RGB")
            small.thumbnail((SIZE, SIZE))
        except (OSError, ValueError, Image.DecompressionBombError):
            return None
        with as_data_error(f"{self.folder} cannot be made for pictures"):
            self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            small.save(part, "WEBP", quality=80)
        return path.name
