"""Run ``reco train``: pairs -> frozen vectors -> neighbours -> fusions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import load_settings
from ..data import read_pairs, read_records, write_pairs
from ..data.groups import groups_of, payload_key
from ..data.opening import open_rows
from ..data.rows import digest, stamp_of
from ..data.same_encoder import SameEncoder
from ..encode import encode_pairs
from ..errors import DataError
from ..files import digest_texts
from ..memory import Memory, memory_of, open_memory
from ..types import Fingerprint, Pair, Records
from .data import FusionData, check_groups, gather, hidden_ids
from .loop import Fusions, TrainConfig, check_device, train_fusions
from .model import FusionConfig
from .recipe import Recipe

if TYPE_CHECKING:
    from .encoder import FrozenClip

VECTORS = "vectors"
"""Files of encoded pairs: ``vectors-ENCODER-PAIRS.npz``, by the digests of both."""


def train(recipe: Recipe, out: Path) -> Fusions:
    """Train the fusions on the recipe's pairs; what was encoded is kept in ``out``.

    Raises:
        ConfigError: the folder holds a run of another configuration, or torch cannot use the device.
        DataError: the source cannot be read, or no pair finds a neighbour.
    """
    recipe.check(out)
    check_device(recipe.device)
    data = _training_data(recipe, out)
    recipe.write(out)  # only now, so that a recipe with a typing error does not block the folder
    config = TrainConfig(
        steps=recipe.steps,
        batch=recipe.batch,
        lr=recipe.lr,
        drop=recipe.drop,
        rotate=recipe.rotate,
        seed=recipe.seed,
        precision=recipe.precision,
    )
    return train_fusions(data, _fusion(recipe, data.pairs.image.shape[1]), out, config, device=recipe.device)


def _training_data(recipe: Recipe, out: Path) -> FusionData:
    """Encode and retrieve."""
    pairs, memory = _encode_pairs(recipe, out)
    with closing(memory):
        hidden = hidden_ids(memory, pairs, threshold=recipe.near_duplicate)
        group = None if recipe.group is None else payload_key(open_rows(recipe.source), recipe.group)
        data = gather(memory, pairs, recipe.k, groups_of(pairs, group), hidden)
    if not any(found.found.any() for found in data.neighbours.values()):
        raise DataError(
            "no pair finds a neighbour that is not hidden as a near-duplicate of itself: there is nothing to learn "
            f"from. Give a larger --memory or a --near-duplicate above {recipe.near_duplicate}"
        )
    check_groups(data)
    return data


def _encode_pairs(recipe: Recipe, out: Path) -> tuple[Records, Memory]:
    """Read the pairs, (N, D) each, and open the memory that they retrieve from."""
    from .encoder import load_frozen

    clip = load_frozen(recipe.model, recipe.pretrained, random_weights=recipe.random_weights)
    _fusion(recipe, clip.dimension)  # refuses unfit heads before the work
    memory = _memory(recipe, Fingerprint(clip.name, clip.digest, clip.dimension))  # and a memory that is not there
    try:
        pairs = encode_cached(clip, recipe.source, out)
        if not recipe.memory:
            memory.upsert(pairs)
    except BaseException:
        memory.close()
        raise
    return pairs, memory


def _fusion(recipe: Recipe, dimension: int) -> FusionConfig:
    return FusionConfig("paper", dimension, heads=recipe.heads)


def encode_cached(clip: FrozenClip, source: str, out: Path) -> Records:
    """Encode the source's pairs, (N, D) each, through a cache in ``out`` for this encoder and these pairs."""
    pairs = list(read_pairs(source))  # not empty, and each id once: else it raises
    cache = out / f"{VECTORS}-{clip.digest[:12]}-{_digest(pairs)[:12]}.npz"
    if not cache.is_file():
        out.mkdir(parents=True, exist_ok=True)
        encoded = encode_pairs(clip, pairs)
        same = SameEncoder(clip, f"{clip.name} (sha256 {clip.digest[:12]})", open_rows(source))
        list(same.watch(pairs))
        if same.misses:
            warnings.warn(str(same.note), stacklevel=2)
        write_pairs(cache, [encoded])
    return Records.join(list(read_records(cache)), clip.dimension)


def _digest(pairs: Sequence[Pair]) -> str:
    """Digest of pairs; of images in files, their paths, sizes and times."""
    stamps = (repr(stamp_of(pair.image)) if isinstance(pair.image, Path) else "" for pair in pairs)
    return digest_texts(f"{p.id}\0{digest(p)}\0{stamp}" for p, stamp in zip(pairs, stamps, strict=True))


def _memory(recipe: Recipe, fingerprint: Fingerprint) -> Memory:
    """The memory to retrieve from; an empty one where the training pairs are it."""
    if recipe.memory:
        settings = load_settings(memory=recipe.memory, memory_collection=recipe.collection)
        memory = memory_of(settings, fingerprint, create=False)
        if not memory.count():
            memory.close()
            raise DataError(f"the memory {memory.location} is empty: fill it first, reco memory add")
        return memory
    return open_memory(":memory:", fingerprint)
