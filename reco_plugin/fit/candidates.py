"""Candidate methods to refine, each under a name, and simple baselines.

The paper's layer is trained on the part ``fit`` by one process, or by several that share each batch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from ..calibration import Calibration
from ..defaults import CANDIDATE_HEIGHT, NEIGHBOURS
from ..evaluate.baselines import ALONE, grid
from ..evaluate.study.memories import RamMemory
from ..files import whole_file
from ..fuse import Fuser
from ..refine import Calibrated, Refiner
from ..retrieve import Retrieval
from ..types import Fingerprint, Records
from .catalogue import Catalogue
from .config import FitConfig
from .questions import MOST, memory_of_rows, some
from .split import HeldOut

if TYPE_CHECKING:
    from ..train.loop import Fusions
    from ..train.model import FusionConfig
    from ..train.processes import Processes


Gate: TypeAlias = Literal["on", "strict", "off"]
"""on: calibrated trust. strict: less trust by the fitted text gate. off: all neighbours weigh the same."""
_WEIGHTS = (0.5, 2.0, ALONE)
_STRICTER = 1.5
"""Subtracted from the logit of a strict text gate: a probability of a half becomes a fifth."""


@dataclass(frozen=True)
class Candidate:
    """One method to refine: a fusion, k and a gate."""

    name: str  # of the fusion: one of those in :data:`reco_plugin.fit.config.KINDS`; or of a baseline
    k: int  # neighbours
    gate: Gate
    fuser: Fuser  # to measure
    height: float = CANDIDATE_HEIGHT  # how far candidates move
    fusions: Fusions | None = None  # to export; None: a baseline, which is never exported
    image_config: FusionConfig | None = None  # shape of the image side, where it differs from the text side

    @property
    def gated(self) -> bool:
        """Whether calibrated trust weighs the neighbours."""
        return self.gate != "off"

    @property
    def label(self) -> str:
        """Name, k and gate."""
        return f"{self.name}, k={self.k}, gate {self.gate}"

    def refiner(self, memory: Calibrated) -> Refiner:
        """Make the refiner with a memory."""
        return Refiner(memory, self.fuser, Retrieval(self.k), gate=self.gated, candidate_height=self.height)


def candidates(
    config: FitConfig,
    catalogue: Catalogue,
    memory: RamMemory,
    folder: Path,
    paper: Fusions | None = None,
) -> Iterator[Candidate]:
    """Yield all candidates, the simplest first.

    Args:
        config: selects them.
        catalogue: with the groups of the pairs.
        memory: of the part ``fit`` alone, to fit on.
        folder: of the fitted fusions.
        paper: the trained layer of the paper, where it is a candidate.
    """
    from ..train.model import FusionConfig

    dimension = memory.pairs.image.shape[1]
    group_of = dict(zip(catalogue.pairs.ids, catalogue.groups, strict=True))
    fits = _Fits(config, memory, group_of)
    make: dict[str, Callable[[], Iterator[Candidate]]] = {
        "training-free": lambda: _untrained(config, "training-free", "on", FusionConfig("training-free", dimension)),
        "mean": lambda: _means(config, dimension),
        "prototype": lambda: _fitted(config, fits, folder, "prototype"),
        "reco": lambda: _fitted(config, fits, folder, "reco"),
        PAPER: lambda: _paper(config, paper),
    }
    for kind in config.kinds:
        yield from make[kind]()


def compose(text: Candidate, image: Candidate) -> Candidate:
    """Compose the text side of one candidate and the image side of another, of the same k and gate."""
    from ..train.loop import TorchFuser

    assert text.fusions is not None and image.fusions is not None  # noqa: S101 - only baselines have none
    fusions = type(text.fusions)(text.fusions.config)
    fusions.sides.update({"text": text.fusions.sides["text"], "image": image.fusions.sides["image"]})
    fusions.text_gate = text.fusions.text_gate
    name = f"texts by {text.name}, images by {image.name}"
    return replace(text, name=name, fuser=TorchFuser(fusions), fusions=fusions, image_config=image.fusions.config)


def baselines(side: Literal["text", "image"]) -> Iterator[Candidate]:
    """Yield simple baselines for one side: weighted means of neighbours, and label transfer."""
    for fuser in grid():
        mine, others = fuser.text_weight, fuser.image_weight
        if side == "image":
            mine, others = others, mine
        if mine and not others:
            weight = "alone" if mine >= ALONE else f"weight {mine:g}"
            shares = "even" if np.isinf(fuser.temperature) else f"temperature {fuser.temperature:g}"
            for k in (5, 10):
                yield Candidate(f"mean of neighbours ({weight}, {shares})", k, "off", fuser)


def _means(config: FitConfig, dimension: int) -> Iterator[Candidate]:
    """Yield means of neighbours, from half of the query's length to almost replacing it, with and without the gate."""
    from ..train.model import FusionConfig

    for weight in _WEIGHTS:
        name = "mean alone" if weight >= ALONE else f"mean, weight {weight:g}"
        for gate in ("on", "off"):
            yield from _untrained(config, name, gate, FusionConfig("mean", dimension, weight=weight))


def _untrained(config: FitConfig, name: str, gate: Gate, fusion: FusionConfig) -> Iterator[Candidate]:
    from ..train.loop import Fusions, TorchFuser

    fusions = Fusions(fusion).eval()
    for k in config.ks:
        yield Candidate(name, k, gate, TorchFuser(fusions), fusions=fusions)


class _Fits:
    """Fits ``reco``, once for each number of neighbours."""

    def __init__(self, config: FitConfig, memory: RamMemory, group_of: dict[str, str]) -> None:
        self._memory, self._near = memory, config.near_duplicate
        self._groups = [group_of[id_] for id_ in memory.pairs.ids]
        self._done: dict[int, Fusions] = {}

    def at(self, k: int) -> Fusions:
        """Fit the fusions for k neighbours, once."""
        from ..train.fit import ask, fit_fusions
        from ..train.model import FusionConfig

        if k not in self._done:
            memory, pairs = self._memory, self._memory.pairs
            group_of = dict(zip(pairs.ids, self._groups, strict=True))
            asked, hidden = self._queries
            questions = ask(memory.store, asked.text, [group_of[id_] for id_ in asked.ids], group_of, hidden, k)
            calibration = memory.at(k).calibration or Calibration()
            fusion = FusionConfig("reco", pairs.image.shape[1])
            self._done[k] = fit_fusions(fusion, pairs, self._groups, questions, calibration.honesty)
        return self._done[k]

    @cached_property
    def _queries(self) -> tuple[Records, list[set[str]]]:
        """Pairs that query, (Q, D) each, and the Q sets of ids to hide from them."""
        from ..train.data import hidden_ids

        asked = self._memory.pairs.take(some(self._memory.pairs.ids, MOST))
        return asked, hidden_ids(self._memory.store, asked, threshold=self._near)


def _fitted(config: FitConfig, fits: _Fits, folder: Path, name: Literal["prototype", "reco"]) -> Iterator[Candidate]:
    """Yield ``reco``; or ``prototype``, the same with plain cosines in place of the fitted metric."""
    from ..train.loop import FUSION, Fusions, TorchFuser, save_fusions

    for k in config.ks:
        fusions = fits.at(k)
        if name == "prototype":
            gate, fusions = fusions.text_gate, Fusions(fusions.config).eval()
            fusions.text_gate = gate
        save_fusions(fusions, folder / f"{name}-k{k}" / FUSION)
        height = 1.0 if fusions.text_gate else CANDIDATE_HEIGHT  # a fitted gate limits the move of texts itself
        candidate = Candidate(name, k, "on", TorchFuser(fusions), height, fusions)
        yield candidate
        if fusions.text_gate is not None:
            strict = _strict(fusions)
            yield replace(candidate, gate="strict", fuser=TorchFuser(strict), fusions=strict)
        yield replace(candidate, gate="off")


def _strict(fusions: Fusions) -> Fusions:
    strict = type(fusions)(fusions.config)
    strict.load_state_dict(fusions.state_dict())
    gate = fusions.text_gate
    assert gate is not None  # noqa: S101 - the caller checks
    strict.text_gate = replace(gate, bias=gate.bias - _STRICTER)
    return strict.eval()


def _paper(config: FitConfig, fusions: Fusions | None) -> Iterator[Candidate]:
    from ..train.loop import TorchFuser

    assert fusions is not None  # noqa: S101 - trained before the candidates are measured
    yield Candidate(PAPER, config.k or NEIGHBOURS, "off", TorchFuser(fusions), fusions=fusions)


PAPER = "paper"
_FOLDER = Path("candidates") / PAPER
_DATA = "training"
_OF = "catalogue.txt"


def gather_paper(config: FitConfig, catalogue: Catalogue, split: HeldOut, fingerprint: Fingerprint, out: Path) -> None:
    """Gather the training data of the layer in files that all processes read; those of a killed run are reused.

    Args:
        config: of the fit.
        catalogue: encoded; files of an earlier one are removed.
        split: of the catalogue.
        fingerprint: of the encoder.
        out: the run's folder.
    """
    from ..retrieve import Retrieval
    from ..train.data import gather, hidden_ids

    folder = out / _FOLDER
    if not _is_of(folder, catalogue):
        shutil.rmtree(folder, ignore_errors=True)
        with whole_file(folder / _OF) as part:
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
        ConfigError: the processes cannot share a batch.
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


def _is_of(folder: Path, catalogue: Catalogue) -> bool:
    named = folder / _OF
    return named.is_file() and named.read_text(encoding="utf-8").strip() == catalogue.digest
