"""Images with one or more captions each, for image-text retrieval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..types import ImageInput, Vectors
from .columns import ColumnArrays, check_rows, check_side, read_columns, texts_of, write_columns
from .images import pick, spread
from .labelled import check_labels, id_in, image_in
from .shards import Blob, blob_images, read_samples
from .source import (
    Location,
    caption_table,
    column_names,
    find_images,
    find_shards,
    names_in,
    names_shards,
    not_there,
    parse_source,
    read_lines,
)
from .tables import SUFFIXES, TableFile, TableRow


@dataclass(frozen=True)
class Captioned:
    """N images and M texts, each of which describes one of them.

    Attributes:
        name: of the source.
        images: N images, or their vectors (N, D), unit-norm.
        texts: M texts, or their vectors (M, D), unit-norm.
        text_of_image: (M,) image of each text, 0 … N-1. An image without any text is a distractor.
        ids: N collections of ids: pairs of the memory that are this image's own, hidden from it and from its texts.
            None: nothing is hidden.
    """

    name: str
    images: Sequence[ImageInput] | Vectors
    texts: Sequence[str] | Vectors
    text_of_image: npt.NDArray[np.int64]
    ids: tuple[tuple[str, ...], ...] | None = None

    def take(self, rows: npt.NDArray[np.int64]) -> Captioned:
        """Select images by increasing row (K,), with their texts; raw images stay unopened."""
        kept = np.flatnonzero(np.isin(self.text_of_image, rows))
        texts = self.texts[kept] if isinstance(self.texts, np.ndarray) else [self.texts[text] for text in kept.tolist()]
        return replace(
            self,
            images=pick(self.images, rows),
            texts=texts,
            text_of_image=np.searchsorted(rows, self.text_of_image[kept]).astype(np.int64),
            ids=None if self.ids is None else tuple(self.ids[row] for row in rows),
        )


def read_retrieval(source: str | Path) -> Captioned:
    """Read a retrieval set.

    - ``.jsonl`` with image and text (a caption or a list of them), ``.csv`` or ``.tsv`` with one caption a row; rows
      that name the same image belong together; columns by other names with ``?id=ID&image=IMAGE&text=TEXT``, images of
      another folder with ``&images=DIR``;
    - a folder with such a table named ``captions``, or with images and a ``.txt`` beside each, a caption a line;
    - webdataset shards as clip-benchmark has them: ``KEY.jpg`` or another image, with ``KEY.txt``, a caption a line;
    - vectors: ``.npz`` with ``image`` (N, D), ``text`` (M, D), ``text_of_image`` (M,) (may be left out when text i
      describes image i) and optionally ``id`` (N,).

    The option ``?limit=N`` keeps N images at even distances, with their texts.

    Raises:
        DataError: nothing there, or a row is not readable; the message names file and row or key.
        ConfigError: an unknown option.
    """
    where = parse_source(source)
    captioned = _read(where)
    limit = where.count("limit")
    return captioned if limit is None else captioned.take(spread(len(captioned.images), limit))


def _read(where: Location) -> Captioned:
    path = where.path
    table = caption_table(path) or path
    if table.suffix.lower() in SUFFIXES:
        return _from_table(table, where)
    where.only("limit")
    if path.suffix.lower() == ".npz":
        return _from_npz(path)
    if path.suffix.lower() == ".parquet":
        raise DataError(
            f"{path}: a retrieval set of vectors is an .npz, since texts and images differ in number; one of "
            "raw pairs is a .jsonl, .csv or .tsv"
        )
    if names_shards(where.name):
        return _from_shards(where.name)
    if path.is_dir():
        return _from_folder(path)
    problem = f"{path} is no retrieval set" if path.exists() else not_there(path)
    raise DataError(f"{problem}: give .jsonl, .csv, .tsv, .tar shards, .npz or a folder")


def write_retrieval(path: str | Path, captioned: Captioned) -> None:
    """Write a retrieval set of vectors as ``.npz``, with the arrays that :func:`read_retrieval` names.

    Raises:
        DataError: raw images or texts, a name without .npz, or the file cannot be written.
    """
    target = Path(path)
    if not isinstance(captioned.images, np.ndarray) or not isinstance(captioned.texts, np.ndarray):
        raise DataError(f"{target} was not written: it takes vectors of images and of texts only")
    if target.suffix.lower() != ".npz":
        raise DataError(f"{target} must end in .npz")
    columns: ColumnArrays = {
        "image": captioned.images,
        "text": captioned.texts,
        "text_of_image": captioned.text_of_image,
    }
    if captioned.ids is not None:
        if any(len(own) != 1 for own in captioned.ids):
            raise DataError(f"{target} was not written: it takes exactly one id per image")
        columns["id"] = np.array([own[0] for own in captioned.ids], np.str_)
    write_columns(target, columns)


def _from_npz(path: Path) -> Captioned:
    columns = read_columns(path, ("image", "text"))
    image = check_side(path, "image", columns["image"])
    text = check_side(path, "text", columns["text"], image.shape[1])
    check_rows(path, columns, len(image), ["id"])
    check_rows(path, columns, len(text), ["text_of_image"])
    if "text_of_image" in columns:
        owners = columns["text_of_image"].tolist()
    elif len(text) == len(image):
        owners = list(range(len(image)))
    else:
        raise DataError(f"{path} has {len(text):,} texts for {len(image):,} images and no text_of_image to match them")
    owner_of = check_labels(f"{path}: text_of_image", owners, len(image))
    ids = tuple((own,) for own in texts_of(path, "id", columns["id"])) if "id" in columns else None
    return Captioned(path.name, image, text, owner_of, ids)


def _from_table(path: Path, where: Location) -> Captioned:
    images: dict[Path, tuple[list[str], list[str]]] = {}  # image -> ids, texts
    names = column_names(where, "images", "limit")
    for row in TableFile(path, names.needed).good_rows():
        ids, captions = images.setdefault(image_in(row, where), ([], []))
        ids.append(id_in(row, where))
        captions.extend(_captions(row, names.text))
    if not images:
        raise DataError(f"{path} has no rows")
    return _make_set(path.name, [(tuple(ids), image, texts) for image, (ids, texts) in images.items()])


def _captions(row: TableRow, column: str) -> list[str]:
    value = row.values[column]
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise row.error(column, f"expected a caption or a list of captions, got {value!r:.60}")
    return texts


def _from_folder(folder: Path) -> Captioned:
    images = find_images(folder)
    own = [(name,) for name in names_in(folder, images)]
    texts = [image.with_suffix(".txt") for image in images]
    captions = [read_lines(text) if text.is_file() else [] for text in texts]
    found = list(zip(own, images, captions, strict=True))
    if not any(texts for _, _, texts in found):
        raise DataError(f"{folder} holds no image with a .txt of the same name, no .tar and no table of captions")
    return _make_set(folder.name, found)


def _from_shards(source: str | Path) -> Captioned:
    rows: list[tuple[str, Blob, list[str]]] = []
    for sample in read_samples(find_shards(source)):
        if sample.image is not None:
            lines = sample.parts["txt"].text().splitlines() if "txt" in sample.parts else []
            rows.append((sample.key, sample.image, [line.strip() for line in lines if line.strip()]))
    if not any(texts for _, _, texts in rows):
        raise DataError(f"{source} holds no key with an image and a .txt, one caption a line")
    captioned = _make_set(str(source), [((key,), key, texts) for key, _, texts in rows])
    return replace(captioned, images=blob_images([blob for _, blob, _ in rows]))


def _make_set(name: str, rows: Iterable[tuple[tuple[str, ...], Any, list[str]]]) -> Captioned:
    """Make a set from one (ids, image, texts) per image."""
    items = list(rows)
    return Captioned(
        name=name,
        images=[image for _, image, _ in items],
        texts=[text for _, _, texts in items for text in texts],
        text_of_image=np.repeat(np.arange(len(items)), [len(texts) for _, _, texts in items]).astype(np.int64),
        ids=tuple(own for own, _, _ in items),
    )
