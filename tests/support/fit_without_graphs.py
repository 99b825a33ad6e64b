"""``reco`` whose fits write neither model nor report, which take most of their time: for tests of what comes before.

A tenth of the steps come between two checkpoints that a user's have.
"""

from __future__ import annotations

from functools import partial

from reco_plugin.cli.app import main
from reco_plugin.fit import run
from reco_plugin.train import loop

if __name__ == "__main__":
    run.write_model = lambda *_: {}
    run.write_report_of = lambda *_: None
    run._check_torch = lambda: None  # imports what exports
    loop.TrainConfig = partial(loop.TrainConfig, checkpoint_every=10)
    main()
