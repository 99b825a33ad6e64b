"""Presence: told by the memory's own pairs, stored with them, and a threshold for those who want one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from trust_worlds import world

from reco_plugin.errors import ConfigError, InputError
from reco_plugin.evaluation.memories import ram_memory
from reco_plugin.fusion.refiner import Refiner
from reco_plugin.signals.presence import Presence, PresenceState, presence_signals
from reco_plugin.types import MODALITIES, Fingerprint, Modality, Neighbours, Records, Refinement

KNOWN = 100  # of 200 classes, four pairs each


def refiner_of(pairs: Records) -> Refiner:
    return Refiner(ram_memory(pairs, Fingerprint("mini", "ab" * 32, pairs.image.shape[1])).at(10), None)


@pytest.fixture(scope="module")
def halves() -> tuple[Refiner, Records, Records]:
    """A memory of three pairs of each known class; the fourth pairs of these; and pairs of other classes."""
    image, text, _ = world(2 * KNOWN, 4)
    ids = np.array([str(row) for row in range(len(image))])

    def records(rows: np.ndarray) -> Records:
        return Records(ids[rows].tolist(), image[rows], text[rows], [{"place": int(row)} for row in rows])

    rows = np.arange(len(image))
    known, last = rows < 4 * KNOWN, rows % 4 == 3
    return refiner_of(records(rows[known & ~last])), records(rows[known & last]), records(rows[~known & last])


def told(refiner: Refiner, records: Records, modality: Modality) -> np.ndarray:
    found = refiner.refine(records.side(modality), modality=modality)
    assert found.why_no_presence == ""
    assert found.presence.dtype == np.float32
    return np.asarray(found.presence)


@pytest.mark.parametrize("modality", MODALITIES)
def test_it_tells_queries_with_an_answer_from_others(halves: Any, modality: Modality) -> None:
    refiner, known, others = halves
    here, gone = told(refiner, known, modality), told(refiner, others, modality)
    assert (here[:, None] > gone).mean() > 0.9
    assert here.mean() > 0.6 > 0.4 > gone.mean()
    assert 0.0 <= min(here.min(), gone.min()) <= max(here.max(), gone.max()) <= 1.0


def test_below_a_threshold_a_query_stays_plain_and_says_so(halves: Any) -> None:
    refiner, known, others = halves
    images = np.concatenate([known.image, others.image])
    free = refiner.refine(images, modality="image")
    held = refiner.refine(images, modality="image", presence=0.5)
    below = free.presence < 0.5
    assert 0 < below.sum() < len(images)
    assert np.array_equal(held.presence, free.presence)
    assert np.allclose(held.vectors[~below], free.vectors[~below])
    assert not held.refined[below].any()
    assert "presence" in held.why_plain(int(np.flatnonzero(below)[0]))
    assert held.scale is not None
    assert np.allclose(held.scale[below], [1.0, 0.0], atol=1e-5), "a plain vector has plain scores"


@pytest.mark.parametrize("value", [-0.1, 1.5, "high", True, float("nan")])
def test_a_threshold_that_is_none_is_refused(halves: Any, value: Any) -> None:
    with pytest.raises(InputError, match="presence must be a number from 0 to 1"):
        halves[0].refine(halves[1].text, modality="text", presence=value)


def test_a_block_is_its_single_queries(halves: Any) -> None:
    refiner, known, _ = halves
    each = [refiner.refine(known.text[row : row + 1], modality="text").presence for row in range(8)]
    assert np.allclose(np.concatenate(each), told(refiner, known, "text")[:8], atol=1e-5)


def test_a_condition_that_leaves_few_pairs_is_answered_and_one_that_leaves_none_is_0(halves: Any) -> None:
    refiner, known, _ = halves
    few = refiner.refine(known.text, modality="text", where={"place": {"lte": 1}})
    assert np.isfinite(few.presence).all()
    none = refiner.refine(known.text, modality="text", where={"place": {"lt": 0}})
    assert (none.presence == 0.0).all()


def test_where_it_cannot_be_known_the_reason_is_said(halves: Any) -> None:
    refiner, known, _ = halves
    small = refiner_of(Records(known.ids[:60], known.image[:60], known.text[:60], known.payloads[:60]))
    for found, why in (
        (refiner.refine(known.text, modality="text", k=3), "looks at 10 neighbours"),
        (refiner.refine(known.text, modality="text", role="candidate"), "candidates"),
        (refiner.refine(known.text, modality="text", target="text"), "other modality"),
        (refiner.refine(known.text, modality="text", gate=False), "other modality"),
        (small.refine(known.text, modality="text", presence=0.9), "too few"),
        (Refinement(known.text, known.text), "nothing was refined"),
    ):
        assert found.presence is None
        assert why in found.why_no_presence


@pytest.mark.parametrize(
    "bad", [{"looked": 10}, {"looked": 10, "weights": [1.0]}, "text", {"weights": [float("nan")] * 6}]
)
def test_it_is_stored_with_the_memory_and_a_damaged_one_is_refused(halves: Any, bad: Any) -> None:
    again = PresenceState.read(halves[0].memory.store.header.calibration)
    assert again is not None
    assert set(again.sides) == set(MODALITIES)
    assert PresenceState.read({}) is None
    with pytest.raises(ConfigError, match="reco memory build --relearn"):
        PresenceState.read({"presence": {"text": bad}})


def test_it_looks_at_as_many_neighbours_as_it_learned_from() -> None:
    presence = Presence(3, np.array([10.0, 0.0, 0.0, 0.0, 0.0, -5.0]))
    similarity = np.array([[0.9, 0.8, 0.7, 0.1]], np.float32)
    values, found = np.ones((1, 4, 2), np.float32), np.ones((1, 4), np.bool_)
    query, mean = np.ones((1, 2), np.float32), np.zeros(2, np.float32)
    more = presence.of(query, Neighbours([["a"]], similarity, values, found, np.zeros_like(similarity)), mean, 1.0)
    assert more[0] == pytest.approx(1.0 / (1.0 + np.exp(-4.0)), abs=1e-6)
    signals = presence_signals(query, similarity[:, :3], values[:, :3], mean, 1.0)
    assert np.allclose(signals[0, :3], [0.9, 0.1, 0.15])
