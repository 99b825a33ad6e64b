"""The captions to look at first, on drawings whose captions were exchanged."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.cli.app import app
from reco_plugin.demo.bench import pairs
from reco_plugin.errors import DataError
from reco_plugin.evaluation.clean import score_captions
from reco_plugin.evaluation.clean_count import count_wrong
from reco_plugin.evaluation.clean_report import find_wrong
from reco_plugin.evaluation.labelled_set import LabelledSet
from reco_plugin.ingest.corrections import Correction
from reco_plugin.quickstart.dataset import load
from reco_plugin.sources.rows import Rejected
from reco_plugin.types import Records
from reco_plugin.values import CONFIRMED

THINGS, WRONG = 80, 24


@pytest.fixture(scope="module")
def drawn(model: Path) -> Records:
    """All drawings of some things that the mini CLIP knows."""
    some = pairs(load(), ("seen",))
    names = list(dict.fromkeys(pair.payload["entity"] for pair in some))
    names = names[:: len(names) // THINGS]
    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.add([pair for pair in some if pair.payload["entity"] in names])
        return next(reco.memory.store.scroll(2_000))


@pytest.fixture(scope="module")
def exchanged(drawn: Records) -> tuple[LabelledSet, np.ndarray]:
    """A catalogue with exchanged captions, and which they are."""
    rng, source = np.random.default_rng(3), np.arange(len(drawn))
    chosen = rng.choice(len(drawn), WRONG, replace=False)
    source[chosen] = np.roll(chosen, 1)
    captions = [drawn.payloads[row]["caption"] for row in source]
    entity = np.array([payload["entity"] for payload in drawn.payloads])
    return (
        LabelledSet("captions", "catalogue", replace(drawn, text=drawn.text[source]), captions, captions),
        entity != entity[source],
    )


def test_exchanged_captions_come_first_and_suggestions_name_the_thing(exchanged, drawn):
    things, wrong = exchanged
    scores = score_captions(things.pairs.image, things.pairs.text)
    first = scores.order[:WRONG]
    assert wrong[first].mean() > 0.8
    clip = (things.pairs.image * things.pairs.text).sum(axis=1)
    assert wrong[first].sum() >= wrong[np.argsort(clip)[:WRONG]].sum()
    entity = [payload["entity"] for payload in drawn.payloads]
    home: dict[str, set[str]] = {}
    for payload in drawn.payloads:
        home.setdefault(payload["caption"], set()).add(payload["entity"])
    right = [entity[row] in home[things.texts[scores.suggested[row]]] for row in first.tolist() if wrong[row]]
    assert np.mean(right) > 0.6


def test_most_intervals_hold_the_number_and_nothing_wrong_is_no_alarm(drawn):
    held, means = [], []
    entity = np.array([payload["entity"] for payload in drawn.payloads])
    for wrong_share, seed in product((0.0, 0.05, 0.1, 0.3), range(2)):
        source = np.arange(len(drawn))
        chosen = np.random.default_rng(seed).choice(len(drawn), round(wrong_share * len(drawn)), replace=False)
        source[chosen] = np.roll(chosen, 1)
        scores = score_captions(drawn.image, drawn.text[source], seed=seed)
        counts = count_wrong(scores, scores.order, seed=seed)
        wrong = entity != entity[source]
        if wrong.any():
            held += [count.low <= wrong[scores.order[:k]].sum() <= count.high for k, count in counts.first.items()]
        means.append(counts.first[100].mean)
    assert np.mean(held) >= 0.7
    assert max(means[:2]) < min(means[-2:])


@pytest.mark.parametrize("decision", ["right", "leave out", "replace", CONFIRMED])
def test_what_was_decided_is_not_listed_again(exchanged, decision):
    things, _ = exchanged
    first = find_wrong(things, show=5).cards[0]
    decided = {first.name: Correction(first.caption, "new", decision)}
    if decision == CONFIRMED:  # in the memory
        marked = [{CONFIRMED: id_ == first.name} for id_ in things.pairs.ids]
        things, decided = replace(things, pairs=replace(things.pairs, payloads=marked)), {}
    after = find_wrong(things, show=50, decided=decided)
    assert first.name not in [card.name for card in after.cards]
    assert sum(part.pairs for part in after.parts) == len(things) - 1
    if decided:
        changed = {first.name: replace(decided[first.name], old="another caption")}
        assert find_wrong(things, show=5, decided=changed).cards[0].name == first.name


def test_decisions_teach_the_list(exchanged):
    things, wrong = exchanged
    image, text = things.pairs.image, things.pairs.text
    before = score_captions(image, text)
    first = before.order[:40]
    decided = np.zeros(len(wrong), np.int8)
    decided[first] = np.where(wrong[first], -1, 1)

    def apart(scores):
        bad, good = scores.score[first][wrong[first]], scores.score[first][~wrong[first]]
        return (bad.mean() - good.mean()) / scores.score.std()

    assert apart(score_captions(image, text, decided=decided)) > apart(before) + 0.01
    only_right = score_captions(image, text, decided=np.maximum(decided, 0))
    assert np.array_equal(only_right.score, before.score), "the hardest of the right alone would mislead"


def test_broken_pictures_and_one_under_many_captions_come_first(exchanged):
    things, _ = exchanged
    image = things.pairs.image.copy()
    image[7:13] = image[7]
    broken = [("a fox", Rejected("row 1", "its image is damaged", "gone"))]
    spoiled = replace(things, pairs=replace(things.pairs, image=image), broken=broken)
    gone, many = find_wrong(spoiled, show=3).certain
    assert (gone.pairs, gone.why) == ([("gone", "a fox")], "its image is damaged")
    assert {id_ for id_, _ in many.pairs} >= set(things.pairs.ids[7:13])
    assert many.suggestion == ""
    decided = {id_: Correction(text, "", "leave out") for id_, text in (*gone.pairs, *many.pairs)}
    assert find_wrong(spoiled, show=3, decided=decided).certain == []


def test_too_few_pairs_and_equal_captions_are_refused(drawn):
    with pytest.raises(DataError, match="100"):
        score_captions(drawn.image[:99], drawn.text[:99])
    with pytest.raises(DataError, match="the same"):
        score_captions(drawn.image, np.repeat(drawn.text[:1], len(drawn), axis=0))


def test_the_command_writes_the_page_and_needs_one_source(tmp_path, model, drawn, monkeypatch):
    monkeypatch.setenv("RECO_MODEL", str(model))
    with Reco.open(model, tmp_path / "memory") as reco:
        reco.memory.add_records([drawn])
    run = CliRunner()
    out = run.invoke(app, ["clean", "--memory", str(tmp_path / "memory"), "--out", str(tmp_path / "out"), "--json"])
    assert out.exit_code == 0, out.output
    assert len(json.loads(out.stdout)["cards"]) == 100
    assert (tmp_path / "out" / "clean.html").is_file()
    assert run.invoke(app, ["clean"]).exit_code == 1
    missing = run.invoke(
        app, ["clean", "--memory", str(tmp_path / "memory"), "--corrections", str(tmp_path / "no.csv")]
    )
    assert missing.exit_code == 1
    assert "no.csv" in missing.stderr
