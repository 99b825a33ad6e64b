"""Parts of a task by class."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.data import Labelled
from reco_plugin.errors import ConfigError
from reco_plugin.evaluate.study.task import folds, split_classes, task_of

EYE = np.eye(6, dtype=np.float32)


def labelled(**more: object) -> Labelled:
    labels = np.array([0, 1, 2, 3, 4, 5, 5])
    return Labelled("x", EYE[labels], labels, tuple("abcdef"), (), EYE, **more)  # type: ignore[arg-type]


def test_among_some_classes_labels_point_at_the_same_prompts() -> None:
    whole = task_of(labelled(query_ids=tuple("0123456")), EYE[labelled().labels], EYE)
    part = whole.among(np.array([False, True, False, True, False, True]))
    assert part.classes == ("b", "d", "f")
    assert part.labels.tolist() == [0, 1, 2, 2]
    assert part.numbers.tolist() == [1, 3, 5]
    assert part.rows.tolist() == [1, 3, 5, 6]
    assert part.own == ("1", "3", "5", "6")
    np.testing.assert_array_equal(part.prompts[part.labels], part.queries)
    again = part.among(np.array([False, False, True]))
    assert (again.classes, again.rows.tolist(), again.numbers.tolist()) == (("f",), [5, 6], [5])
    only = part.only(part.labels == 2)
    assert (only.classes, only.labels.tolist(), only.hidden) == (("b", "d", "f"), [2, 2], [("5",), ("6",)])


def test_halves_share_no_class_and_both_kinds_are_halved() -> None:
    unseen = np.array([True, True, False, False, False, False])
    whole = task_of(labelled(unseen=unseen), EYE[labelled().labels], EYE)
    dev, test = split_classes(whole, seed=1)
    assert sorted(dev.classes + test.classes) == list("abcdef")
    assert len(dev) + len(test) == 7
    assert dev.unseen is not None
    assert dev.unseen.sum() == 1
    first, second = folds(whole, 1)
    assert (first != second).all()
    assert folds(whole, 1)[0].tolist() == first.tolist()
    assert any(folds(whole, seed)[0].tolist() != first.tolist() for seed in range(9))


def test_too_few_classes_ask_for_a_development_set() -> None:
    whole = task_of(labelled(), EYE[labelled().labels], EYE).among(np.arange(6) < 3)
    with pytest.raises(ConfigError, match=r"3 classes are too few .*--dev FILE"):
        split_classes(whole, 0)
