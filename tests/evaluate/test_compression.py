"""Compressed vectors are what an index of so many bits sees."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.evaluate.compression import COMPRESSIONS, compress, search, share


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """600 vectors of 64 dimensions around 30 centres, as those of an encoder lie."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(30, 64))
    some = centres[np.arange(600) % 30] + 0.5 * rng.normal(size=(600, 64))
    return (some / np.linalg.norm(some, axis=1, keepdims=True)).astype(np.float32)


def test_fewer_bits_find_less_and_rescoring_finds_more(vectors):
    queries, index = vectors[::20], vectors
    exact = search(queries, index, None, 10)
    shares = {}
    for way in COMPRESSIONS:
        kept = search(queries, index, compress(index, way), 10)
        shares[way] = share(kept.found, exact.found)
        assert share(kept.rescored, exact.found) >= shares[way], way
    assert shares["int8"] > 0.95
    assert shares["int8"] >= shares["4 bit"] > max(shares["PQ"], shares["1 bit"])
    assert min(shares.values()) > 0.1, "far from chance, which is a sixtieth"


@pytest.mark.parametrize(("way", "levels"), [("int8", 256), ("4 bit", 16)])
def test_steps_are_as_many_as_the_bits_allow(vectors, way, levels):
    seen = compress(vectors, way)
    assert max(len(np.unique(column)) for column in seen.T) <= levels
    widest = np.ptp(vectors, axis=0).max()
    assert abs(seen - vectors).max() <= widest / (levels - 1) / 2 + 1e-6


def test_a_byte_of_pq_stands_for_sixteen_numbers(vectors):
    seen = compress(vectors, "PQ")
    for start in range(0, 64, 16):
        assert len(np.unique(seen[:, start : start + 16], axis=0)) <= 256


def test_scores_of_one_bit_are_unbiased_and_keep_the_length(vectors):
    seen = compress(vectors, "1 bit")
    own = np.einsum("nd,nd->n", seen - vectors.mean(axis=0), vectors - vectors.mean(axis=0))
    np.testing.assert_allclose(own, np.square(vectors - vectors.mean(axis=0)).sum(axis=1), rtol=1e-3)
    scores, told = vectors[:50] @ vectors.T, vectors[:50] @ seen.T
    assert abs((told - scores).mean()) < 0.01


def test_the_same_seed_gives_the_same_and_the_vectors_stay(vectors):
    before = vectors.copy()
    for way in COMPRESSIONS:
        assert np.array_equal(compress(vectors, way), compress(vectors, way)), way
    assert np.array_equal(before, vectors)


def test_of_few_vectors_all_are_found():
    few = np.eye(3, 32, dtype=np.float32)
    for way in COMPRESSIONS:
        kept = search(few, few, compress(few, way), 10)
        assert kept.found.shape == kept.rescored.shape == (3, 3)
        assert kept.rescored[:, 0].tolist() == [0, 1, 2], way
