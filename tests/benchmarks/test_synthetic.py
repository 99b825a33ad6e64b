"""Synthetic vectors lie as CLIP's do, and are the same however they are asked for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from benchmarks.synthetic import BLOCK, Synthetic
from reco_plugin.types import Records


def joined(catalogue: Synthetic, start: int, stop: int) -> Records:
    return Records.join(list(catalogue.records(start, stop)), catalogue.dimension)


def test_a_row_is_the_same_whatever_else_is_drawn() -> None:
    catalogue = Synthetic(5000, 16)
    whole, part = joined(catalogue, 0, 3 * BLOCK), joined(Synthetic(5000, 16), BLOCK - 7, BLOCK + 9)
    assert part.ids == whole.ids[BLOCK - 7 : BLOCK + 9]
    assert np.array_equal(part.image, whole.image[BLOCK - 7 : BLOCK + 9])
    assert np.array_equal(part.text, whole.text[BLOCK - 7 : BLOCK + 9])
    assert part.payloads == whole.payloads[BLOCK - 7 : BLOCK + 9]
    assert not np.array_equal(whole.image, joined(Synthetic(5000, 16, seed=1), 0, 3 * BLOCK).image)


def test_the_geometry_is_that_of_clip() -> None:
    """One pair of each cluster, as a labelled set has; what it is near was measured on ViT-B/32 (million.md)."""
    drawn = joined(Synthetic(100_000), 0, 30 * BLOCK)
    clusters = np.array([payload["cluster"] for payload in drawn.payloads])
    _, rows = np.unique(clusters, return_index=True)
    _, others = np.unique(clusters[::-1], return_index=True)
    image, text, sibling = drawn.image[rows], drawn.text[rows], drawn.image[::-1][others]
    apart = ~np.eye(len(rows), dtype=bool)
    for side, cosine, rank in ((image, 0.52, 153), (text, 0.65, 155)):
        assert float((side @ side.T)[apart].mean()) == pytest.approx(cosine, abs=0.04)
        share = np.maximum(np.linalg.eigvalsh(np.cov(side.T)), 1e-12)
        share /= share.sum()
        assert np.exp(-(share * np.log(share)).sum()) == pytest.approx(rank, abs=20)
    assert float((image @ text.T)[apart].mean()) == pytest.approx(0.19, abs=0.03)
    own, same = (float((side * text).sum(1).mean()) for side in (image, sibling))
    assert (own + 3 * same) / 4 == pytest.approx(0.30, abs=0.03)  # there a prompt has four images
    assert float((image * sibling).sum(1).mean()) == pytest.approx(0.74, abs=0.05)


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
