"""Which reader an entity source is for."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError
from .entities import EntitySet
from .entity_folder import ENTITIES, QUERIES, read_entity_folder
from .entity_vectors import read_entity_vectors
from .images import spread_over_classes
from .source import Source, parse_source


def read_entities(source: str | Path) -> EntitySet:
    """Read an entity set.

    - a folder with ``queries.jsonl`` (``image``, ``entity``, optional ``question``, ``split``, ``id``) and
      ``entities.jsonl`` (``id``, ``name``, optional ``split``); OVEN's names of the fields are known, too; options
      in :func:`~reco_plugin.data.entity_folder.read_entity_folder`;
    - vectors: ``.npz`` with ``image`` (N, D), ``label`` (N,), ``entities`` (C, D) and optionally ``unseen`` (C,),
      ``names`` (C,), ``query_id`` (N,); or a folder with such arrays as ``image.npy``, …, which are mapped, not loaded.

    The option ``?limit=N`` keeps N queries, evenly from all entities; entities stay.

    Raises:
        DataError: nothing there, a query of an unknown entity or without an image; it names file and line or row.
        ConfigError: an unknown option.
    """
    where = parse_source(source)
    found = _read(where)
    limit = where.count("limit")
    return found if limit is None else found.take(spread_over_classes(found.labels, limit))


def _read(where: Source) -> EntitySet:
    path = where.path
    if (path / QUERIES).is_file():
        return read_entity_folder(where)
    where.only("limit")
    if path.suffix.lower() == ".npz" or (path / "entities.npy").is_file():
        return read_entity_vectors(path)
    problem = "does not exist" if not path.exists() else "is no entity set"
    raise DataError(f"{path} {problem}: give a folder with {QUERIES} and {ENTITIES}, one with entities.npy, or an .npz")
