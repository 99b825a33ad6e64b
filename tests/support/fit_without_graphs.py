"""``reco`` whose fits write no model: for tests of what comes before the export, which takes most of a fit's time."""

from __future__ import annotations

from reco_plugin.cli.app import main
from reco_plugin.fit import run

if __name__ == "__main__":
    run.write_model = lambda *_: {}
    run._check_torch = lambda: None  # imports what exports
    main()
