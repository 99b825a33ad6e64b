"""The drawings of the pre-training, not rendered: tests ask for names, captions and splits."""

from __future__ import annotations

from functools import cache as once
from pathlib import Path

import numpy as np
import pytest
from some_drawings import all_drawings

from benchmarks.drawings.render import Drawing
from benchmarks.pretrain.generic import load_with_generic
from reco_plugin.errors import DataError
from reco_plugin.quickstart.dataset import SIDE, Quickstart


@once
def load_unrendered(cache: Path) -> Quickstart:
    """All drawings of the pre-training; the generic ones are blank, since rendering 13,000 icons takes a minute."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("benchmarks.pretrain.generic.render_once", blank)
            patch.setattr("benchmarks.pretrain.generic.load", all_drawings)
            return load_with_generic(cache)
    except DataError as error:
        if "npm could not fetch" not in str(error):
            raise
        pytest.skip(f"npm's registry cannot be reached: {error}")


def blank(drawings: list[Drawing], _: Path) -> np.ndarray:
    """Images of no drawing."""
    return np.broadcast_to(np.uint8(255), (len(drawings), SIDE, SIDE, 3))
