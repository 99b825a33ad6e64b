"""The closed-form fit of ``reco``: what is damped, hidden and trusted, and what too few pairs leave alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from reco_plugin.calibration import calibrate
from reco_plugin.gate import TextGate
from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.train.data import hidden_ids
from reco_plugin.train.fit import Question, ask, fit_fusions, metric, unused_direction
from reco_plugin.train.loop import FUSION, Fusions, load_fusions, save_fusions
from reco_plugin.train.model import FusionConfig, MetricFusion
from reco_plugin.types import Records

D, GROUPS, EACH, K = 32, 100, 4, 6
STYLES = 6  # directions in which images of one thing differ


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Things drawn in many styles: the style moves an image more than the thing does. The last axis stays unused."""

    def __init__(self, groups: int = GROUPS, each: int = EACH, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.styles = np.linalg.qr(np.random.default_rng(99).normal(size=(D - 1, STYLES)))[0].T  # of every world
        thing = 0.15 * rng.normal(size=(groups, D - 1))
        self.group = np.repeat(np.arange(groups), each)
        rows = len(self.group)
        style = 0.5 * rng.normal(size=(rows, STYLES)) @ self.styles
        image = thing[self.group] + style + 0.04 * rng.normal(size=(rows, D - 1))
        image = np.pad(image + 0.5 * np.eye(1, D - 1, 3), ((0, 0), (0, 1)))
        meaning = rng.normal(size=(groups, D))
        text = meaning[self.group] + 0.25 * rng.normal(size=(rows, D))
        self.shown = [f"thing {group}" for group in self.group]
        ids = [f"p{row}" for row in range(rows)]
        self.pairs = Records(ids, unit(image), unit(text), [{"thing": shown} for shown in self.shown])

    @property
    def group_of(self) -> dict[str, str]:
        return dict(zip(self.pairs.ids, self.shown, strict=True))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def memory(world: World) -> Iterator[Memory]:
    with closing(open_memory(":memory:", Fingerprint("mini", "ab" * 32, D), kind="exact")) as opened:
        opened.upsert(world.pairs)
        yield opened


@pytest.fixture(scope="module")
def questions(world: World, memory: Memory) -> tuple[Question, Question]:
    hidden = hidden_ids(memory, world.pairs)
    return ask(memory, world.pairs.text, world.shown, world.group_of, hidden, K)


def fitted(world: World, questions: tuple[Question, Question]) -> Fusions:
    honesty = calibrate(world.pairs.image, world.pairs.text).honesty
    return fit_fusions(FusionConfig("reco", D), world.pairs, world.shown, questions, honesty)


# --- metric ------------------------------------------------------------------------------------------------------


def told_apart(image: np.ndarray, group: np.ndarray) -> float:
    """Share of images whose nearest other image shows the same thing."""
    scores = unit(image) @ unit(image).T
    np.fill_diagonal(scores, -2)
    return float((group[scores.argmax(axis=1)] == group).mean())


def test_things_that_were_never_seen_are_told_apart_better(world: World) -> None:
    found, others = metric(world.pairs.image, world.group), World(seed=1)
    plain = told_apart(others.pairs.image, others.group)
    assert plain < 0.4
    assert told_apart(others.pairs.image @ found, others.group) > plain + 0.3


def test_what_differs_within_things_is_damped_and_the_rest_is_left_alone(world: World) -> None:
    found = metric(world.pairs.image, world.group)
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    values = np.linalg.svd(found, compute_uv=False)
    assert values[0] == pytest.approx(1.0, abs=1e-5) and values[-1] > 0
    assert (values > 1 - 1e-5).sum() == D // 2 + 1, "a half and the first of the other, which sets the measure"
    along = np.linalg.norm(np.pad(world.styles, ((0, 0), (0, 1))) @ found, axis=1)
    aside = np.random.default_rng(3).normal(size=(20, D - 1))
    aside = np.pad(unit(aside - aside @ world.styles.T @ world.styles), ((0, 0), (0, 1)))
    assert along.max() < 0.3 < 0.5 < np.linalg.norm(aside @ found, axis=1).min()
    assert np.linalg.norm(found[-1]) == pytest.approx(1.0, abs=1e-5), "images differ least where none of them is"


def test_a_direction_is_damped_by_the_root_of_its_variance() -> None:
    """Four directions with deviations 1, 2, 4, 8 around the mean of each group: 2 is the first of the upper half."""
    deviations = np.array([1.0, 2.0, 4.0, 8.0])
    steps = np.concatenate([np.diag(deviations), -np.diag(deviations)])
    images = np.concatenate([centre + steps for centre in 10 * np.eye(4)[:3]]).astype(np.float32)
    groups = np.repeat(np.arange(3), 8)
    np.testing.assert_allclose(metric(images, groups), np.diag([1.0, 1.0, 1.0, 0.5]), atol=1e-6)


@pytest.mark.parametrize(
    "groups",
    [np.arange(GROUPS * EACH), np.minimum(np.arange(GROUPS * EACH), GROUPS * EACH - 19)],
    ids=["each its own", "19 that share"],
)
def test_too_few_pairs_that_show_the_same_leave_the_identity(world: World, groups: np.ndarray) -> None:
    np.testing.assert_array_equal(metric(world.pairs.image, groups), np.eye(D))


def test_fewer_pairs_than_directions_extinguish_none() -> None:
    """24 pairs of 12 things differ in 12 directions of 256; nothing says how much the others would."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        images = unit(rng.normal(size=(24, 256)))
        assert np.linalg.svd(metric(images, np.repeat(np.arange(12), 2)), compute_uv=False)[-1] > 0.01


def test_images_that_do_not_differ_leave_the_identity() -> None:
    images = np.repeat(np.eye(8, dtype=np.float32), 4, axis=0)
    np.testing.assert_array_equal(metric(images, np.repeat(np.arange(8), 4)), np.eye(8))


def test_pairs_that_are_alone_do_not_count(world: World) -> None:
    alone = World(groups=50, each=1, seed=4)
    image = np.concatenate([world.pairs.image, alone.pairs.image])
    group = np.concatenate([world.group, GROUPS + alone.group])
    np.testing.assert_allclose(metric(image, group), metric(world.pairs.image, world.group), atol=1e-5)


def test_the_unused_direction_is_at_right_angles_to_images_of_a_subspace(world: World) -> None:
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(D, D)))[0].astype(np.float32)
    for image, unused in ((world.pairs.image, np.eye(D)[-1]), (world.pairs.image @ turn, turn[-1])):
        found = unused_direction(image)
        assert abs(found @ unused) == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(image @ found, 0, atol=1e-5)


# --- questions ---------------------------------------------------------------------------------------------------


def test_neither_asking_finds_what_is_hidden_and_the_second_nothing_of_the_thing(world: World, memory: Memory) -> None:
    twins = Records(
        [f"twin-{id_}" for id_ in world.pairs.ids], world.pairs.image, world.pairs.text, [{}] * len(world.group)
    )
    with closing(open_memory(":memory:", Fingerprint("mini", "ab" * 32, D), kind="exact")) as doubled:
        doubled.upsert(world.pairs)
        doubled.upsert(twins)
        group_of = world.group_of | {f"twin-{id_}": shown for id_, shown in world.group_of.items()}
        hidden = hidden_ids(doubled, world.pairs)
        answered, unanswered = ask(doubled, world.pairs.text, world.shown, group_of, hidden, 2 * GROUPS * EACH)
    for row, (first, second) in enumerate(zip(answered.found.ids, unanswered.found.ids, strict=True)):
        own = {id_ for id_, shown in group_of.items() if shown == world.shown[row]}
        assert {world.pairs.ids[row], f"twin-{world.pairs.ids[row]}"} <= hidden[row]
        assert not hidden[row] & set(first)
        assert own - hidden[row] <= set(first), "the memory holds the answer"
        assert set(second) == set(group_of) - own - hidden[row]
        assert [group_of[id_] == world.shown[row] for id_ in first] == answered.relevant[row, : len(first)].tolist()
    assert not unanswered.relevant.any()


def test_rows_stay_aligned_over_several_searches(world: World, questions: tuple[Question, Question]) -> None:
    """400 texts are more than one search takes."""
    scores = world.pairs.text @ world.pairs.text.T
    np.fill_diagonal(scores, -2)
    position = {id_: row for row, id_ in enumerate(world.pairs.ids)}
    for row in (0, 255, 256, 399):
        nearest = np.argsort(-scores[row])[:K]
        assert [position[id_] for id_ in questions[0].found.ids[row]] == nearest.tolist()
        np.testing.assert_allclose(questions[0].found.similarity[row], scores[row, nearest], atol=1e-5)
        assert questions[0].relevant[row].tolist() == (world.group[nearest] == world.group[row]).tolist()


def test_pairs_of_which_nothing_is_known_show_something_else(world: World, memory: Memory) -> None:
    nothing: list[set[str]] = [set() for _ in world.shown]
    answered, unanswered = ask(memory, world.pairs.text, world.shown, {}, nothing, K)
    assert not answered.relevant.any()
    assert answered.found.ids == unanswered.found.ids


# --- text gate ---------------------------------------------------------------------------------------------------


def test_what_shows_the_thing_is_trusted_more_than_what_does_not(
    world: World, questions: tuple[Question, Question]
) -> None:
    gate = fitted(world, questions).text_gate
    assert gate is not None
    trusted = [gate.trust(question.found.similarity, question.found.found) for question in questions]
    assert trusted[0][questions[0].relevant].mean() > 5 * trusted[0][~questions[0].relevant].mean()
    best = [part.max(axis=1).mean() for part in trusted]
    assert 0 <= gate.unanswered < 0.2 < 0.8 < gate.answered <= 1
    assert (gate.answered, gate.unanswered) == pytest.approx(best)
    assert gate.honesty == calibrate(world.pairs.image, world.pairs.text).honesty


def test_texts_of_things_never_asked_for_are_told_from_strangers(
    world: World, questions: tuple[Question, Question]
) -> None:
    gate, other = fitted(world, questions).text_gate, World(seed=7)
    assert gate is not None
    with closing(open_memory(":memory:", Fingerprint("mini", "ab" * 32, D), kind="exact")) as held:
        held.upsert(other.pairs)
        own = [{id_} for id_ in other.pairs.ids]
        askings = ask(held, other.pairs.text, other.shown, other.group_of, own, K)
    best = [gate.trust(q.found.similarity, q.found.found).max(axis=1) for q in askings]
    assert best[0].mean() == pytest.approx(gate.answered, abs=0.1)
    assert best[1].mean() == pytest.approx(gate.unanswered, abs=0.1)


@pytest.mark.parametrize(("answers", "gated"), [(49, False), (50, True)])
def test_too_few_answers_leave_the_gate_to_the_memory(
    answers: int, gated: bool, world: World, questions: tuple[Question, Question]
) -> None:
    rows = np.flatnonzero(questions[0].relevant.any(axis=1))[answers:]
    relevant = questions[0].relevant.copy()
    relevant[rows] = False
    few = Question(questions[0].found, relevant), questions[1]
    fusions = fitted(world, few)
    assert (fusions.text_gate is not None) is gated
    text = fusions.sides["text"]
    assert isinstance(text, MetricFusion)
    assert not torch.equal(text.metric, torch.eye(D)), "the metric needs no answers"


# --- the whole ---------------------------------------------------------------------------------------------------


def test_a_fit_is_the_same_every_time_and_needs_no_seed(world: World, questions: tuple[Question, Question]) -> None:
    torch.manual_seed(1)
    first = fitted(world, questions)
    torch.manual_seed(2)
    again = fitted(world, questions)
    assert first.text_gate == again.text_gate and not first.training
    states = first.state_dict(), again.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_fit_reaches_the_text_side(world: World, questions: tuple[Question, Question]) -> None:
    text = fitted(world, questions).sides["text"]
    assert isinstance(text, MetricFusion)
    np.testing.assert_array_equal(text.metric.detach().numpy(), metric(world.pairs.image, world.group))
    np.testing.assert_array_equal(np.abs(text.slack.numpy()), np.abs(unused_direction(world.pairs.image)))
    assert world.pairs.text.mean(axis=0) @ text.slack.numpy() >= 0, "texts stand on the side that the slack goes to"


@pytest.mark.parametrize("fuser", ["paper", "training-free"])
def test_only_ours_is_fitted(fuser: str, world: World, questions: tuple[Question, Question]) -> None:
    with pytest.raises(TypeError, match=f"not {fuser}"):
        fit_fusions(FusionConfig(fuser, D), world.pairs, world.shown, questions, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("gate", [TextGate(9.0, 2.0, -5.0, 0.9, 0.1, 0.8), None], ids=["gate", "no gate"])
def test_a_fit_makes_the_round_trip(
    gate: TextGate | None, world: World, questions: tuple[Question, Question], tmp_path: Path
) -> None:
    fusions = fitted(world, questions)
    fusions.text_gate = gate
    save_fusions(fusions, tmp_path / FUSION)
    assert [path.name for path in tmp_path.iterdir()] == [FUSION]
    read = load_fusions(tmp_path / FUSION)
    assert (read.text_gate, read.config) == (gate, fusions.config)
    states = fusions.state_dict(), read.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
