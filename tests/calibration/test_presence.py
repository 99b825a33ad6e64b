"""Presence: told by the memory's own pairs, stored with them, and a threshold for those who want one."""

from __future__ import annotations

import base64
import hashlib
import io
import tracemalloc
from typing import Any

import numpy as np
import pytest
from trust_worlds import measured, world

from reco_plugin.calibration import Calibration, presence
from reco_plugin.calibration.calibrate import calibrate
from reco_plugin.calibration.corpus import Corpus
from reco_plugin.calibration.presence import SIGNALS, Presence, learn_presence, presence_of, presence_signals
from reco_plugin.errors import ConfigError, InputError
from reco_plugin.refine import Refiner, refiner_for_vectors
from reco_plugin.types import MODALITIES, Modality, Neighbours, Records, Refinement

KNOWN = 100  # of 200 classes, four pairs each


@pytest.fixture(scope="module")
def halves() -> tuple[Refiner, Records, Records]:
    """A memory of three pairs of each known class; the fourth pairs of these; and pairs of other classes."""
    image, text, _ = world(2 * KNOWN, 4)
    ids = np.array([str(row) for row in range(len(image))])

    def records(rows: np.ndarray) -> Records:
        return Records(ids[rows].tolist(), image[rows], text[rows], [{"place": int(row)} for row in rows])

    rows = np.arange(len(image))
    known, last = rows < 4 * KNOWN, rows % 4 == 3
    refiner = refiner_for_vectors([records(rows[known & ~last])])
    return refiner, records(rows[known & last]), records(rows[~known & last])


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
    small = refiner_for_vectors([Records(known.ids[:60], known.image[:60], known.text[:60], known.payloads[:60])])
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


@pytest.fixture(scope="module")
def state() -> Calibration:
    learned = calibrate(*world(KNOWN, 4)[:2])
    assert learned is not None
    return learned.state


def test_it_is_stored_with_the_memory(state: Calibration) -> None:
    again = Calibration.from_json(state.to_json())
    for modality in MODALITIES:
        ours, theirs = state.sides[modality].presence, again.sides[modality].presence
        assert ours is not None
        assert theirs is not None
        assert ours.to_array().tobytes() == theirs.to_array().tobytes()


def changed(state: Calibration, change: Any) -> dict[str, Any]:
    """The stored state with other arrays, as another version would have written it."""
    stored = state.to_json()
    with np.load(io.BytesIO(base64.b64decode(stored["blob"]))) as file:
        arrays = change(dict(file))
    out = io.BytesIO()
    np.savez(out, **arrays)
    blob = out.getvalue()
    return stored | {"sha256": hashlib.sha256(blob).hexdigest(), "blob": base64.b64encode(blob).decode()}


@pytest.mark.parametrize("bad", [np.zeros((3, 4)), np.zeros((0, 11)), np.full((2, 11), 99.0)])
def test_a_damaged_one_is_refused(state: Calibration, bad: np.ndarray) -> None:
    stored = changed(state, lambda arrays: arrays | {"presence_text": bad.astype(np.float32)})
    with pytest.raises(ConfigError, match="reco memory calibrate"):
        Calibration.from_json(stored)


def test_trees_are_read_as_one_asks_them(corpus: Corpus) -> None:
    learned = learn_presence(corpus, "text", 10, seed=0)
    assert learned is not None
    signals = np.random.default_rng(0).normal(0.5, 0.5, (50, SIGNALS)).astype(np.float32)

    def ask(row: np.ndarray) -> float:
        logit = 0.0
        for feature, threshold, leaf in zip(learned.feature, learned.threshold, learned.leaf, strict=True):
            first = int(row[feature[0]] > threshold[0])
            second = int(row[feature[1 + first]] > threshold[1 + first])
            logit += float(leaf[2 * first + second])
        return 1.0 / (1.0 + np.exp(-logit))

    assert np.allclose(learned.of(signals), [ask(row) for row in signals], atol=1e-5)
    assert np.isfinite(learned.leaf).all()


def test_it_looks_at_as_many_neighbours_as_it_learned_from() -> None:
    leaf = np.array([[-1.0, -1.0, 1.0, 1.0]], np.float32)
    presence = Presence(3, np.zeros((1, 3), np.intp), np.full((1, 3), 0.5, np.float32), leaf)
    similarity = np.array([[0.9, 0.8, 0.7, 0.1]], np.float32)
    values, found = np.ones((1, 4, 2), np.float32), np.ones((1, 4), np.bool_)
    query, mean = np.ones((1, 2), np.float32), np.zeros(2, np.float32)
    more = presence_of(presence, query, Neighbours([["a"]], similarity, values, found), mean, 1.0)
    assert more[0] > 0.5
    signals = presence_signals(query, similarity[:, :3], values[:, :3], mean, 1.0)
    assert np.allclose(signals[0, :4], [0.9, 0.1, 0.15, 0.1])


def test_a_block_that_asks_holds_its_scores_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "ASKED", 100)
    corpus = measured(*world(500, 8)[:2])
    tracemalloc.start()
    learn_presence(corpus, "image", 5, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * 4 * 100 * len(corpus)
