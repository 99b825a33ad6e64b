"""Entity recognition among very many candidates, as in OVEN (Hu et al., 2023, arXiv:2302.11154).

Millions of named entities stay in their file, with only an index in RAM; vectors of entities may be mapped from disk.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..defaults import SCROLL_BATCH
from ..errors import DataError
from ..files import as_data_error
from ..types import ImageInput, Vectors
from .columns import ColumnArrays, ColumnValues, check_rows, check_side, map_array, read_columns, texts_of
from .images import pick, spread_over_classes
from .labelled import check_labels, check_unseen
from .source import Location, find_images, not_there, parse_source
from .tables import TableFile, TableRow

ID_FIELDS = ("id", "entity_id", "wikidata_id")
NAME_FIELDS = ("name", "entity_text", "wikipedia_title")
SPLIT_FIELDS = ("split", "data_split")


class EntityFile:
    """Entities of a ``.jsonl``; only the start of each line, a hash of its id and its split are in RAM, 24 bytes each.

    Fields: ``id``, ``name`` and optionally ``split`` (seen or unseen), or their names in OVEN and its Wikipedia dump.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        offsets, keys, splits = array("q"), array("Q"), bytearray()
        for offset, number, values in _lines(path):
            offsets.append(offset)
            keys.append(_hash(_text(path, number, values, ID_FIELDS)))
            _text(path, number, values, NAME_FIELDS)
            split = first_of(values, SPLIT_FIELDS)
            if split is not None:
                splits.append(is_unseen(f"{path}, line {number}", split))
        if not offsets:
            raise DataError(f"{path} holds no entities")
        if splits and len(splits) < len(offsets):
            raise DataError(
                f"{path}: {len(splits):,} of {len(offsets):,} entities have a split: give it to all or to none"
            )
        self.unseen = np.frombuffer(bytes(splits), np.bool_) if splits else None  # (C,); None where not known
        self._offsets = np.frombuffer(offsets, np.int64)
        hashes = np.frombuffer(keys, np.uint64)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        for position in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]).tolist():
            first, second = (self._read(int(self._order[position + step])) for step in (0, 1))
            if first_of(first, ID_FIELDS) == first_of(second, ID_FIELDS):
                raise DataError(f"{path}: the id {first_of(first, ID_FIELDS)!r} comes twice: make ids unique")

    def __len__(self) -> int:
        return len(self._offsets)

    def names(self, batch_size: int) -> Iterator[list[str]]:
        """The names, in batches, read from the file."""
        batch: list[str] = []
        for _, number, values in _lines(self.path):
            batch.append(_text(self.path, number, values, NAME_FIELDS))
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def name(self, row: int) -> str:
        """The name of one entity."""
        return str(first_of(self._read(row), NAME_FIELDS))

    def row(self, id_: str) -> int | None:
        """The row of the entity with this id; None when there is none."""
        key = np.uint64(_hash(id_))
        low, high = (int(np.searchsorted(self._hashes, key, side)) for side in ("left", "right"))
        found = (int(self._order[position]) for position in range(low, high))
        return next((row for row in found if str(first_of(self._read(row), ID_FIELDS)) == id_), None)

    def rows(self, ids: Iterable[str]) -> Iterator[int | None]:
        """The row of each id, each looked up once."""
        look_up = lru_cache(maxsize=None)(self.row)
        return map(look_up, ids)

    def vectors(self, batch_size: int) -> None:
        """None: a file of names holds no vectors."""

    def _read(self, row: int) -> Mapping[str, Any]:
        with self.path.open("rb") as file:
            file.seek(int(self._offsets[row]))
            return _parse(self.path, row + 1, file.readline())


@dataclass(frozen=True)
class EntityVectors:
    """Entities with a vector each; arrays may be mapped from disk."""

    path: Path  # their source, for messages
    array: ColumnValues  # (C, D), unit-norm, of any float type; checked while reading
    texts: ColumnValues | None = None  # (C,) names; None: their numbers
    unseen: npt.NDArray[np.bool_] | None = None  # (C,) True for unseen ones, or None

    def __len__(self) -> int:
        return len(self.array)

    def vectors(self, batch_size: int) -> Iterator[Vectors]:
        """The vectors as float32 of exactly unit norm, in batches (B, D)."""
        for start in range(0, len(self), batch_size):
            part = np.asarray(self.array[start : start + batch_size])
            yield check_side(self.path, "entities", part, first_row=start)

    def names(self, batch_size: int) -> Iterator[list[str]]:
        """The names, in batches."""
        for start in range(0, len(self), batch_size):
            yield self._names(start, min(start + batch_size, len(self)))

    def name(self, row: int) -> str:
        """The name of one entity."""
        return self._names(row, row + 1)[0]

    def _names(self, start: int, stop: int) -> list[str]:
        if self.texts is None:
            return [str(row) for row in range(start, stop)]
        return texts_of(self.path, "names", np.asarray(self.texts[start:stop]))


@dataclass(frozen=True)
class EntitySet:
    """N queries, each of which shows one of C entities.

    Attributes:
        name: of the source.
        images: N images, or their vectors (N, D), unit-norm.
        labels: (N,) entity of each query, 0 … C-1.
        entities: the C candidates; names and vectors stay on disk where possible.
        questions: N questions about the images, may be empty texts; None: there are none.
        unseen: (N,) True for queries of unseen entities; None where not known.
        query_ids: N ids; a pair of the memory with the same id is hidden from its own query. None: nothing is hidden.
    """

    name: str
    images: Sequence[ImageInput] | Vectors
    labels: npt.NDArray[np.int64]
    entities: EntityFile | EntityVectors
    questions: tuple[str, ...] | None = None
    unseen: npt.NDArray[np.bool_] | None = None
    query_ids: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def names(self, batch_size: int = SCROLL_BATCH) -> Iterator[list[str]]:
        """The names of all C entities in order, in batches."""
        return self.entities.names(batch_size)

    def vectors(self, batch_size: int = SCROLL_BATCH) -> Iterator[Vectors] | None:
        """The text vectors of all C entities in order, in batches (B, D); None where the source has names only.

        Raises:
            DataError: while reading: NaN, or not unit-norm.
        """
        return self.entities.vectors(batch_size)

    def take(self, rows: npt.NDArray[np.int64]) -> EntitySet:
        """Select queries by row (M,), in this order; all entities stay, raw images stay unopened."""
        return replace(
            self,
            images=pick(self.images, rows),
            labels=self.labels[rows],
            questions=None if self.questions is None else tuple(self.questions[row] for row in rows),
            unseen=None if self.unseen is None else self.unseen[rows],
            query_ids=None if self.query_ids is None else tuple(self.query_ids[row] for row in rows),
        )


def first_of(values: Mapping[str, Any], fields: Iterable[str]) -> Any:
    """The value of the first of these fields that is present; None when none is."""
    return next((values[field] for field in fields if values.get(field) not in (None, "")), None)


def is_unseen(where: str, split: Any) -> bool:
    """Whether a split, as in ``unseen`` or OVEN's ``val_seen``, is of unseen entities."""
    word = split.lower().rpartition("_")[2] if isinstance(split, str) else ""
    if word not in ("seen", "unseen"):
        raise DataError(f"{where}: the split {split!r} must be seen or unseen, or end in _seen or _unseen")
    return word == "unseen"


def _lines(path: Path) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """Offset, number from 1 and object of each line that is not empty."""
    offset = 0
    with as_data_error(f"{path} cannot be read"), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield offset, number, _parse(path, number, line)
            offset += len(line)


def _parse(path: Path, number: int, line: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:  # also UnicodeDecodeError
        raise DataError(f"{path}, line {number} is not JSON in UTF-8: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}, line {number} is not a JSON object: {line.strip()[:60]!r}")
    return values


def _text(path: Path, number: int, values: Mapping[str, Any], fields: tuple[str, ...]) -> str:
    value = first_of(values, fields)
    if isinstance(value, bool) or not isinstance(value, str | int):
        known = " or ".join(fields)
        raise DataError(
            f"{path}, line {number}: expected a text in {known}, got {value!r:.60}; it has {sorted(values)}"
        )
    return str(value)


def _hash(id_: str) -> int:
    return int.from_bytes(blake2b(id_.encode(), digest_size=8).digest(), "little")


QUERIES, ENTITIES = "queries.jsonl", "entities.jsonl"
_NEEDED = ("image", "label", "entities")
_OPTIONAL = ("unseen", "names", "query_id")


def read_entity_folder(where: Location) -> EntitySet:
    """Read a folder with queries and entities as JSON lines.

    Options: ``split=val`` (queries whose split is this or starts with ``val_``) and ``images=DIR`` (the folder
    to search for images by id).
    """
    where.only("limit", "split", "images")
    folder, split = where.path, where.options.get("split")
    if not (folder / ENTITIES).is_file():
        raise DataError(f"{folder / ENTITIES} does not exist: it holds a JSON object with id and name per entity")
    entities = EntityFile(folder / ENTITIES)
    table = TableFile(folder / QUERIES, needed=())
    rows = [row for row in table if split is None or _is_of(row, split)]
    if not rows:
        raise DataError(f"{table.path} holds no queries" + (f" of the split {split!r}" if split else ""))
    labels = []
    for row, label in zip(rows, entities.rows(map(_entity, rows)), strict=True):
        if label is None:
            raise row.error("entity", f"{_entity(row)!r} is no id of {ENTITIES}")
        labels.append(label)
    image = _image_finder(where.images or folder)
    texts = [first_of(row.values, ("question", "text")) for row in rows]
    return EntitySet(
        name=f"{folder.name} {split}" if split else folder.name,
        images=[image(row) for row in rows],
        labels=np.array(labels, np.int64),
        entities=entities,
        questions=tuple(str(text or "") for text in texts) if any(texts) else None,
        unseen=_unseen(rows, entities, labels),
        query_ids=tuple(str(first_of(row.values, ("id", "data_id", "image", "image_id"))) for row in rows),
    )


def _is_of(row: TableRow, split: str) -> bool:
    own = str(first_of(row.values, SPLIT_FIELDS) or "")
    return own == split or own.startswith(f"{split}_")


def _entity(row: TableRow) -> str:
    value = first_of(row.values, ("entity", *ID_FIELDS[1:]))
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise row.error("entity", f"expected the id of an entity, got {value!r:.60}; this row has {sorted(row.values)}")
    return str(value)


def _unseen(rows: list[TableRow], entities: EntityFile, labels: list[int]) -> npt.NDArray[np.bool_] | None:
    """The flags (N,) of the queries: by their own split, else by that of their entities."""
    own = [first_of(row.values, SPLIT_FIELDS) for row in rows]
    if not any(own):
        return None if entities.unseen is None else entities.unseen[labels]
    return np.array([is_unseen(row.where, split) for row, split in zip(rows, own, strict=True)])


def _image_finder(folder: Path) -> Callable[[TableRow], Path]:
    """Make a function that finds the image of a query: by path, else by id, the name of a file below the folder."""
    by_id: dict[str, Path] = {}

    def find(row: TableRow) -> Path:
        if "image_id" not in row.values or "image" in row.values:
            return row.image
        if not by_id:
            by_id.update({path.stem: path for path in find_images(folder)})
        id_ = str(row.values["image_id"])
        if id_ not in by_id:
            raise row.error("image_id", f"no image below {folder} is called {id_}.jpg, .png, …")
        return by_id[id_]

    return find


def read_entity_vectors(path: Path) -> EntitySet:
    """Read an ``.npz``, or a folder of ``.npy``, which are memory-mapped except for the queries."""
    columns = _map_arrays(path) if path.is_dir() else read_columns(path, _NEEDED)
    image = check_side(path, "image", columns["image"])
    entities: ColumnValues = columns["entities"]
    if entities.ndim != 2 or entities.shape[1] != image.shape[1] or entities.dtype.kind != "f" or not len(entities):
        got = f"{entities.shape} of {entities.dtype}"
        raise DataError(f"{path}: entities must be (C, {image.shape[1]}) floating point, as image is; got {got}")
    check_rows(path, columns, len(image), ["label", "query_id"])
    check_rows(path, columns, len(entities), ["names"])
    unseen = check_unseen(path, columns["unseen"], len(entities)) if "unseen" in columns else None
    labels = check_labels(f"{path}: label", columns["label"].tolist(), len(entities))
    return EntitySet(
        name=path.name,
        images=image,
        labels=labels,
        entities=EntityVectors(path, entities, columns.get("names"), unseen),
        unseen=None if unseen is None else unseen[labels],
        query_ids=tuple(texts_of(path, "query_id", columns["query_id"])) if "query_id" in columns else None,
    )


def _map_arrays(folder: Path) -> ColumnArrays:
    found: ColumnArrays = {}
    for name in (*_NEEDED, *_OPTIONAL):
        file = folder / f"{name}.npy"
        if name in _NEEDED and not file.is_file():
            raise DataError(f"{file} does not exist; needed: {', '.join(f'{needed}.npy' for needed in _NEEDED)}")
        if file.is_file():
            found[name] = map_array(file)
    return found


def read_entities(source: str | Path) -> EntitySet:
    """Read an entity set.

    - a folder with ``queries.jsonl`` (``image``, ``entity``, optional ``question``, ``split``, ``id``) and
      ``entities.jsonl`` (``id``, ``name``, optional ``split``); OVEN's field names are known too; options
      in :func:`~reco_plugin.data.entities.read_entity_folder`;
    - vectors: ``.npz`` with ``image`` (N, D), ``label`` (N,), ``entities`` (C, D) and optionally ``unseen`` (C,),
      ``names`` (C,), ``query_id`` (N,); or a folder with such arrays as ``image.npy``, …, which are mapped, not loaded.

    The option ``?limit=N`` keeps N queries, evenly from all entities; entities stay.

    Raises:
        DataError: nothing there, a query of an unknown entity or without an image; the message names file and line.
        ConfigError: an unknown option.
    """
    where = parse_source(source)
    found = _read(where)
    limit = where.count("limit")
    return found if limit is None else found.take(spread_over_classes(found.labels, limit))


def _read(where: Location) -> EntitySet:
    path = where.path
    if (path / QUERIES).is_file():
        return read_entity_folder(where)
    where.only("limit")
    if path.suffix.lower() == ".npz" or (path / "entities.npy").is_file():
        return read_entity_vectors(path)
    problem = f"{path} is no entity set" if path.exists() else not_there(path)
    raise DataError(f"{problem}: give a folder with {QUERIES} and {ENTITIES}, one with entities.npy, or an .npz")
