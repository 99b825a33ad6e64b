"""Candidate methods to refine, each under a name, and simple baselines.

The paper's layer is trained on the part ``fit`` by one process, or by several that share each batch.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from ..defaults import NEIGHBOURS
from ..evaluate.baselines import ALONE, grid
from ..evaluate.study.memories import RamMemory
from ..evaluate.task import Side
from ..files import whole_file
from ..fuse import Fuser
from ..refine import Refiner
from ..retrieve import Retrieval
from ..types import Caution, Fingerprint
from .catalogue import Catalogue
from .config import FitConfig
from .questions import memory_of_rows, some
from .split import HeldOut

if TYPE_CHECKING:
    from ..train.loop import Fusions
    from ..train.model import FusionConfig
    from ..train.processes import Processes


GateSwitch: TypeAlias = Literal["on", "off"]
"""on: moves only as far as the memory's own pairs justify. off: by the neighbours alone."""
CAUTIONS: tuple[Caution, ...] = ("balanced", "bold", "cautious")
_WEIGHTS = (0.5, 2.0, ALONE)


@dataclass(frozen=True)
class Candidate:
    """One method to refine: a fusion, k and a gate."""

    name: str  # of the fusion: one of those in :data:`reco_plugin.fit.config.KINDS`; or of a baseline
    k: int  # neighbours
    gate: GateSwitch
    fuser: Fuser | None = None  # to measure; None: the closed form, which alone has a gate
    caution: Caution = "balanced"  # of the gate
    fusions: Fusions | None = None  # to export
    image_config: FusionConfig | None = None  # shape of the image side, where it differs from the text side

    @property
    def gated(self) -> bool:
        """Whether it moves only as far as the memory's own pairs justify."""
        return self.gate == "on"

    @property
    def label(self) -> str:
        """Name, k and gate."""
        return f"{self.name}, k={self.k}, gate {self.gate}"

    def refiner(self, memory: RamMemory) -> Refiner:
        """Make the refiner with a memory, whose calibration is learned where there is a gate."""
        pairs = memory.at(self.k) if self.gated else memory.plain
        return Refiner(pairs, self.fuser, Retrieval(self.k), gate=self.gated, caution=self.caution)


def candidates(config: FitConfig, dimension: int, paper: Fusions | None = None) -> Iterator[Candidate]:
    """Yield all candidates, the simplest first; ``paper`` is the trained layer, where it is a candidate."""
    for kind in config.kinds:
        if kind == "reco":
            yield from _list_closed_forms(config)
        elif kind == "mean":
            yield from _means(config, dimension)
        else:
            from ..train.loop import TorchFuser

            assert paper is not None  # noqa: S101 - trained before the candidates are measured
            yield Candidate(PAPER, config.k or NEIGHBOURS, "off", TorchFuser(paper), fusions=paper)


def compose(text: Candidate, image: Candidate) -> Candidate:
    """Compose the text side of one candidate and the image side of another, of the same kind of fusion and k."""
    from ..train.loop import TorchFuser

    assert text.fusions is not None and image.fusions is not None  # noqa: S101 - the caller checks
    fusions = type(text.fusions)(text.fusions.config)
    fusions.sides.update({"text": text.fusions.sides["text"], "image": image.fusions.sides["image"]})
    name = f"texts by {text.name}, images by {image.name}"
    return replace(text, name=name, fuser=TorchFuser(fusions), fusions=fusions, image_config=image.fusions.config)


def _list_closed_forms(config: FitConfig) -> Iterator[Candidate]:
    """Yield the closed form by k and caution, and without its gate."""
    for k in config.ks:
        for caution in CAUTIONS:
            yield Candidate("reco" if caution == "balanced" else f"reco, {caution}", k, "on", caution=caution)
        yield Candidate("reco", k, "off")


def baselines(side: Side) -> Iterator[Candidate]:
    """Yield simple baselines that move these sides at most: weighted means of neighbours, and label transfer."""
    for fuser in grid(side):
        weights = {"image": fuser.image_weight, "text": fuser.text_weight}
        words = ", ".join(
            ("alone" if weight >= ALONE else f"weight {weight:g}") + (f" for {modality}s" if side == "both" else "")
            for modality, weight in weights.items()
            if side in (modality, "both")
        )
        shares = "even" if np.isinf(fuser.temperature) else f"temperature {fuser.temperature:g}"
        for k in (5, 10):
            yield Candidate(f"mean of neighbours ({words}, {shares})", k, "off", fuser)


def _means(config: FitConfig, dimension: int) -> Iterator[Candidate]:
    """Yield means of neighbours, from half of the query's length to almost replacing it."""
    from ..train.loop import Fusions, TorchFuser
    from ..train.model import FusionConfig

    for weight in _WEIGHTS:
        name = "mean alone" if weight >= ALONE else f"mean, weight {weight:g}"
        fusions = Fusions(FusionConfig("mean", dimension, weight=weight)).eval()
        for k in config.ks:
            yield Candidate(name, k, "off", TorchFuser(fusions), fusions=fusions)


PAPER = "paper"
_FOLDER = Path("candidates") / PAPER
_DATA = "training"
_OF = "catalogue.txt"


def gather_paper(config: FitConfig, catalogue: Catalogue, split: HeldOut, fingerprint: Fingerprint, out: Path) -> None:
    """Gather the training data of the layer in files that all processes read.

    Those of a killed run are reused, those of another catalogue removed.
    """
    from ..train.data import gather, hidden_ids

    folder = out / _FOLDER
    named = folder / _OF
    if not named.is_file() or named.read_text(encoding="utf-8").strip() != catalogue.digest:
        shutil.rmtree(folder, ignore_errors=True)
        with whole_file(named) as part:
            folder.mkdir(parents=True, exist_ok=True)
            part.write_text(catalogue.digest + "\n", encoding="utf-8")
    if (folder / _DATA).is_dir():
        return
    memory = memory_of_rows(catalogue, split.rows("fit"), fingerprint)
    pairs = memory.pairs.take(some(memory.pairs.ids, max(config.steps, 1) * config.batch))
    group_of = dict(zip(catalogue.pairs.ids, catalogue.groups, strict=True))
    hidden = hidden_ids(memory.store, pairs, threshold=config.near_duplicate)
    groups = [group_of[id_] for id_ in pairs.ids]
    gather(memory.store, pairs, Retrieval(config.k or NEIGHBOURS), groups, hidden, folder / _DATA)


def train_paper(config: FitConfig, out: Path, processes: Processes) -> Fusions:
    """Train on the gathered data; all processes call this, then disconnect. A killed run resumes.

    Raises:
        DataError: too few groups to contrast.
    """
    from ..train.data import open_data
    from ..train.loop import TrainConfig, train_fusions
    from ..train.model import FusionConfig

    data = open_data(out / _FOLDER / _DATA)
    how = TrainConfig(steps=config.steps, batch=config.batch, seed=config.seed, precision=config.precision)
    fusion = FusionConfig("paper", data.pairs.image.shape[1])
    trained: Fusions = train_fusions(data, fusion, out / _FOLDER, how, processes=processes)
    processes.leave()
    return trained.to("cpu")
