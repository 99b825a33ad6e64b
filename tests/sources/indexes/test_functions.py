"""Engines without an address: the function of Chroma's page searches the real one, as ``reco compare`` asks it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.engines.entries import PAGE, function_of
from benchmarks.engines.pages import Page
from reco_plugin.errors import EngineError
from reco_plugin.evaluation import load_function
from reco_plugin.sources.indexes import IndexQuery

from .conftest import DIMENSION, rows, unit

pytestmark = pytest.mark.fetched
SHOP = [row for row in rows() if row.clip is not None and row.title is not None]
CLIP = np.asarray([row.clip for row in SHOP], np.float32)


def test_the_function_of_the_page_finds_the_nearest_with_their_cosines(tmp_path: Path) -> None:
    pytest.importorskip("chromadb")
    known = {"rows": [{"sku": row.sku, "title": row.title, "clip": np.asarray(row.clip, np.float32)} for row in SHOP]}
    here = {"512": str(DIMENSION), '"./shop"': f'"{tmp_path}/shop"'}
    page = Page(PAGE, "Chroma", here, known, tmp_path)
    page.run_python("Fill Chroma")
    index = load_function(function_of(page), DIMENSION)
    for query in unit(3, 1):
        hits = index.search(IndexQuery(query, k=5))
        scores = CLIP @ query
        order = np.argsort(-scores, kind="stable")[:5]
        assert [hit.id for hit in hits] == [SHOP[row].sku for row in order]
        np.testing.assert_allclose([hit.score for hit in hits], scores[order], atol=1e-4)
        assert [hit.text for hit in hits] == [SHOP[row].title for row in order]
    assert index.search(IndexQuery(query, k=5, where='{"sku": "nobody"}')) == []
    with pytest.raises(EngineError, match="search"):
        index.search(IndexQuery(query[:8], k=5))
