"""Choose the reader of a labelled source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError, DataError
from .classes import check_templates, read_unseen
from .columns import is_vectors
from .cub import is_cub, read_cub
from .files import names_shards
from .images import spread_over_classes
from .labelled import Labelled, read_vectors
from .labelled_images import read_class_folders, read_labelled_shards, read_labelled_table
from .source import Location, parse_source
from .tables import SUFFIXES
from .torchvision_sets import PREFIX, read_torchvision


def read_labelled(source: str | Path, *, templates: Sequence[str] = (), unseen: str | Path | None = None) -> Labelled:
    """Read a labelled set.

    - a folder with one folder of images per class; display names of the sorted class folders in ``classes.txt`` or
      ``classnames.txt`` (one a line) or ``classnames.json`` (a list, or folder -> name);
    - the folder of CUB-200-2011 (``images.txt``, ``image_class_labels.txt``, …), ``?split=test|train|all``;
    - ``.jsonl``, ``.csv`` or ``.tsv`` with the columns image and label (or class);
    - webdataset shards as clip-benchmark has them: ``KEY.jpg|jpeg|png|webp`` with ``KEY.cls`` (a number),
      ``classnames.txt`` beside the shards or in the folder above;
    - ``torchvision:NAME?root=DIR&split=test``, see :func:`~reco_plugin.data.torchvision_sets.read_torchvision`;
    - vectors: ``.npz``, or ``X.parquet`` with ``X.prompts.parquet``; see :func:`write_labelled`.

    Templates are read from ``zeroshot_classification_templates.txt`` or ``templates.txt`` in the same places, unseen
    classes from ``unseen.txt``. The option ``?limit=N`` keeps N images, evenly from all classes; classes stay.

    Args:
        source: file, folder, pattern or ``torchvision:NAME``, with options behind a question mark.
        templates: used instead of the source's own.
        unseen: a file with the names of unseen classes, one a line; used instead of the source's own.

    Raises:
        DataError: nothing there, no classes, labels outside of the classes; the message names file and row or key.
        ConfigError: a template without a place for the class name, templates for vectors, or an unknown option.
        MissingExtra: parquet without pyarrow, or torchvision without torchvision.
    """
    where = parse_source(source)
    labelled = _read(where, check_templates(templates))
    if templates:
        labelled = replace(labelled, templates_from="caller")
    if unseen is not None:
        labelled = replace(labelled, unseen=read_unseen(Path(unseen), labelled.classes))
    limit = where.count("limit")
    return labelled if limit is None else labelled.take(spread_over_classes(labelled.labels, limit))


def _read(where: Location, templates: tuple[str, ...]) -> Labelled:
    path = where.path
    if where.name.startswith(PREFIX):
        return read_torchvision(where, templates)
    if is_cub(path):
        return read_cub(where, templates)
    where.only("limit")
    if is_vectors(path):
        if templates:
            raise ConfigError(f"{path} holds prompt vectors already: templates have no effect, leave them out")
        return read_vectors(path)
    if names_shards(where.name):
        return read_labelled_shards(where.name, templates)
    if path.is_dir():
        return read_class_folders(path, templates)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return read_labelled_table(path, templates)
    problem = "does not exist" if not path.exists() else "is no labelled set"
    raise DataError(
        f"{path} {problem}: give a folder with one folder per class, a table, .tar shards, .npz, .parquet or "
        f"{PREFIX}NAME"
    )
