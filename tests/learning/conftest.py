"""A corpus that many tests share."""

from __future__ import annotations

import pytest
from trust_worlds import measured, world

from reco_plugin.learning.corpus import Corpus


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """400 pairs of 100 classes."""
    return measured(*world(100, 4)[:2])
