"""Run ``reco train``: pairs -> frozen vectors -> neighbours -> fusions."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..config import load_settings
from ..data import read_pairs, read_records, write_pairs
from ..data.groups import groups_of, payload_key
from ..data.opening import open_rows
from ..data.rows import digest, stamp_of
from ..data.same_encoder import SameEncoder
from ..encode import encode_pairs
from ..errors import ConfigError, DataError
from ..files import digest_texts
from ..memory import Memory, memory_of, open_memory
from ..types import Fingerprint, Pair, Records
from .data import FusionData, check_groups, gather, hidden_ids, open_data
from .loop import Fusions, TrainConfig, train_fusions
from .model import FusionConfig
from .processes import Processes, start
from .recipe import Recipe

if TYPE_CHECKING:
    from .encoder import FrozenClip

TRAINING = "training"
"""Folder of the training data: vectors and neighbours."""
VECTORS = "vectors"
"""Files of encoded pairs: ``vectors-ENCODER-PAIRS.npz``, by the digests of both."""


def begin(recipe: Recipe, out: Path, count: int = 1) -> Processes:
    """Check the run's inputs, then connect this many processes, all of which call :func:`train`."""
    if recipe.fuser == "reco":
        raise ConfigError(
            "the fusion 'reco' needs no training: a memory learns it from its own pairs, when it is built or by "
            "`reco memory calibrate`. To train the paper's layer: --fuser paper"
        )
    recipe.check(out)
    return start(recipe.device, count, batch=recipe.batch)


def train(recipe: Recipe, out: Path, processes: Processes | None = None) -> Fusions:
    """Train the fusions on the recipe's pairs; resumes in the same folder.

    Of several processes the first encodes, retrieves and writes; all train.

    Args:
        recipe: of the training.
        out: folder of the run; on several machines, one that all of them share.
        processes: from :func:`begin`, which disconnect at the end; this one alone when None.
    """
    processes = processes or begin(recipe, out)
    data = processes.lead(lambda: _training(recipe, out, processes))
    if data is None:
        data = open_data(out / TRAINING)
    fusion = _fusion(recipe, data.pairs.image.shape[1])
    config = TrainConfig(
        steps=recipe.steps, batch=recipe.batch, lr=recipe.lr, seed=recipe.seed, precision=recipe.precision
    )
    trained = train_fusions(data, fusion, out, config, processes=processes)
    processes.leave()
    return trained


def _training(recipe: Recipe, out: Path, processes: Processes) -> FusionData:
    """Encode and retrieve, or open the data of an earlier start of this run."""
    folder = out / TRAINING
    if (out / recipe.file).is_file() and folder.is_dir():
        return open_data(folder)
    shutil.rmtree(folder, ignore_errors=True)  # of a failed start, perhaps with another recipe
    pairs, memory = _encode_pairs(recipe, out)
    with closing(memory):
        hidden = hidden_ids(memory, pairs, threshold=recipe.near_duplicate)
        data = gather(memory, pairs, recipe.k, groups_of(pairs, _group_key(recipe)), hidden, folder)
    if not any(found.found.any() for found in data.neighbours.values()):
        raise DataError(
            "no pair finds a neighbour that is not hidden as a near-duplicate of itself: there is nothing to learn "
            f"from. Give a larger --memory or a --near-duplicate above {recipe.near_duplicate}"
        )
    check_groups(len(np.unique(data.groups)), processes)
    recipe.write(out)  # only now, so that a recipe with a typing error does not block the folder
    return data


def _group_key(recipe: Recipe) -> str | None:
    return None if recipe.group is None else payload_key(open_rows(recipe.source), recipe.group)


def _encode_pairs(recipe: Recipe, out: Path) -> tuple[Records, Memory]:
    """Read the pairs, (N, D) each, and open the memory that they retrieve from."""
    from .encoder import load_frozen  # brings open_clip: neither a resumed run nor the other processes need it

    clip = load_frozen(recipe.model, recipe.pretrained, random_weights=recipe.random_weights)
    _fusion(recipe, clip.dimension)  # refuses unfit heads before the work
    memory = _memory(recipe, Fingerprint(clip.name, clip.digest, clip.dimension))  # and a memory that is not there
    with ExitStack() as failing:
        failing.callback(memory.close)
        pairs = encode_cached(clip, recipe.source, out)
        if not recipe.memory:
            memory.upsert(pairs)
        failing.pop_all()
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
