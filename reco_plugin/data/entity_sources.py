"""Read entity sets: ``queries.jsonl`` with ``entities.jsonl``, with our names or OVEN's; or vectors.

Vectors are in an ``.npz``, or in a folder of ``.npy`` where the candidates exceed the RAM.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .columns import ColumnArrays, ColumnValues, check_rows, check_side, map_array, read_columns, texts_of
from .entities import ID_FIELDS, SPLIT_FIELDS, EntityFile, EntitySet, EntityVectors, first_of, is_unseen
from .files import find_images, not_there
from .images import spread_over_classes
from .labelled import check_labels, check_unseen
from .source import Location, parse_source
from .tables import TableFile, TableRow

QUERIES, ENTITIES = "queries.jsonl", "entities.jsonl"
_NEEDED = ("image", "label", "entities")
_OPTIONAL = ("unseen", "names", "query_id")


def read_entity_folder(where: Location) -> EntitySet:
    """Read a folder with queries and entities as JSON lines.

    Options: ``split=val`` (queries whose split is this or starts with ``val_``) and ``images=DIR`` (the folder
    to search for images by id).

    Raises:
        DataError: a query of an unknown entity or without an image, a split that is neither seen nor unseen.
        ConfigError: an unknown option.
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
    """Read an ``.npz``, or a folder of ``.npy``, which are memory-mapped except for the queries.

    Raises:
        DataError: an array is missing or damaged, or arrays do not belong together.
    """
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
      in :func:`~reco_plugin.data.entity_sources.read_entity_folder`;
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
