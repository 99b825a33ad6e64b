"""What held-out parts ask, and what they can and cannot find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fit_worlds import FINGERPRINT, catalogue_of, made

from reco_plugin.fit.candidates import Questions, ask
from reco_plugin.fit.catalogue import Catalogue, HeldOut, split

CATALOGUE = catalogue_of(made())
PARTS = split(CATALOGUE.pairs.ids, CATALOGUE.groups, validation=0.2, test=0.2)


def asked(catalogue: Catalogue = CATALOGUE, parts: HeldOut = PARTS, near: float = 0.97) -> dict[str, Questions]:
    return {part: ask(catalogue, parts, part, FINGERPRINT, near=near) for part in ("validation", "test")}


def ids(rows: np.ndarray) -> set[str]:
    return {CATALOGUE.pairs.ids[row] for row in rows}


def test_what_asks_is_in_no_memory_that_it_asks():
    questions = asked()
    for part in ("validation", "test"):
        held = ids(PARTS.queries(part))
        assert held
        assert not held & set(questions[part].memory.pairs.ids)
        assert set(questions[part].memory.pairs.ids) >= ids(PARTS.rest(part))


def test_validation_sees_nothing_of_the_test_part_and_the_test_all_of_validation():
    questions = asked()
    assert not set(questions["validation"].memory.pairs.ids) & ids(PARTS.rows("test"))
    assert set(questions["test"].memory.pairs.ids) >= ids(PARTS.rows("validation"))


def test_the_other_memory_knows_nothing_of_what_is_asked_for():
    for part, questions in asked().items():
        assert not set(questions.without.pairs.ids) & ids(PARTS.rows(part))
        assert len(questions.without.pairs) > 100


def test_each_caption_asks_once_per_group():
    questions = asked()["test"]
    texts, images = (questions.tasks[name].queries for name in ("text->image", "image->text"))
    assert len(texts) == len(np.unique(texts.labels)) == images.labels.max() + 1
    assert len(images) == len(PARTS.queries("test"))


def test_captions_and_names_of_all_groups_are_rivals_unless_the_memory_knows_nothing():
    names = tuple(sorted(set(CATALOGUE.groups)))
    prompts = np.stack([CATALOGUE.pairs.text[CATALOGUE.groups.index(name)] for name in names])
    for part, questions in asked(replace(CATALOGUE, names=names, prompts=prompts)).items():
        groups = {CATALOGUE.groups[row] for row in PARTS.queries(part)}
        for name in ("image->text", "image->name"):
            task, own = (questions.task(name, known=known) for known in (True, False))
            assert len(task.candidates) == len(names) and len(own.candidates) == len(groups)
            assert len(task) == len(own) and sorted(own.candidates.labels) == list(range(len(groups)))
            others = {CATALOGUE.groups.index(name) for name in names if name not in groups}
            rivals = task.candidates.vectors[len(groups) :]
            assert {v.tobytes() for v in rivals} == {CATALOGUE.pairs.text[row].tobytes() for row in others}
            assert len(task.candidates.own) == len(names)


def test_copies_of_a_query_are_hidden_from_it_and_from_its_caption():
    row, other = PARTS.queries("test")[0], PARTS.rest("test")[0]
    image = CATALOGUE.pairs.image.copy()
    image[other] = image[row]
    copied = replace(CATALOGUE, pairs=replace(CATALOGUE.pairs, image=image))
    questions, copy = asked(copied)["test"], CATALOGUE.pairs.ids[other]
    texts, images = (questions.tasks[name].queries for name in ("text->image", "image->text"))
    place = int(np.flatnonzero((images.vectors == image[row]).all(axis=1))[0])
    assert copy in images.own[place]
    assert copy in texts.own[int(np.flatnonzero(texts.labels == images.labels[place])[0])]
    assert copy not in asked(copied, near=1.1)["test"].tasks["image->text"].queries.own[place]


@pytest.mark.parametrize("most", [7])
def test_of_very_many_the_same_few_ask(monkeypatch, most):
    monkeypatch.setattr("reco_plugin.fit.candidates.MOST", most)
    first, again = (asked()["test"].tasks["image->text"].queries for _ in range(2))
    assert len(first) == most
    assert np.array_equal(first.vectors, again.vectors)
