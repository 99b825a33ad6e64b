"""Ablations of the paper on the quickstart's drawings: search and fusion, k, the memory, the sides.

    python -m benchmarks.paper          # some minutes of one core; writes the tables of docs/method.md
    python -m benchmarks.paper --page   # the same tables from the stored figures

Each line refines the drawings by the closed form (``reco``) and by the shipped layer of the paper (``paper``). It was
trained once, with k = 5 and a memory without the unseen entities. A cell is the top-1 accuracy of unseen or seen
entities in per cent, and its gain over frozen CLIP with the interval over entities.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from itertools import product
from typing import Any, Literal, TypeAlias

import numpy as np

from reco_plugin.defaults import DEFAULT_K
from reco_plugin.demo.bench import KNOWN, Bench, Group, drawing, prepare
from reco_plugin.encoders.local import Encoder
from reco_plugin.encoders.model_folder import Artifact
from reco_plugin.evaluation.memories import RamMemory, ram_memory
from reco_plugin.evaluation.ranking import SIDES, Side, TaskItems, hits_at, rank_task, refine_task
from reco_plugin.evaluation.statistics import bootstrap
from reco_plugin.files import whole_file
from reco_plugin.fusion.base import Fuser, Learned, open_fusers
from reco_plugin.fusion.refiner import Refiner
from reco_plugin.quickstart.dataset import ALL_SPLITS, Quickstart, load
from reco_plugin.settings import load_settings
from reco_plugin.types import Neighbours, Records, Search, other

from .page import FIGURES, table, write_blocks

Mode: TypeAlias = Literal["uni", "cross"]
K, PAPER_K = DEFAULT_K, 5
KS = (1, 3, 5, 10, 16, 32)
GROUPS: tuple[Group, ...] = ("unseen", "seen")
FIGURES_OF, PAGE = FIGURES / "paper.json", FIGURES.parent / "method.md"
Cells = list[list[float]]
"""For each method and group: top-1 in per cent, its gain in points, and the bounds of the gain."""
Line: TypeAlias = tuple[str, Cells]
_NOTHING = "–"


class InModes:
    """A memory that is searched and read by either modality; the paper (3.2) searches uni- and fuses cross-modally."""

    def __init__(self, memory: Learned, search: Mode, fusion: Mode) -> None:
        """Wrap a memory; ``uni`` is the modality of the query, and ``cross`` the other one."""
        self.store, self.calibration, self.header = memory.store, memory.calibration, memory.searches.header
        self._searches, self._search, self._fusion = memory.searches, search, fusion

    @property
    def searches(self) -> InModes:
        """The memory itself."""
        return self

    def search(self, search: Search) -> Neighbours:
        """Search for (B, D), see :meth:`reco_plugin.memory.Searches.search`."""
        modality = search.by
        by = modality if self._search == "uni" else other(modality)
        read = modality if self._fusion == "uni" else other(modality)
        return self._searches.search(replace(search, by=by, read=read))


class Ablations:
    """The quickstart's queries and memories, and a method for each ablation."""

    def __init__(self, data: Quickstart, artifact: Artifact) -> None:
        """Encode all queries, prompts and pairs."""
        settings = load_settings(model=artifact.folder)
        encoder = Encoder(artifact, settings)
        self.data, self.fingerprint = data, artifact.manifest.fingerprint
        self.layer: Fuser = open_fusers(artifact, settings)["paper"]
        self.bench: Bench = prepare(data, encoder)
        rows = data.memory_rows(ALL_SPLITS).tolist()
        self.row_of = {row: place for place, row in enumerate(rows)}
        images = encoder.images([drawing(data, row) for row in rows])
        captions = encoder.texts([data.items[row].caption for row in rows])
        self.pairs = Records([data.items[row].key for row in rows], images, captions, [{}] * len(rows))
        self.texts = encoder.texts([data.items[row].caption for row in self.bench.rows.tolist()])

    @cached_property
    def memories(self) -> dict[str, Records]:
        """Content -> pairs; the layer was trained with the second one."""
        known, unseen = self._of(KNOWN), self._of(("unseen",))
        some = np.sort(np.random.default_rng(0).permutation(len(self.pairs))[: len(self.pairs) // 10])
        return {
            "nothing": self.pairs.take([]),
            "all but the unseen entities, as in training": self.pairs.take(known),
            "a tenth of all pairs": self.pairs.take(some),
            "the unseen entities alone": self.pairs.take(unseen),
            "all pairs": self.pairs,
        }

    def _of(self, splits: Sequence[str]) -> list[int]:
        return [self.row_of[row] for row in self.data.memory_rows(tuple(splits)).tolist()]  # type: ignore[arg-type]

    @cache  # noqa: B019 - it lives as long as the command
    def memory(self, name: str) -> RamMemory:
        """Build a memory, once."""
        return ram_memory(self.memories[name], self.fingerprint)

    def refiner(self, name: str, k: int, *, ours: bool) -> Refiner:
        """The closed form, learned for k neighbours, or the paper's layer."""
        memory = self.memory(name)
        return Refiner(memory.at(k), None, k=k) if ours else Refiner(memory.plain, self.layer, k=k, gate=False)

    def search_and_fusion(self) -> Iterator[Line]:
        """Vary the searched and the fused modality of the closed form, without its gate."""
        for search, fusion in product(("uni", "cross"), repeat=2):
            modes = InModes(self.memory("all pairs").at(K), search, fusion)  # type: ignore[arg-type]  # of the two words
            ours = Refiner(modes, None, k=K, gate=False)
            yield f"search {search}-modal, fusion {fusion}-modal", self.cells(ours)
        yield "search uni-modal, fusion cross-modal, with the gate", self.both("all pairs", K, PAPER_K)

    def k(self) -> Iterator[Line]:
        """Vary the number of neighbours."""
        for k in KS:
            yield f"k = {k}", self.both("all pairs", k, k)

    def memory_after_training(self) -> Iterator[Line]:
        """Vary the memory after training."""
        for name, pairs in self.memories.items():
            yield f"{name}: {len(pairs):,}", self.both(name, K, PAPER_K)

    def sides(self) -> Iterator[Line]:
        """Vary the refined sides of a classification, and of a search of images by captions."""
        for side in SIDES:
            yield f"classification, {side} refined", self.both("all pairs", K, PAPER_K, side)
        for side in SIDES:
            yield f"images by captions, {side} refined", self.both("all pairs", K, PAPER_K, side, self.captions)

    def both(self, memory: str, ours: int, layer: int, side: Side = "both", bench: Bench | None = None) -> Cells:
        """Cells of both methods, each with its k."""
        ways = ((ours, True), (layer, False))
        return [cell for k, is_ours in ways for cell in self.cells(self.refiner(memory, k, ours=is_ours), side, bench)]

    def cells(self, refiner: Refiner, side: Side = "both", bench: Bench | None = None) -> Cells:
        """Top-1 and its gain over frozen, of each group; candidates of all groups are refined as one set."""
        bench, cells = bench or self.bench, Cells()
        refined = refine_task(refiner, bench.task, {side})
        for group in GROUPS:
            task = bench.group(group)
            before, after = (hits_at(rank_task(one), 1) for one in (task, bench.group(group, refined)))
            found = (after.mean(), *bootstrap(after - before, task.groups))
            cells.append([round(100 * float(share), 1) for share in found])
        return cells

    @cached_property
    def captions(self) -> Bench:
        """A task in which captions search images; any image of the entity is right."""
        task = self.bench.task
        texts = TaskItems(self.texts, "text", task.queries.labels)
        return replace(self.bench, task=replace(task, queries=texts, candidates=task.queries))


TITLES = {
    "search_and_fusion": "search and fusion",
    "k": "neighbours",
    "memory_after_training": "a memory that changed after training",
    "sides": "which sides are refined",
}
"""Ablations by the name of their method."""


def measured(model: str) -> dict[str, Any]:
    """Measure all ablations, and frozen CLIP."""
    ablations = Ablations(load(), Artifact.load(model))
    frozen = {name: round(100 * float(hits_at(rank_task(ablations.bench.group(name)), 1).mean()), 1) for name in GROUPS}
    return {"frozen": frozen} | {name: dict(getattr(ablations, name)()) for name in TITLES}


def blocks(figures: Mapping[str, Any]) -> dict[str, str]:
    """The block of docs/method.md: a table for each ablation."""
    tables = []
    for name, title in TITLES.items():
        head = [title, *(f"{way}, {group}" for way in ("reco", "paper") for group in GROUPS)]
        rows = [
            [line, *map(_cell, cells), *[_NOTHING] * (len(head) - 1 - len(cells))]
            for line, cells in figures[name].items()
        ]
        tables.append(table(head, rows))
    return {"paper": "\n\n".join(tables)}


def _cell(found: Sequence[float]) -> str:
    top1, gain, low, high = found
    return f"{top1:.1f}, {gain:+.1f} [{low:+.1f}, {high:+.1f}]"


def main() -> None:
    """Measure, and write the figures and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="triton_models", help="model folder with the paper's layer")
    parser.add_argument("--page", action="store_true", help="measure nothing: the page of the stored figures")
    arguments = parser.parse_args()
    if not arguments.page:
        figures = measured(arguments.model)
        with whole_file(FIGURES_OF) as part:
            part.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write_blocks(blocks(json.loads(FIGURES_OF.read_text(encoding="utf-8"))), PAGE)


if __name__ == "__main__":
    main()
