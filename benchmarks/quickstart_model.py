"""Retrain the shipped quickstart model, and measure it beside the baselines.

    make quickstart-model                               # writes triton_models/ and docs/measurements.md
    python -m benchmarks.quickstart_model --shipped     # keeps the shipped encoder

Steps, each kept under .cache/quickstart-model: generic drawings from npm, mini CLIP, frozen vectors, and the paper's
layer with three seeds. The closed form needs no training. The best training-free baseline is chosen on the development
entities; the test entities are only measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reco_plugin.defaults import DEFAULT_K
from reco_plugin.demo.bench import KNOWN, Bench, Group, drawing, prepare
from reco_plugin.encoders.local import Encoder, PairEncoder
from reco_plugin.encoders.model_folder import Artifact, FusionInfo, Policy
from reco_plugin.evaluation.memories import ram_memory
from reco_plugin.evaluation.ranking import hits_at, rank_task, refine_task
from reco_plugin.evaluation.statistics import bootstrap
from reco_plugin.export.folder import Card
from reco_plugin.export.onnx_export import export, refit
from reco_plugin.export.open_clip import FrozenClip, load_frozen
from reco_plugin.export.parity import Parity
from reco_plugin.export.train_layer import FusionConfig, Fusions, TorchFuser, TrainConfig, train_fusions
from reco_plugin.export.training_data import FusionData, gather
from reco_plugin.fusion.base import Fuser, Learned
from reco_plugin.fusion.refiner import Refiner, VectorMemory
from reco_plugin.quickstart.dataset import (
    ALL_SPLITS,
    EMOJI_SOURCES,
    HELD_STYLE,
    MEMORY_STYLES,
    NAMES_SOURCE,
    EntitySplit,
    Quickstart,
    load,
)
from reco_plugin.settings import load_settings
from reco_plugin.types import Fingerprint, Records, Vectors

from .baselines import grid
from .page import FIGURES, table, write_blocks
from .pretrain.generic import SOURCES as GENERIC_SOURCES
from .pretrain.generic import load_with_generic
from .pretrain.towers import pretrain

SEEDS = (0, 1, 2)
K = DEFAULT_K
PAPER_K = 5
"""Neighbours of the paper's layer, which is worse with 10."""
GROUPS: tuple[Group, ...] = ("unseen", "seen", "all", "dev")
NAME = "reco-quickstart-mini-clip"


class Study:
    """Frozen vectors, memories and queries, which all lines of the table share."""

    def __init__(self, data: Quickstart, encoder: PairEncoder, fingerprint: Fingerprint, cache: Path) -> None:
        self.data, self.fingerprint = data, fingerprint
        self.pairs = _records(data, encoder, cache / f"vectors-{fingerprint.digest[:12]}.npz")
        self.bench: Bench = prepare(data, encoder, ("unseen", "seen", "dev"))
        self.known = self.memory(KNOWN)
        self.full = self.memory(ALL_SPLITS)
        self.unseen_only = self.memory(("unseen",))

    def memory(self, splits: Sequence[EntitySplit]) -> VectorMemory:
        """An exact memory of these splits."""
        return self._filled(self.pairs.take(self.data.memory_rows(tuple(splits))))

    def _filled(self, records: Records) -> VectorMemory:
        return ram_memory(records, self.fingerprint).at(K)

    def refine(self, memory: Learned, fuser: Fuser | None, *, gate: bool, k: int = K) -> Refiner:
        """A refiner with a memory."""
        return Refiner(memory, fuser, k=k, gate=gate)

    def with_wrong_captions(self, share: float) -> VectorMemory:
        """A memory of all pairs, a share of which have shuffled captions."""
        return self._filled(with_traded_captions(self.pairs.take(self.data.memory_rows(ALL_SPLITS)), share))

    def training_data(self) -> FusionData:
        """Pairs for the paper's loss, of drawings that CLIP never saw.

        The text of a pair is its class prompt. The same entity in the same art family is hidden from its queries.
        """
        rows = self.training_rows()
        pairs = replace(self.pairs.take(rows), text=self.prompts_of(rows))
        shown = [self.data.items[row].entity for row in rows]
        return gather(self.known.store, pairs, PAPER_K, shown, self.same_drawing(rows))

    def training_rows(self) -> Any:
        """Drawings that CLIP never trained on: one style of seen entities, all memory styles of fusion entities."""
        held = self.data.rows(splits=["seen"], styles=[HELD_STYLE])
        return np.concatenate([held, self.data.rows(splits=["fusion"], styles=MEMORY_STYLES)])

    def prompts_of(self, rows: Any) -> Vectors:
        """The class prompts of drawings, (len(rows), D)."""
        position = {entity.key: index for index, entity in enumerate(self.data.entities)}
        return self.bench.task.candidates.vectors[[position[self.data.items[row].entity] for row in rows]]

    def same_drawing(self, rows: Any) -> list[set[str]]:
        """For each drawing the ids of the same entity in the same art family, which are near-copies."""
        family: dict[tuple[str, str], set[str]] = {}
        for item in self.data.items:
            family.setdefault((item.entity, item.family), set()).add(item.key)
        items = [self.data.items[row] for row in rows]
        return [family[item.entity, item.family] for item in items]


def _records(data: Quickstart, encoder: PairEncoder, path: Path) -> Records:
    """Frozen vectors of every drawing and caption, cached in a file."""
    count = sum(item.split is not None for item in data.items)
    items = data.items[:count]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        image = encoder.images([drawing(data, row) for row in range(count)])
        text = encoder.texts([item.caption for item in items])
        tmp = path.with_name(f"{path.stem}.{os.getpid()}.tmp.npz")
        np.savez(tmp, image=image, text=text)
        tmp.replace(path)
    with np.load(path) as stored:
        return Records([item.key for item in items], stored["image"], stored["text"], [{}] * count)


def with_traded_captions(records: Records, share: float) -> Records:
    """The same pairs, a random share of which have shuffled texts."""
    rng, place = np.random.default_rng(1), np.arange(len(records))
    wrong = np.flatnonzero(rng.random(len(place)) < share)
    place[wrong] = rng.permutation(wrong)
    return replace(records, text=records.text[place])


def train_paper(study: Study, cache: Path, seeds: Sequence[int] = SEEDS) -> list[Fusions]:
    """Train the paper's layer by its loss, once for each seed, with a tenth of the neighbours dropped."""
    data, layer = study.training_data(), FusionConfig(study.fingerprint.dimension)
    folder = cache / f"fusion-{study.fingerprint.digest[:8]}-k{PAPER_K}-paper"
    return [
        train_fusions(data, layer, folder.with_name(f"{folder.name}-{seed}"), TrainConfig(drop=0.1, seed=seed))
        for seed in seeds
    ]


def best_baseline(study: Study, memory: VectorMemory) -> tuple[Fuser, int]:
    """The mean-of-neighbours fuser and k (5 or 10) that are best on the development entities."""
    task = study.bench.group("dev")

    def top1(choice: tuple[Fuser, int]) -> float:
        refined = refine_task(study.refine(memory, choice[0], gate=False, k=choice[1]), task)
        return float(hits_at(rank_task(refined), 1).mean())

    return max(((fuser, k) for k in (5, 10) for fuser in grid()), key=top1)


def measure(study: Study, refines: Sequence[Refiner], groups: tuple[Group, ...] = GROUPS) -> dict[str, Any]:
    """Mean accuracies over the seeds, and each seed's top-1 with both sides refined."""
    runs = [study.bench.measure(refine, groups=groups) for refine in refines]
    mean: dict[str, Any] = {
        group: {
            side: {k: round(float(np.mean([run[group][side][k] for run in runs])), 2) for k in ("top1", "top5")}
            for side in runs[0][group]
        }
        for group in groups
    }
    return {**mean, "seeds": {group: [run[group]["both"]["top1"] for run in runs] for group in groups}}


PAPER = "paper's plain layer"


def study_all(study: Study, trained: Sequence[Fusions], kept: dict[str, Any] | None = None) -> dict[str, Any]:
    """Measure every line of the table; without trained layers, their line is taken from ``kept``."""
    fuser, k = best_baseline(study, study.full)
    baseline = [study.refine(study.full, fuser, gate=False, k=k)]
    ours = {
        "reco": study.full,
        "reco, without the unseen entities": study.known,
        "reco, memory of unseen entities only": study.unseen_only,
        **{f"reco, {share:.0%} wrong captions": study.with_wrong_captions(share) for share in (0.1, 0.3, 0.5, 0.9)},
    }
    lines = {name: measure(study, [study.refine(memory, None, gate=True)]) for name, memory in ours.items()}
    lines["best training-free baseline"] = measure(study, baseline)
    layers = [study.refine(study.full, TorchFuser(one), gate=False, k=PAPER_K) for one in trained]
    lines[PAPER] = measure(study, layers) if layers else (kept or {})["lines"][PAPER]
    return {
        "lines": lines,
        "intervals": _intervals(study, study.refine(study.full, None, gate=True), baseline[0]),
        "counts": {group: len(study.bench.group(group)) for group in GROUPS},
        "entities": {split: len(study.data.labels([split])) for split in ALL_SPLITS},
        "pairs": study.full.store.count(),
        "seeds": list(SEEDS),
        "k": K,
        "encoder": str(study.fingerprint),
    }


def _intervals(study: Study, ours: Refiner, baseline: Refiner) -> dict[str, Any]:
    """Gain in top-1 with its 95 % interval, bootstrapped over entities."""
    out: dict[str, Any] = {}
    for group in ("unseen", "seen"):
        task = study.bench.group(group)
        after = _hits(study, group, ours)
        others = {"best training-free baseline": _hits(study, group, baseline), "frozen": hits_at(rank_task(task), 1)}
        out[group] = {
            name: [round(100 * v, 2) for v in bootstrap(after - before, task.groups)] for name, before in others.items()
        }
    return out


def _hits(study: Study, group: Group, refine: Refiner) -> Any:
    bench = study.bench
    return hits_at(rank_task(bench.group(group, refine_task(refine, bench.task))), 1)


SHOWN = (
    "reco",
    "best training-free baseline",
    PAPER,
    "reco, without the unseen entities",
    "reco, memory of unseen entities only",
    *(f"reco, {share} wrong captions" for share in ("10%", "30%", "50%", "90%")),
)
"""Lines on the page; the file of figures has all lines."""


def blocks(results: dict[str, Any]) -> dict[str, str]:
    """The block of docs/measurements.md."""
    reco, head = results["lines"]["reco"], ("unseen", "seen", "all")
    sides = {"frozen CLIP": "frozen", "reco, images refined": "image", "reco, prompts refined": "text"}
    rows = [[name, *(f"{reco[group][side]['top1']:.1f}" for group in head)] for name, side in sides.items()]
    rows += [[name, *(f"{results['lines'][name][group]['both']['top1']:.1f}" for group in head)] for name in SHOWN]
    gains = "; ".join(
        f"{group}, against {name}: {mean:+.1f} [{low:+.1f}, {high:+.1f}]"
        for group, others in results["intervals"].items()
        for name, (mean, low, high) in others.items()
    )
    entities = ", ".join(f"{split} {count}" for split, count in results["entities"].items())
    about = (
        f"Entities: {entities}. {results['counts']['all']:,} queries, {results['pairs']:,} pairs, k = {results['k']}. "
        f"Paper's layer: mean of {len(results['seeds'])} seeds. Baseline: the best of {2 * len(grid())} on dev."
    )
    made = table(["top-1 in %", "unseen", "seen", "all labels"], rows)
    return {"quickstart": f"{about}\n\n{made}\n\nGains in points with 95 % intervals over entities: {gains}."}


def licenses() -> tuple[str, ...]:
    """Licences and credits of the training data."""
    credits = [f"{s.package} {s.version}: {s.credit}, {s.license}" for s in (*EMOJI_SOURCES, *GENERIC_SOURCES)]
    tokenizer = "tokenizer.json: the first 3,582 merges of OpenAI CLIP's byte-pair encoding, MIT"
    names = f"{NAMES_SOURCE.package} {NAMES_SOURCE.version}: {NAMES_SOURCE.credit}, {NAMES_SOURCE.license}"
    return ("weights: Apache-2.0, trained from nothing on the drawings below", tokenizer, names, *credits)


def main() -> None:
    """Run all steps that are not cached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="drawings, mini CLIP, vectors, fusions")
    parser.add_argument("--out", type=Path, default=Path("triton_models"), help="model folder to write")
    parser.add_argument("--page", action="store_true", help="measure nothing: write the page from quickstart.json")
    parser.add_argument("--shipped", action="store_true", help="keep the encoder in --out")
    parser.add_argument("--untrained", action="store_true", help="train no layer: keep its line of quickstart.json")
    arguments = parser.parse_args()
    kept = FIGURES / "quickstart.json"
    if arguments.page:
        write_blocks(blocks(json.loads(kept.read_text())))
        return
    torch.set_num_threads(os.cpu_count() or 1)
    work = arguments.cache / "quickstart-model"
    data = load() if arguments.shipped else load_with_generic(arguments.cache / "quickstart")
    clip = None if arguments.shipped else _mini_clip(data, work)
    if clip is None:
        artifact = Artifact.load(arguments.out)
        study = Study(data, Encoder(artifact, load_settings()), artifact.manifest.fingerprint, work / "shipped")
    else:
        study = Study(data, clip, Fingerprint(clip.name, clip.digest, clip.dimension), work)
    trained = [] if arguments.untrained else train_paper(study, work)
    if trained:
        for parity in _export(clip, trained[0], arguments.out) if clip else reshape(artifact, trained[0]):
            print(f"{parity.graph}: least cosine {parity.least_cosine:.6f}")
    before = json.loads(kept.read_text()) if kept.is_file() else None
    results = study_all(study, trained, before) | {"shipped": arguments.shipped}
    kept.write_text(json.dumps(results, indent=1) + "\n")
    write_blocks(blocks(results))
    print(*blocks(results).values(), sep="\n\n")


def _mini_clip(data: Quickstart, work: Path) -> FrozenClip:
    """Train the mini CLIP once for these splits and captions."""
    content = json.dumps([(item.key, item.split, item.caption) for item in data.items])
    folder = work / f"clip-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if not (folder / "open_clip_config.json").is_file():
        pretrain(data, folder)
    return replace(load_frozen(f"local-dir:{folder}"), name=NAME)


POLICY = Policy(k=K)
TRAINED_ON = "reco-plugin quickstart: held style of seen entities, memory styles of the fusion split"


def reshape(base: Artifact, paper: Fusions) -> list[Parity]:
    """Replace the fusion of a model folder by the closed form and this layer."""
    return refit(base, paper, base.folder, policy=POLICY, trained_on=TRAINED_ON, fuser="reco")


def _export(clip: FrozenClip, paper: Fusions, out: Path) -> list[Parity]:
    """Write the model folder."""
    card = Card(POLICY, FusionInfo(fuser="reco", trained_on=TRAINED_ON), templates=("{}",), licenses=licenses())
    return export(clip, paper, out, card=card, precision="fp16")


if __name__ == "__main__":
    main()
