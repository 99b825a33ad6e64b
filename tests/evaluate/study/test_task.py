"""Parts of a task by class."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.data import Labelled
from reco_plugin.errors import ConfigError
from reco_plugin.evaluate.study.memories import folds, split_classes
from reco_plugin.evaluate.task import Task, task_of

EYE = np.eye(6, dtype=np.float32)


def labelled(**more: object) -> Labelled:
    labels = np.array([0, 1, 2, 3, 4, 5, 5])
    return Labelled("x", EYE[labels], labels, tuple("abcdef"), (), EYE, **more)  # type: ignore[arg-type]


def parts(task: Task) -> tuple[list[int], list[int], list[int]]:
    """Labels of queries and of candidates, and rows."""
    assert task.rows is not None
    return task.queries.labels.tolist(), task.candidates.labels.tolist(), task.rows.tolist()


def test_among_some_classes_labels_name_the_same_prompts() -> None:
    whole = task_of(labelled(query_ids=tuple("0123456")), EYE[labelled().labels], EYE)
    part = whole.among(np.array([False, True, False, True, False, True]))
    assert part.classes == tuple("abcdef")
    assert parts(part) == ([1, 3, 5, 5], [1, 3, 5], [1, 3, 5, 6])
    assert part.queries.own == [("1",), ("3",), ("5",), ("6",)]
    np.testing.assert_array_equal(part.candidates.vectors, EYE[part.candidates.labels])
    np.testing.assert_array_equal(part.queries.vectors, EYE[part.queries.labels])
    again = part.among(np.arange(6) == 5)
    assert parts(again) == ([5, 5], [5], [5, 6])
    only = part.only(part.queries.labels == 5)
    assert (*parts(only), only.queries.own) == ([5, 5], [1, 3, 5], [5, 6], [("5",), ("6",)])


def test_halves_share_no_class_and_both_kinds_are_halved() -> None:
    unseen = np.array([True, True, False, False, False, False])
    whole = task_of(labelled(unseen=unseen), EYE[labelled().labels], EYE)
    dev, test = split_classes(whole, seed=1)
    assert sorted([*dev.candidates.labels, *test.candidates.labels]) == list(range(6))
    assert len(dev) + len(test) == 7
    assert unseen[dev.candidates.labels].sum() == 1
    first, second = folds(whole, 1)
    assert (first != second).all()
    assert folds(whole, 1)[0].tolist() == first.tolist()
    assert any(folds(whole, seed)[0].tolist() != first.tolist() for seed in range(9))


def test_too_few_classes_ask_for_a_development_set() -> None:
    whole = task_of(labelled(), EYE[labelled().labels], EYE).among(np.arange(6) < 3)
    with pytest.raises(ConfigError, match=r"3 classes are too few .*--dev FILE"):
        split_classes(whole, 0)
    with pytest.raises(ConfigError, match=r"^1 class is too few"):
        split_classes(whole.among(np.arange(3) < 1), 0)
