"""A cut-off that was set on plain CLIP's scores: what passes it with refined queries, as they are and on plain's scale.

    python -m benchmarks.thresholds                                            # the search example, mini CLIP
    python -m benchmarks.thresholds --data DIRECTORY --docs docs/measurements  # also a real CLIP, as realclip_gate

Queries are texts, the index holds images that are not in the memory. The cut-off is the plain score that as many
results pass as there are right ones. Takes one to five minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from examples.search_app.catalogue import read_catalogue
from reco_plugin import Reco
from reco_plugin.refine import Refiner
from reco_plugin.types import Refinement, Vectors

from .page import table, write_blocks
from .realclip_gate import SLOTS, load_imagenet

MODEL = Path("triton_models")


@dataclass(frozen=True)
class Asked:
    """Queries of one kind, their refinement, and what they search.

    Attributes:
        name: of the set.
        refinement: of (B, D).
        index: (N, D) unit-norm.
        right: (B, N) whether a result is right.
    """

    name: str
    refinement: Refinement
    index: Vectors
    right: npt.NDArray[np.bool_]


def drawings(model: Path) -> Iterator[Asked]:
    """The search example: names of things that the mini CLIP never saw, and of those that it was trained on."""
    catalogue = read_catalogue()
    with tempfile.TemporaryDirectory() as folder, Reco.open(model, Path(folder, "memory")) as reco:
        reco.memory.add(catalogue.memory, progress=True)
        index = reco.embed_images([product.image for product in catalogue.products], refine=False)
        entities = np.array([product.entity for product in catalogue.products])
        for split in ("unseen", "seen"):
            queries = [query for query in catalogue.queries if query.split == split]
            plain = reco.embed_texts([query.text for query in queries], refine=False)
            right = np.array([query.entity for query in queries])[:, None] == entities
            yield Asked(f"drawings, names {split}", reco.refine(plain, modality="text"), index, right)


def imagenet(data: Path) -> Iterator[Asked]:
    """1,000 class prompts against two images of each class; the memory holds two others, of all or of half of them."""
    sets = load_imagenet(data)
    classes = np.arange(1000)
    index, labels = sets.queries(classes, SLOTS[0])
    right = classes[:, None] == labels
    for name, known in (("all classes", classes), ("every second class", classes[::2])):
        store = sets.store(known, SLOTS[0], 20)
        refined = Refiner(store.memory, None, k=20).refine(sets.prompt, modality="text")
        for part, rows in (
            (("", classes),) if len(known) == 1000 else ((", known", known), (", not known", classes[1::2]))
        ):
            taken = Refinement(refined.vectors[rows], refined.frozen[rows], scale=_rows(refined.scale, rows))
            yield Asked(f"ImageNet, memory of {name}{part}", taken, index, right[rows])


def _rows(scale: npt.NDArray[np.float32] | None, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
    return None if scale is None else scale[rows]


def measure(asked: Asked) -> list[list[str]]:
    """A line for plain scores, refined ones as they are, and on plain's scale."""
    plain = asked.refinement.frozen @ asked.index.T
    refined = asked.refinement.vectors @ asked.index.T
    cut = float(np.quantile(plain, 1 - asked.right.mean()))
    kinds = {"plain": plain, "refined": refined, "refined, plain's scale": asked.refinement.plain_scores(refined)}
    return [[asked.name, kind, *line(scores, asked.right, cut)] for kind, scores in kinds.items()]


def line(scores: npt.NDArray[np.float32], right: npt.NDArray[np.bool_], cut: float) -> list[str]:
    """Mean, spread and best of the scores; what passes the cut-off, how much of it is right, of the right how much."""
    best, first = scores.max(axis=1), right[np.arange(len(scores)), scores.argmax(axis=1)]
    passes = scores >= cut
    precision = right[passes].mean() if passes.any() else np.nan
    return [
        f"{scores.mean():.3f}",
        f"{scores.std(axis=1).mean():.3f}",
        f"{best.mean():.3f}",
        f"{passes.sum() / len(scores):.2f}",
        f"{100 * precision:.1f}",
        f"{100 * passes[right].mean():.1f}",
        f"{auc(best, first):.2f}",
    ]


def auc(scores: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> float:
    """How often a right first result has a higher score than a wrong one, ties counted half."""
    good, bad = scores[right], scores[~right]
    if not len(good) or not len(bad):
        return float("nan")
    more = (good[:, None] > bad).mean() + (good[:, None] == bad).mean() / 2
    return float(more)


HEAD = (
    "set", "scores", "mean", "spread of a query's", "best", "passing, a query", "right of these, %", "of the right, %",
    "AUC of the best",
)  # fmt: skip


def main() -> None:
    """Measure, and write the page's block."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the vectors of realclip")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--docs", type=Path, help="folder of the page to write into; else the table is printed")
    given = parser.parse_args()
    sets = [*drawings(given.model), *(imagenet(given.data) if given.data else ())]
    text = table(HEAD, [row for asked in sets for row in measure(asked)])
    if given.docs:
        write_blocks(given.docs / "thresholds.md", {"thresholds": text})
    else:
        print(text)


if __name__ == "__main__":
    main()
