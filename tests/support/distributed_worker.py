"""Two processes that train on what the test left in a folder: ``python distributed_worker.py FOLDER``.

They train once without dropout, once with, and once with an interruption; at last the first one fails alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from small_clip import DIMENSION

from reco_plugin.errors import RecoError
from reco_plugin.train.data import Batches, FusionBatch, open_data
from reco_plugin.train.loop import TrainConfig, train_fusions
from reco_plugin.train.model import FusionConfig
from reco_plugin.train.processes import start

D = DIMENSION
SHORT = TrainConfig(steps=12, batch=16, warmup=4, drop=0.2, rotate=0.5, checkpoint_every=4, log_every=1)


class Interrupted(Exception):
    """Stands for the loss of all processes."""


@contextmanager
def interrupted(at: int) -> Iterator[None]:
    """All processes fail before this step."""
    draw = Batches.draw

    def failing(self: Batches, step: int) -> FusionBatch:
        if step == at:
            raise Interrupted
        return draw(self, step)

    Batches.draw = failing
    with suppress(Interrupted):
        yield
    Batches.draw = draw


def main(folder: Path) -> None:
    processes = start("cpu", 2, batch=SHORT.batch)
    data = open_data(folder / "training")

    def train(name: str, dropout: float):
        fusion = FusionConfig("paper", D, dropout=dropout)
        return train_fusions(data, fusion, folder / name, SHORT, processes=processes).state_dict()

    states = {"plain": train("plain", 0.0), "whole": train("whole", 0.1)}
    with interrupted(10):
        train("cut", 0.1)
    torch.rand(processes.rank + 3)  # another start has another random state
    states["cut"] = train("cut", 0.1)
    torch.save(states, folder / f"states-{processes.rank}.pt")
    try:
        processes.lead(lambda: 1 / 0)
    except (ZeroDivisionError, RecoError) as error:
        left = not torch.distributed.is_initialized()
        (folder / f"error-{processes.rank}.txt").write_text(f"{type(error).__name__}: {error}; group left: {left}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
