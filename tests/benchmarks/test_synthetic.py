"""Synthetic vectors lie as real ones do, and are the same however they are asked for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from benchmarks.synthetic import BLOCK, REAL, Synthetic, compared, comparison
from reco_plugin.types import Records

CLIP = {  # measured on ViT-B/32, as docs/measurements/million.md says
    "image, mean cosine": (0.52, 0.04),
    "image, 99th percentile": (0.75, 0.04),
    "image, 1st neighbour": (0.83, 0.05),
    "image, 10th neighbour": (0.76, 0.05),
    "image, effective rank": (153, 15),
    "text, mean cosine": (0.65, 0.04),
    "across, mean cosine": (0.19, 0.03),
    "across, own pair": (0.30, 0.03),
    "image, same cluster": (0.74, 0.04),
}


def joined(catalogue: Synthetic, start: int, stop: int) -> Records:
    return Records.join(list(catalogue.records(start, stop)), catalogue.dimension)


def test_the_geometry_is_that_of_clip() -> None:
    drawn = Synthetic(100_000).equal_clusters(1000, 4)
    measured = compared(drawn.image.reshape(1000, 4, -1), drawn.text[::4])
    for name, (real, apart) in CLIP.items():
        assert measured[name] == pytest.approx(real, abs=apart), name


def test_the_table_shows_the_real_vectors_where_they_are(tmp_path) -> None:
    assert comparison(64, tmp_path / "none.npz").splitlines()[0] == "| | synthetic, D = 64 |"
    if REAL.is_file():
        assert "CLIP ViT-B/32" in comparison(64)


def test_a_row_is_the_same_whatever_else_is_drawn() -> None:
    catalogue = Synthetic(5000, 16)
    whole, part = joined(catalogue, 0, 3 * BLOCK), joined(Synthetic(5000, 16), BLOCK - 7, BLOCK + 9)
    assert part.ids == whole.ids[BLOCK - 7 : BLOCK + 9]
    assert np.array_equal(part.image, whole.image[BLOCK - 7 : BLOCK + 9])
    assert np.array_equal(part.text, whole.text[BLOCK - 7 : BLOCK + 9])
    assert part.payloads == whole.payloads[BLOCK - 7 : BLOCK + 9]
    assert not np.array_equal(whole.image, joined(Synthetic(5000, 16, seed=1), 0, 3 * BLOCK).image)


def test_vectors_are_unit_norm_and_clusters_follow_a_power_law() -> None:
    drawn = joined(Synthetic(100_000, 8), 0, 10_000)
    assert np.allclose(np.linalg.norm(drawn.image, axis=1), 1, atol=1e-5)
    sizes = Counter(payload["cluster"] for payload in drawn.payloads)
    assert sizes[0] / sizes[9] == pytest.approx(10, rel=0.3)


def test_queries_are_no_pairs_of_the_catalogue() -> None:
    catalogue = Synthetic(1500, 16)
    queries, stored = catalogue.queries(10), joined(catalogue, 0, 1500)
    assert len(queries) == 10 and not {*queries.ids} & {*stored.ids}
    assert (queries.image @ stored.image.T).max() < 0.9999
