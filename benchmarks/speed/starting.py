"""Seconds until the package is imported, a model encodes, and the service is ready."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..page import table
from ..processes import started
from .inputs import Given
from .turns import take_turns

ALONE = "python alone"
CODE = {
    ALONE: "pass",
    "`import reco_plugin`": "import reco_plugin",
    "`from reco_plugin import Reco`": "from reco_plugin import Reco",
    "`Reco.open()` and a text": (
        "from reco_plugin import Reco\nwith Reco.open({model!r}, memory=':memory:') as reco:\n"
        "    reco.embed_texts(['a red fox'])"
    ),
}


def startup(given: Given) -> str:
    """Measure seconds beyond Python's own start."""

    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    def serve() -> None:
        with tempfile.TemporaryDirectory() as name:
            (memory := Path(name, "memory")).mkdir()
            with started(given.model, memory, Path(name, "log"), ["--no-page"]):
                pass

    actions: dict[str, Callable[[], object]] = {
        name: partial(run, code.format(model=str(given.model))) for name, code in CODE.items()
    }
    turns = take_turns(actions | {"`reco serve` is ready, and stopped": serve}, given.rounds)
    rows = [[name, f"{turns.least(name) - turns.least(ALONE):.2f}"] for name in turns.seconds if name != ALONE]
    return table(["until", "seconds"], rows)
