"""What else could be done with the pairs: each by hand or against a slow twin, and never by a query's own pair."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from reco_plugin.evaluate.alternatives import (
    Graph,
    LabelledImages,
    LabelPropagation,
    TipAdapter,
    XMoRe,
    contrastive_gradient,
    train_adapters,
)
from reco_plugin.evaluate.measure import measure
from reco_plugin.evaluate.study.memories import ram_memory
from reco_plugin.evaluate.task import Task, TaskItems
from reco_plugin.types import Fingerprint, Records

C, D, EACH = 12, 16, 5


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Classes that images tell apart and prompts do not; queries are noisy images of their class."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        centres, self.labels = unit(rng.normal(size=(C, D))), np.repeat(np.arange(C), EACH)
        self.images, queries = (unit(centres[self.labels] + 0.12 * rng.normal(size=(C * EACH, D))) for _ in range(2))
        self.turn = np.linalg.qr(rng.normal(size=(D, D)))[0].astype(np.float32)
        self.ids = [f"p{row}" for row in range(C * EACH)]
        self.prompts = unit(centres @ self.turn)
        self.shown = LabelledImages(self.ids, self.images, np.arange(C * EACH), self.labels)
        own = [(id_,) for id_ in ["another"] * (C * EACH)]
        self.task = Task(
            TaskItems(queries, "image", self.labels, own), TaskItems(self.prompts, "text", np.arange(C)), self.labels
        )
        self.pairs = Records(self.ids, self.images, self.prompts[self.labels], [{}] * (C * EACH))
        self.memory = ram_memory(self.pairs, Fingerprint("made up", "0" * 64, D)).at(EACH)


@pytest.fixture
def world() -> World:
    return World()


def top1(method: Any, task: Task, memory: Any) -> float:
    return float(method.measure(task, memory).top(1).mean())


def every_method(shown: LabelledImages) -> list[Any]:
    return [TipAdapter(shown, 3.0, 10.0), LabelPropagation(Graph(shown, EACH), 3.0, 0.5, 5.0), XMoRe(EACH, 20.0)]


def test_the_gradient_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    image, text = (unit(rng.normal(size=(9, D))) for _ in range(2))
    weights = 0.1 * rng.normal(size=(2, D, D)).astype(np.float32)
    same = np.zeros((9, 9), np.bool_)
    same[0, 1] = same[1, 0] = True
    moved = torch.tensor(weights, requires_grad=True)
    sides = [
        torch.nn.functional.normalize(torch.tensor(x) + torch.tensor(x) @ w)
        for x, w in zip((image, text), moved, strict=True)
    ]
    logits = (20.0 * sides[0] @ sides[1].T).masked_fill(torch.tensor(same), -torch.inf)
    cross = torch.nn.functional.cross_entropy
    ((cross(logits, torch.arange(9)) + cross(logits.T, torch.arange(9))) / 2).backward()
    assert moved.grad is not None
    np.testing.assert_allclose(
        contrastive_gradient(weights, image, text, same, 20.0), moved.grad.numpy(), rtol=1e-3, atol=1e-5
    )


def test_an_adapter_learns_the_turn_between_the_sides(world: World) -> None:
    captions = [f"class {label}" for label in world.labels]
    frozen = float(measure(world.task).top(1).mean())
    first, last = train_adapters(world.pairs, captions, (1, 200), rate=3e-3, scale=20.0, side="both", seed=0)
    assert top1(first, world.task, None) < 0.5
    assert top1(last, world.task, None) > max(0.9, frozen + 0.5)
    (texts,) = train_adapters(world.pairs, captions, (200,), rate=3e-3, scale=20.0, side="text", seed=0)
    assert not texts.weights[0].any()  # images stay, and with them an index
    assert top1(texts, world.task, None) > 0.9


def test_tip_adapter_is_its_formula(world: World) -> None:
    """One query at a time, one image at a time."""
    expected = []
    for query, label in zip(world.task.queries.vectors, world.labels, strict=True):
        scores = [float(query @ prompt) for prompt in world.prompts]
        for image, of in zip(world.images, world.labels, strict=True):
            scores[of] += 2.0 * np.exp(-7.0 * (1.0 - float(query @ image)))
        expected.append(int(np.argmax(scores) == label))
    found = TipAdapter(world.shown, 2.0, 7.0).measure(world.task, world.memory).top(1)
    assert found.tolist() == expected
    assert found.mean() > 0.9


def test_labels_spread_to_images_that_have_none(world: World) -> None:
    """Two images of a class are labelled; without spreading, few queries are near to them."""
    labelled = np.flatnonzero(np.arange(C * EACH) % EACH < 2)
    known = LabelledImages(world.ids, world.images, labelled, world.labels[labelled])
    assert len(known.among(np.arange(C)).ids) == len(labelled)  # images of no class are no nodes
    alone = [LabelPropagation(Graph(world.shown, EACH), 3.0, spread, 1.0) for spread in (0.0, 0.9)]
    noisy = replace(world.shown, number=np.where(np.arange(C * EACH) % EACH == 0, (world.labels + 1) % C, world.labels))
    nearest, spread = (
        top1(LabelPropagation(Graph(noisy, 2), 3.0, how, 1.0), world.task, world.memory) for how in (0.0, 0.9)
    )
    assert spread > nearest  # a wrong label is outvoted by the neighbours of the image that has it
    assert all(top1(one, world.task, world.memory) > 0.9 for one in alone)


def test_x_more_by_hand() -> None:
    """The image is unsure and its neighbour's caption is sure: the caption decides, more with more confidence."""
    prompts, query = np.eye(3, dtype=np.float32), unit(np.float32([[1.0, 0.9, 0.9]]))
    memory = ram_memory(
        Records(["a"], query, prompts[1:2], [{"caption": "the second"}]), Fingerprint("made up", "0" * 64, 3)
    ).at(1)
    task = Task(TaskItems(query, "image", np.array([1])), TaskItems(prompts, "text", np.arange(3)), np.array([1]))
    own, vote = (np.exp(row) / np.exp(row).sum() for row in (10.0 * query[0], 10.0 * prompts[1]))
    sure = [1 + (share * np.log(share)).sum() / np.log(3) for share in (own, vote)]
    assert sure[0] < 0.1 < 0.9 < sure[1]
    assert top1(XMoRe(1, 10.0), task, memory) == 1.0  # each confidence is relative to its mean over queries: here 1
    hidden = replace(task, queries=replace(task.queries, own=[("a",)]))
    assert top1(XMoRe(1, 10.0), hidden, memory) == float(own.argmax() == 1) == 0.0


def test_confidence_is_relative_to_the_other_queries() -> None:
    from reco_plugin.evaluate.alternatives import _confidence

    sure, unsure = np.float64([0.98, 0.01, 0.01]), np.float64([0.4, 0.3, 0.3])
    both = _confidence(np.stack([sure, unsure]))
    assert both.mean() == pytest.approx(1.0)
    assert both[0] > both[1] > 0
    assert _confidence(np.stack([sure, np.zeros(3)])).tolist() == [2.0, 0.0]
    for classes in range(2, 40):  # all classes alike, as where their prompts are
        equal = np.full((3, classes), 1.0 / classes, np.float32)
        assert (_confidence(equal) >= 0.0).all()


@pytest.mark.parametrize("place", range(3))
def test_a_query_never_profits_from_its_own_pair(world: World, place: int) -> None:
    """The pair of each query is given a class and a caption that only it has."""
    alone = LabelledImages(world.ids, world.images, np.arange(C * EACH), np.arange(C * EACH))
    rng = np.random.default_rng(1)
    prompts = unit(rng.normal(size=(C * EACH, D)))
    pairs = replace(world.pairs, text=prompts)
    memory = ram_memory(pairs, Fingerprint("made up", "0" * 64, D)).at(EACH)
    labels = np.arange(C * EACH)
    own = [(id_,) for id_ in world.ids]
    queries = TaskItems(world.images, "image", labels, own)
    task = Task(queries, TaskItems(prompts, "text", labels), labels)
    seen = replace(task, queries=replace(queries, own=None))
    methods = (TipAdapter(alone, 3.0, 40.0), LabelPropagation(Graph(alone, 1), 3.0, 0.0, 1.0), XMoRe(1, 20.0))
    assert top1(methods[place], task, memory) < 0.1
    assert top1(methods[place], seen, memory) > 0.5


@pytest.mark.parametrize("place", range(3))
def test_without_a_pair_of_the_classes_scores_are_frozen(world: World, place: int) -> None:
    nothing = LabelledImages([], np.empty((0, D), np.float32), np.empty(0, np.int64), np.empty(0, np.int64))
    memory = ram_memory(world.pairs.take([]), Fingerprint("made up", "0" * 64, D)).at(EACH)
    found = every_method(nothing)[place].measure(world.task, memory)
    assert found.top(1).tolist() == measure(world.task).top(1).tolist()


def test_parts_of_the_classes_are_numbered_by_their_place(world: World) -> None:
    """A task among some classes is answered as if the others did not exist."""
    chosen = np.isin(np.arange(C), [2, 5, 11])
    part = world.task.among(chosen)
    known = world.shown.among(part.candidates.labels)
    assert sorted(set(known.number.tolist())) == [0, 1, 2]
    assert all(first <= second for first, second in pairwise(known.number.tolist()))
    for method in every_method(world.shown)[:2]:
        assert top1(method, part, world.memory) > 0.9
