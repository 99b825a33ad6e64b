"""The paper's layer, trained on the part ``fit`` by one process or by several that share each batch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.files import whole_file
from ..defaults import NEIGHBOURS
from ..types import Fingerprint
from .catalogue import Catalogue
from .config import FitConfig
from .questions import memory_of_rows, some
from .split import HeldOut

if TYPE_CHECKING:
    from ..train.loop import Fusions
    from ..train.processes import Processes

PAPER = "paper"
_FOLDER = Path("candidates") / PAPER
_DATA = "training"
_OF = "catalogue.txt"


def gather_paper(config: FitConfig, catalogue: Catalogue, split: HeldOut, fingerprint: Fingerprint, out: Path) -> None:
    """Find what the layer is trained on, in files that all processes read; those of a killed run are kept.

    Args:
        config: of the fit.
        catalogue: encoded; what an earlier one left is removed.
        split: of it.
        fingerprint: of its vectors.
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
    """Train on what was gathered; all processes call this, then part. A killed run goes on.

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
