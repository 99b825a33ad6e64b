"""Frozen vectors of a data set under one encoder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from reco_plugin.demo.tasks import FrozenEncoder
from reco_plugin.files import whole_file
from reco_plugin.quickstart.dataset import EntitySplit
from reco_plugin.types import Records, Vectors

from .package_set import PackageSet


@dataclass(frozen=True)
class VectorSet:
    """What a study of one data set needs; nothing of it is refined.

    Attributes:
        name: of the data set.
        memory: N pairs in memory styles; payload: caption, entity, style, family, split.
        memory_entity: (N,) row of each pair's entity.
        queries: Q drawings in query styles, with the vector of a worded caption each; the same payload.
        truth: (Q,) row of each query's entity.
        prompts: (C, D) vectors of the bare names.
        names: C names.
        splits: C splits of the entities.
    """

    name: str
    memory: Records
    memory_entity: npt.NDArray[np.int64]
    queries: Records
    truth: npt.NDArray[np.int64]
    prompts: Vectors
    names: tuple[str, ...]
    splits: tuple[EntitySplit, ...]


def vectors(data: PackageSet, encoder: FrozenEncoder, digest: str, cache: Path) -> VectorSet:
    """Encode every drawing, caption and bare name once; later calls read the stored vectors.

    Args:
        data: the data set.
        encoder: a frozen encoder.
        digest: its fingerprint's; with the data set's own it names the stored file.
        cache: folder for the file.
    """
    path = cache / f"{data.name}-{_digest(data)}-{digest[:12]}.npz"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            np.savez(
                part,
                image=encoder.images([Image.fromarray(image) for image in data.images]),
                text=encoder.texts([item.caption for item in data.items]),
                prompts=encoder.texts([entity.names[0] for entity in data.entities]),
            )
    with np.load(path) as stored:
        image, text, prompts = (stored[name] for name in ("image", "text", "prompts"))
    place = {entity.key: row for row, entity in enumerate(data.entities)}
    owner = np.array([place[item.entity] for item in data.items])
    splits = {entity.split for entity in data.entities}
    memory, queries = data.memory_rows(splits), data.query_rows(splits)
    return VectorSet(
        name=data.name,
        memory=_records(data, image, text, memory),
        memory_entity=owner[memory],
        queries=_records(data, image, text, queries),
        truth=owner[queries],
        prompts=prompts,
        names=tuple(entity.names[0] for entity in data.entities),
        splits=tuple(entity.split for entity in data.entities),
    )


def _records(data: PackageSet, image: Vectors, text: Vectors, rows: npt.NDArray[np.int64]) -> Records:
    items = [data.items[row] for row in rows]
    payloads = [
        {"caption": i.caption, "entity": i.entity, "style": i.style, "family": i.family, "split": i.split}
        for i in items
    ]
    return Records([item.key for item in items], image[rows], text[rows], payloads)


def _digest(data: PackageSet) -> str:
    """Of what is encoded: the images themselves, since a renderer may change, and all words."""
    told = hashlib.sha256(np.ascontiguousarray(data.images).tobytes())
    told.update(
        json.dumps([[i.key, i.caption] for i in data.items] + [list(e.names[:1]) for e in data.entities]).encode()
    )
    return told.hexdigest()[:12]
