"""Fine-tune the shipped mini CLIP on the pairs of a memory, what users do instead of refining: makes finetune.json.

    python -m benchmarks.finetune          # about 20 minutes of one core; finished runs are kept
    python -m benchmarks.alternatives      # the page that shows it beside everything else

Both towers, CLIP's loss, the augmentation and optimiser of the pre-training, a fixed budget of steps. Two memories: all
pairs of the emoji set, and those of entities that the encoder does not know (what it forgets shows in the seen ones).
The learning rate of each is chosen on the development entities. No graph of the plugin and no gate is involved.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from reco_plugin.demo.tasks import Bench, Group, drawing, prepare
from reco_plugin.evaluate.intervals import bootstrap
from reco_plugin.evaluate.measure import measure
from reco_plugin.files import whole_file
from reco_plugin.preprocess import Tokenizer
from reco_plugin.quickstart.dataset import Quickstart, load
from reco_plugin.quickstart.entities import ALL_SPLITS, EntitySplit
from reco_plugin.train.encoder import FrozenClip, TextTower

from .pretrain.contrastive import Batch, Embedded, PretrainConfig, train_contrastive
from .pretrain.shipped import load_shipped

MEMORIES: dict[str, tuple[EntitySplit, ...]] = {
    "all pairs": ALL_SPLITS,
    "without the seen entities": ("fusion", "dev", "unseen"),
}
SPLITS: tuple[Literal["dev", "unseen", "seen"], ...] = ("dev", "unseen", "seen")
GROUPS: tuple[Group, ...] = (*SPLITS, "all")
RATES = (1e-3, 3e-4)
RECIPE = PretrainConfig(steps=600, entities_per_batch=160, generic_per_batch=0, warmup=40, checkpoint_every=1000)
RESULT = Path("docs/measurements/finetune.json")


class PairSampler:
    """Draws batches of a memory's pairs: distinct entities, a random style each, with its own caption."""

    def __init__(self, data: Quickstart, rows: Sequence[int], tokenizer: Tokenizer, config: PretrainConfig) -> None:
        self._rows_of: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            self._rows_of[data.items[row].entity].append(int(row))
        self._data, self._tokenizer, self._config = data, tokenizer, config

    def draw(self, step: int) -> Batch:
        """Batch number ``step``."""
        rng = random.Random(self._config.seed * 1_000_003 + step)
        wanted = min(self._config.entities_per_batch, len(self._rows_of))
        rows = [rng.choice(self._rows_of[entity]) for entity in rng.sample(sorted(self._rows_of), wanted)]
        tokens = self._tokenizer([self._data.items[row].caption for row in rows]).ids
        return Batch(torch.from_numpy(self._data.images[rows]), torch.from_numpy(np.asarray(tokens)).long())


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned encoder and the minutes of processor time that it took."""

    clip: FrozenClip
    minutes: float


def finetune(clip: FrozenClip, data: Quickstart, rows: Sequence[int], config: PretrainConfig) -> Tuned:
    """Train both towers of a copy on some pairs of the set, by row."""
    model, start = copy.deepcopy(clip.model).requires_grad_(True), time.process_time()
    text = TextTower(model, clip.text)

    def embed(pixels: Tensor, tokens: Tensor) -> Embedded:
        return Embedded(model.encode_image(pixels, normalize=True), text(tokens))  # type: ignore[operator]

    sampler: Any = PairSampler(data, rows, Tokenizer(clip.tokenizer_json, clip.text), config)
    title = f"fine-tune, rate {config.lr:g}"
    train_contrastive(model, embed, sampler, config, Path("no checkpoint"), title)
    tuned = replace(clip, model=model.eval().requires_grad_(False))
    return Tuned(tuned, (time.process_time() - start) / 60)


def hits(bench: Bench) -> dict[Group, np.ndarray[Any, Any]]:
    """Whether each query of a group is classified right among the group's labels."""
    return {group: measure(bench.group(group)).top(1) for group in GROUPS}


def report(bench: Bench, frozen: Bench) -> dict[str, Any]:
    """Top-1 in per cent per group, and the gain over the frozen encoder in points, with its interval over entities."""
    after, before = hits(bench), hits(frozen)
    told: dict[str, Any] = {}
    for group in GROUPS:
        gain = bootstrap(after[group] - before[group], frozen.group(group).groups)
        told[group] = {
            "top1": round(100 * float(after[group].mean()), 2),
            "gain": [round(100 * value, 2) for value in gain],
        }
    return told


def main() -> None:
    """Fine-tune on every memory at every rate that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("triton_models"), help="model folder with the mini CLIP")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data, clip = load(), load_shipped(arguments.model)
    frozen = prepare(data, clip, SPLITS)
    start = time.process_time()
    clip.images([drawing(data, int(row)) for row in data.memory_rows()[:1000]])
    about: dict[str, Any] = {
        "encoder": clip.digest[:12],
        "steps": RECIPE.steps,
        "batch": RECIPE.entities_per_batch,
        "threads": arguments.threads,
        "images a second": round(1000 / (time.process_time() - start)),
    }
    kept: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    if any(kept.get(key) != about[key] for key in ("encoder", "steps", "batch")):
        kept = {}
    kept = about | {"minutes": kept.get("minutes")} | {memory: kept.get(memory, {}) for memory in MEMORIES}
    for rate in RATES:
        for memory, splits in MEMORIES.items():
            if set(GROUPS) <= set(kept[memory].get(f"{rate:g}", ())):
                continue
            rows = data.memory_rows(splits)
            tuned = finetune(clip, data, rows.tolist(), replace(RECIPE, lr=rate))
            told = report(prepare(data, tuned.clip, SPLITS), frozen)
            kept["minutes"] = round(tuned.minutes, 1)  # of any run: steps cost the same at every rate
            kept[memory][f"{rate:g}"] = {"pairs": len(rows), **told}
            with whole_file(RESULT) as part:
                part.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            print(memory, rate, json.dumps(kept[memory][f"{rate:g}"]), flush=True)


if __name__ == "__main__":
    main()
