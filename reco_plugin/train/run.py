"""What ``reco train`` does: pairs -> frozen vectors -> neighbours -> fusions."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..calibration import calibrate
from ..config import load_settings
from ..data import read_pairs, read_records, write_pairs
from ..data.files import whole_file
from ..errors import ConfigError, DataError
from ..memory import Memory, memory_of, open_memory
from ..retrieve import Retrieval
from ..types import Fingerprint, Pair, Records
from ..vectors import check_vectors
from .data import gather, hidden_ids
from .encoder import FrozenClip, load_frozen
from .fit import ask, fit_fusions
from .loop import FUSION, Fusions, TrainConfig, save_fusions, train_fusions
from .model import FuserKind, FusionConfig

RECIPE = "recipe.json"
_ITSELF = "\0"
"""Before an id that stands for a group, so that it is not taken for a value of the column."""


@dataclass(frozen=True)
class Recipe:
    """Everything that a run is made from; kept beside it as ``recipe.json``.

    ``memory`` is opened as the settings say (kind, key, options); ``collection`` is its collection on a server.
    """

    source: str
    model: str
    pretrained: str | None = None
    memory: str | None = None
    collection: str | None = None
    group: str | None = None
    fuser: FuserKind = "reco"
    k: int = 10
    steps: int = 400
    batch: int = 128
    lr: float = 1e-3
    heads: int = 8
    seed: int = 0
    near_duplicate: float = 0.97
    device: str = "cpu"
    random_weights: bool = False


def train(recipe: Recipe, out: Path) -> Fusions:
    """Train the fusions on the recipe's pairs; resumes in the same folder.

    Raises:
        ConfigError: the folder holds another recipe, or the encoder, the heads or the device cannot be had.
        DataError: the pairs cannot be read, or are too few.
        InputError: an image of the pairs cannot be read.
    """
    _check_recipe(recipe, out / RECIPE)
    _check_device(recipe.device)
    clip = load_frozen(recipe.model, recipe.pretrained, random_weights=recipe.random_weights)
    fusion = FusionConfig(recipe.fuser, clip.dimension, heads=recipe.heads)
    pairs = encode_cached(clip, recipe.source, out / f"vectors-{clip.digest[:12]}.npz")
    memory = _memory(recipe, clip, pairs)
    try:
        hidden = hidden_ids(memory, pairs, threshold=recipe.near_duplicate)
        groups = _groups(pairs, recipe.group)
        if recipe.fuser == "reco":
            return _fit(recipe, fusion, pairs, groups, memory, hidden, out)
        data = gather(memory, pairs, Retrieval(k=recipe.k), groups, hidden)
    finally:
        memory.close()
    if not any(found.found.any() for found in data.neighbours.values()):
        raise _nothing_found(recipe)
    _write_recipe(recipe, out / RECIPE)
    config = TrainConfig(steps=recipe.steps, batch=recipe.batch, lr=recipe.lr, seed=recipe.seed)
    return train_fusions(data, fusion, out, config, device=recipe.device)


def _fit(
    recipe: Recipe,
    fusion: FusionConfig,
    pairs: Records,
    groups: list[str],
    memory: Memory,
    hidden: list[set[str]],
    out: Path,
) -> Fusions:
    shown = {id_: group for batch in memory.scroll(2048) for id_, group in _shown(batch, recipe.group)}
    calibration = calibrate(*_sides(memory), neighbours=recipe.k)
    questions = ask(memory, pairs.text, groups, shown, hidden, recipe.k)
    if not questions[0].found.found.any():
        raise _nothing_found(recipe)
    fusions = fit_fusions(fusion, pairs, groups, questions, calibration.honesty)
    if fusions.text_gate is None:
        warnings.warn(
            "too few pairs show the same as another pair, so there is little to learn: what a text query trusts is "
            "left to the memory. Name the column that says what a pair shows with --group",
            stacklevel=3,
        )
    _write_recipe(recipe, out / RECIPE)
    save_fusions(fusions, out / FUSION)
    return fusions


def _nothing_found(recipe: Recipe) -> DataError:
    return DataError(
        "no pair finds a neighbour that is not hidden as a near-duplicate of itself: there is nothing to learn "
        f"from. Give a larger --memory or a --near-duplicate above {recipe.near_duplicate}"
    )


def encode_cached(clip: FrozenClip, source: str, cache: Path) -> Records:
    """The source's pairs as frozen vectors; the cache's name carries the encoder's fingerprint."""
    if not cache.is_file():
        pairs = list(read_pairs(source))
        if not pairs:
            raise DataError(f"{source} holds no pairs")
        _check_ids(pairs, source)
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_pairs(cache, [_encode(clip, pairs)])
    return Records.join(list(read_records(cache)), clip.dimension)


def _check_ids(pairs: list[Pair], source: str) -> None:
    if twice := [id_ for id_, count in Counter(pair.id for pair in pairs).items() if count > 1]:
        raise DataError(f"{source}: {len(twice)} ids come more than once, the first is {twice[0]!r}: make ids unique")


def _encode(clip: FrozenClip, pairs: list[Pair]) -> Records:
    image = _side(clip, [pair.image for pair in pairs], "image")
    text = _side(clip, [pair.text for pair in pairs], "text")
    payloads = [dict(pair.payload) | ({"caption": pair.text} if isinstance(pair.text, str) else {}) for pair in pairs]
    return Records([pair.id for pair in pairs], image, text, payloads)


def _side(clip: FrozenClip, values: list[Any], side: str) -> Any:
    vectors = [isinstance(value, np.ndarray) for value in values]
    if any(vectors) and not all(vectors):
        raise DataError(f"{sum(vectors)} of {len(vectors)} {side}s are vectors, the others are not: encode all or none")
    if all(vectors):
        return check_vectors(np.stack(values), clip.dimension, f"{side} vectors")
    return clip.images(values) if side == "image" else clip.texts(values)


def _memory(recipe: Recipe, clip: FrozenClip, pairs: Records) -> Memory:
    fingerprint = Fingerprint(clip.name, clip.digest, clip.dimension)
    if recipe.memory:
        settings = load_settings(memory=recipe.memory, memory_collection=recipe.collection)
        return memory_of(settings, fingerprint, create=False)
    memory = open_memory(":memory:", fingerprint, kind="exact")
    memory.upsert(pairs)
    return memory


def _sides(memory: Memory) -> tuple[Any, Any]:
    batches = list(islice(memory.scroll(2048), 16))  # enough: the gate samples among them
    if not batches:
        raise DataError(f"the memory {memory.location} is empty: fill it first, reco memory add")
    records = Records.join(batches, memory.header.fingerprint.dimension)
    return records.image, records.text


def _groups(pairs: Records, column: str | None) -> list[str]:
    """What each pair shows: a payload column, the caption where there is one, else the pair itself.

    Raises:
        DataError: no pair has a value in this column, so that its name must be wrong.
    """
    if column is not None and all(_is_empty(payload.get(column)) for payload in pairs.payloads):
        raise DataError(f"{len(pairs)} pairs have no {column!r} to group by, the first is {pairs.ids[0]!r}")
    return [group for _, group in _shown(pairs, column)]


def _shown(pairs: Records, column: str | None) -> list[tuple[str, str]]:
    """Id and group of each pair: the column's value, or the caption. Where that is empty, a pair shows only itself."""
    name = column or "caption"
    rows = zip(pairs.ids, (payload.get(name) for payload in pairs.payloads), strict=True)
    return [(id_, _ITSELF + id_ if _is_empty(value) else str(value)) for id_, value in rows]


def _is_empty(value: Any) -> bool:
    """Null, NaN or blank, which says nothing of what a pair shows."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def _check_recipe(recipe: Recipe, path: Path) -> None:
    if path.parent.exists() and not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is a file: --out takes a folder")
    if path.is_file() and json.loads(path.read_text()) != asdict(recipe):
        raise ConfigError(f"{path.parent} holds a run of another recipe ({path}): choose another --out or delete it")


def _check_device(device: str) -> None:
    try:
        torch.zeros((), device=device)
    except Exception as error:  # RuntimeError, AssertionError or NotImplementedError, by what is missing
        raise ConfigError(f"torch cannot use device {device!r}: {str(error).splitlines()[0]}") from error


def _write_recipe(recipe: Recipe, path: Path) -> None:
    """Once everything that it names was found to work, so that a mistyped one does not bar the folder."""
    text = json.dumps(asdict(recipe), indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(text)
