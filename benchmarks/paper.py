"""The ablations of the paper on the data that comes along: search and fusion, k, the memory, the sides.

    python -m benchmarks.paper                  # about ten minutes of one core; prints the tables
    python -m benchmarks.paper --only k sides   # some of them

Each line refines the drawings of the quickstart by the closed form (``reco``) and by the paper's layer as it is
shipped (``paper``), which was trained once, with a memory that lacks the unseen entities and with k = 5. Shown are
top-1 in per cent of unseen and of seen entities, each among their own, and the gain over frozen CLIP with its 95 %
interval over entities. docs/method.md has these tables beside those of the paper.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from reco_plugin.artifact import Artifact
from reco_plugin.config import load_settings
from reco_plugin.demo.tasks import KNOWN, Bench, Group, drawing, prepare
from reco_plugin.encode import Encoder
from reco_plugin.evaluate.intervals import bootstrap, points
from reco_plugin.evaluate.measure import measure, refine_task
from reco_plugin.evaluate.memories import RamMemory, ram_memory
from reco_plugin.evaluate.task import SIDES, Side, TaskItems
from reco_plugin.fuse import Fused, Fuser, Learned, NeighbourFuser, open_fusers
from reco_plugin.quickstart.dataset import ALL_SPLITS, Quickstart, load
from reco_plugin.refine import Refiner
from reco_plugin.types import Modality, Neighbours, Records, Search, Vectors, other

from .page import table

Mode: TypeAlias = Literal["uni", "cross"]
K, PAPER_K = 10, 5
KS = (1, 3, 5, 10, 20)
GROUPS: tuple[Group, ...] = ("unseen", "seen")
_NOTHING = "–"


class InModes:
    """A memory whose searches compare queries with another side of the pairs, or read another one.

    The paper (3.2) searches uni-modally and fuses cross-modally.
    """

    def __init__(self, memory: Learned, search: Mode, fusion: Mode) -> None:
        """Put the modes before a memory.

        Args:
            memory: the pairs.
            search: uni compares a query with the vectors of its own modality, cross with the other one's.
            fusion: cross reads the neighbours' vectors of the other modality, uni of the query's own.
        """
        self.store, self.calibration, self.header = memory.store, memory.calibration, memory.searches.header
        self._searches, self._search, self._fusion = memory.searches, search, fusion

    @property
    def searches(self) -> InModes:
        """What is searched: itself."""
        return self

    def search(self, search: Search) -> Neighbours:
        """Search for (B, D), see :meth:`reco_plugin.memory.Searches.search`."""
        own = search.by
        by, read = own if self._search == "uni" else other(own), own if self._fusion == "uni" else other(own)
        return self._searches.search(replace(search, by=by, read=read))


@dataclass(frozen=True)
class WithoutRetrieval(NeighbourFuser):
    """Runs a fusion on empty neighbours, as in the control that is trained without retrieval."""

    fuser: NeighbourFuser

    @property
    def name(self) -> str:  # type: ignore[override]  # it is a dataclass, which is only read
        """Name of the fusion."""
        return f"{self.fuser.name}, no retrieval"

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Refine (B, D), see :meth:`reco_plugin.fuse.Fuser.fuse`."""
        nothing = replace(
            neighbours,
            vectors=np.zeros_like(neighbours.vectors),
            similarity=np.zeros_like(neighbours.similarity),
        )
        return self.fuser.fuse(modality, vectors, nothing, np.ones_like(trust))


class Ablations:
    """The quickstart's queries and memories under the shipped encoder, and what each ablation measures."""

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
        """Memories by what they hold; the layer was trained with the second one."""
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
        """A memory by its name."""
        return ram_memory(self.memories[name], self.fingerprint)

    def refiner(self, name: str, k: int, *, ours: bool) -> Refiner:
        """The closed form, learned for k neighbours, or the paper's layer, with a memory."""
        memory = self.memory(name)
        return Refiner(memory.at(k), None, k=k) if ours else Refiner(memory.plain, self.layer, k=k, gate=False)

    def search_and_fusion(self) -> Iterator[list[str]]:
        """Which side is compared, and which is read; ours alone, since the layer is trained for one of the four.

        Without the gate, which is learned for that one alone.
        """
        for search, fusion in product(("uni", "cross"), repeat=2):
            modes = InModes(self.memory("all pairs").at(K), search, fusion)  # type: ignore[arg-type]  # of the two words
            ours = Refiner(modes, None, k=K, gate=False)
            yield [f"search {search}-modal, fusion {fusion}-modal", *self.cells(ours), *[_NOTHING] * len(GROUPS)]
        yield ["search uni-modal, fusion cross-modal, with the gate", *self.both("all pairs", K, PAPER_K)]

    def k(self) -> Iterator[list[str]]:
        """How many neighbours."""
        for k in KS:
            yield [f"k = {k}", *self.both("all pairs", k, k)]

    def memory_after_training(self) -> Iterator[list[str]]:
        """Another memory than that of the training, which is not repeated."""
        for name, pairs in self.memories.items():
            yield [f"{name}: {len(pairs):,}", *self.both(name, K, PAPER_K)]

    def sides(self) -> Iterator[list[str]]:
        """Which sides are refined: of a classification, and of a search of images by captions, by its first result."""
        for side in SIDES:
            yield [f"classification, {side} refined", *self.both("all pairs", K, PAPER_K, side)]
        for side in SIDES:
            yield [f"images by captions, {side} refined", *self.both("all pairs", K, PAPER_K, side, self.captions)]

    def both(self, memory: str, ours: int, layer: int, side: Side = "both", bench: Bench | None = None) -> list[str]:
        """The cells of both methods, each with its k."""
        ways = ((ours, True), (layer, False))
        return [cell for k, own in ways for cell in self.cells(self.refiner(memory, k, ours=own), side, bench)]

    def cells(self, refiner: Refiner, side: Side = "both", bench: Bench | None = None) -> list[str]:
        """Top-1 and its gain over frozen, of each group; candidates of all groups are refined as one set."""
        bench, cells = bench or self.bench, list[str]()
        refined = refine_task(refiner, bench.task, {side})
        for group in GROUPS:
            task = bench.group(group)
            before, after = measure(task).top(1), measure(task, [bench.group(group, refined)]).top(1)
            cells.append(f"{100 * after.mean():.1f}, {points(bootstrap(after - before, task.groups))}")
        return cells

    @cached_property
    def captions(self) -> Bench:
        """Captions of the queries that search their images; any image of the entity is right."""
        task = self.bench.task
        texts = TaskItems(self.texts, "text", task.queries.labels)
        return replace(self.bench, task=replace(task, queries=texts, candidates=task.queries))


TITLES = {
    "search_and_fusion": "Search and fusion",
    "k": "Neighbours",
    "memory_after_training": "A memory that changed after training",
    "sides": "Which sides are refined",
}
"""Ablations by the name of their method."""


def main() -> None:
    """Measure, and print a table for each ablation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="triton_models", help="model folder with the paper's layer")
    parser.add_argument("--only", nargs="*", default=list(TITLES), choices=list(TITLES))
    arguments = parser.parse_args()
    ablations = Ablations(load(), Artifact.load(arguments.model))
    frozen = [f"{group} {100 * measure(ablations.bench.group(group)).top(1).mean():.1f}" for group in GROUPS]
    print(f"frozen CLIP, classification: {', '.join(frozen)}")
    for name in arguments.only:
        head = ["top-1 in %, gain", *(f"{way}, {group}" for way in ("reco", "paper") for group in GROUPS)]
        print(f"\n{TITLES[name]}\n\n{table(head, list(getattr(ablations, name)()))}", flush=True)


if __name__ == "__main__":
    main()
