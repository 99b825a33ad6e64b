"""Which pairs show which classes."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.errors import ConfigError
from reco_plugin.evaluate.study.memories import membership
from reco_plugin.types import Records

CLASSES = ("fox", "Red Fox", "ice_cream", "ox")
PROMPTS = np.eye(4, dtype=np.float32)


def records(payloads: list[dict[str, object]], text: np.ndarray | None = None) -> Records:
    vectors = np.eye(4, dtype=np.float32)[np.zeros(len(payloads), int)] if text is None else text
    return Records([str(i) for i in range(len(payloads))], vectors, vectors, payloads)


def numbers(*numbers: int) -> np.ndarray:
    return np.array(numbers)


def test_by_the_words_of_the_caption() -> None:
    captions = ["A red fox sleeps.", "ice cream!", "foxes and boxes", "an ox, a fox", ""]
    shows = membership(records([{"caption": c} for c in captions]), CLASSES, PROMPTS, None)
    assert (shows.how, shows.known) == ("caption", True)
    assert shows.of(numbers(0)).tolist() == [True, False, False, True, False]
    assert shows.of(numbers(1)).tolist() == [True, False, False, False, False]
    assert shows.of(numbers(2)).tolist() == [False, True, False, False, False]
    assert shows.of(numbers(2, 3)).tolist() == [False, True, False, True, False]
    assert shows.covered(numbers(0, 1, 2, 3)).all()


def test_by_a_key_of_the_payload_name_or_number() -> None:
    payloads = [{"kind": "red fox"}, {"kind": 3}, {"kind": "cat"}, {"caption": "an ox"}]
    shows = membership(records(payloads), CLASSES, PROMPTS, "kind")
    assert shows.how == "label key"
    assert [shows.of(numbers(n)).tolist() for n in (1, 3)] == [
        [True, False, False, False],
        [False, True, False, False],
    ]
    with pytest.raises(ConfigError, match="'sort' is in no payload of the memory; there are: caption, kind"):
        membership(records(payloads), CLASSES, PROMPTS, "sort")


def test_by_the_nearest_prompt_where_pairs_have_neither() -> None:
    shows = membership(records([{}, {}], np.eye(4, dtype=np.float32)[[2, 0]]), CLASSES, PROMPTS, None)
    assert (shows.how, shows.known) == ("nearest prompt", False)
    assert shows.of(numbers(2)).tolist() == [True, False]
    assert shows.covered(numbers(0, 1)).tolist() == [True, False]
