"""From figures to a policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fit_worlds import FINGERPRINT, catalogue_of, made, unit, word

from reco_plugin.data import Labelled
from reco_plugin.evaluate import zero_shot
from reco_plugin.evaluate.methods import MeanOfNeighbours
from reco_plugin.fit.candidates import Candidate, ask
from reco_plugin.fit.catalogue import Catalogue, split
from reco_plugin.fit.choose import (
    Judged,
    Verdict,
    best_baselines,
    choose,
    final_lines,
    find_unconfirmed,
    judge,
    policy_of,
)
from reco_plugin.fit.config import FitSide, TestLine
from reco_plugin.measure.statistics import Interval
from reco_plugin.types import Records

IMAGENET = Path(__file__).parents[3] / "shared" / "data" / "clip_vit_b32_imagenet.npz"


def candidate(name: str = "w", **more: object) -> Candidate:
    return Candidate(name, 5, "on", **more)  # type: ignore[arg-type]


def verdict(side: FitSide, mean: float, low: float, loss: float = 0.0) -> Verdict:
    return Verdict(side, Interval(mean, low, mean + 0.1), loss, allowed=0.005)


def judged(name: str, *verdicts: Verdict) -> Judged:
    return Judged(candidate(name), verdicts)


def test_a_side_helps_when_it_surely_gains_and_harms_nothing():
    assert verdict("text", 0.1, 0.01).helps
    assert not verdict("text", 0.1, 0.0).helps
    assert not verdict("text", 0.1, 0.01, loss=-0.006).helps
    assert verdict("text", 0.1, 0.01, loss=-0.005).helps


def test_the_largest_gain_on_sides_that_it_helps_is_chosen():
    harmful = judged("harmful", verdict("text", 0.9, 0.8, loss=-0.1), verdict("image", 0.0, 0.0))
    small = judged("small", verdict("text", 0.1, 0.05), verdict("image", 0.0, -0.1))
    both = judged("both", verdict("text", 0.08, 0.05), verdict("image", 0.05, 0.01))
    found = choose([harmful, small, both])
    assert found is both and found.sides == ("text", "image")
    assert choose([harmful]) is None
    assert choose([]) is None


def test_of_equals_the_earlier_and_simpler_is_chosen():
    first, second = (judged(name, verdict("text", 0.1, 0.05)) for name in "ab")
    assert choose([first, second]) is first


def test_the_goal_says_which_sides_come_first():
    searches = judged("s", verdict("text", 0.1, 0.05), verdict("names", 0.0, 0.0))
    classifies = judged("c", verdict("text", 0.0, 0.0), verdict("names", 0.3, 0.2))
    assert choose([searches, classifies], "search") is searches
    assert choose([searches, classifies], "classify") is classifies
    assert choose([classifies], "search") is classifies


@pytest.mark.parametrize(
    ("sides", "queries", "candidates"),
    [(("text",), ("text",), ()), (("text", "image", "names"), ("image", "text"), ("text",)), ((), (), ())],
)
def test_the_policy_refines_these_sides(sides, queries, candidates):
    policy = policy_of(candidate(caution="bold"), sides)
    assert policy.refine == {"query": queries, "candidate": candidates}
    assert (policy.k, policy.gate, policy.caution) == (5, True, "bold")


def test_what_the_test_part_does_not_confirm_is_withdrawn():
    def line(task: str, gain: float, loss: float = 0.0) -> TestLine:
        around = {"gain": Interval(gain, gain - 0.05, gain + 0.05), "loss": Interval(loss, loss - 0.05, loss + 0.05)}
        return TestLine(task=task, way="chosen", label="", queries=9, recall={1: 0.5}, **around)  # type: ignore[arg-type]

    lines = [line("text->image", 0.2), line("image->text", 0.04)]
    assert find_unconfirmed(lines, ("text", "image")) == ("image",)
    assert find_unconfirmed([line("text->image", 0.2, loss=-0.06)], ("text",)) == ("text",)


@pytest.mark.skipif(not IMAGENET.exists(), reason="only where the vectors are")
def test_the_verdict_on_fine_names_agrees_with_an_evaluation_among_all_of_them():
    """Real vectors: a part's names among themselves are easy; among all thousand, refining them gains."""
    stored = np.load(IMAGENET)
    image, first, second = (unit(stored[name].astype(np.float32)) for name in ("image", "text_a", "text_b"))
    names, each = [word(number) for number in range(len(first))], image.shape[1]
    groups = tuple(name for name in names for _ in range(each))
    text = np.stack([second] * each, axis=1)
    ids = [f"{name}/{row}" for name in names for row in range(each)]
    pairs = Records(ids, image.reshape(-1, 512), text.reshape(-1, 512), [{"caption": name} for name in groups])
    order = np.argsort(names)
    catalogue = Catalogue(pairs, groups, tuple(names[row] for row in order), first[order], "0" * 64)
    parts = split(ids, groups, validation=0.15, test=0.15)
    fingerprint = replace(FINGERPRINT, dimension=512)
    questions = ask(catalogue, parts, "validation", fingerprint, near=0.97)
    found = judge(questions, candidate()).verdict("names")
    assert found is not None and found.helps, found
    for helped, moved in ((("image", "names"), "images and texts"), (("names",), "texts")):
        chosen = Judged(candidate(), tuple(replace(found, side=side) for side in helped))
        simple = best_baselines(questions, chosen)
        lines = final_lines(questions, chosen, simple, seed=0)
        theirs, ours = (line for line in lines if line.task == "image->name" and line.way != "frozen")
        assert theirs.label.endswith(f": {moved} moved")  # both sides against both, one against one
        assert ours.ahead is not None
        assert ours.ahead.mean == pytest.approx(ours.recall[1] - theirs.recall[1])
        fuser = simple["image->name"].fuser
        assert fuser.image_weight == 0 or "images" in moved
    refiner = candidate().refiner(questions.memory)
    asked, labels = parts.queries("validation"), np.repeat(np.arange(len(names)), each)
    labelled = Labelled("held out", pairs.image[asked], labels[asked], tuple(names), (), first)
    gain = zero_shot(refiner, labelled, sides=["text"])["text"].gain
    assert gain.mean == pytest.approx(found.gain.mean) and gain.low > 0


def test_a_memory_that_knows_helps_and_label_transfer_harms_where_it_does_not():
    """Captions that are anchors of their own images, as CLIP knows them: replacing an image by what is found harms."""
    records = made()
    mixed = records.text + 2.0 * (records.image - records.image.mean(axis=0))
    known = type(records)(
        records.ids, records.image, mixed / np.linalg.norm(mixed, axis=1, keepdims=True), records.payloads
    )
    catalogue = catalogue_of(known)
    parts = split(catalogue.pairs.ids, catalogue.groups, validation=0.2, test=0.2)
    questions = ask(catalogue, parts, "validation", FINGERPRINT, near=0.999)
    candidate = Candidate("transfer", 5, "off", MeanOfNeighbours(1e6, 1e6, np.inf))
    image = judge(questions, candidate).verdict("image")
    assert image is not None and image.harms and image.loss < -0.1
    bold = judge(questions, candidate, max_loss=1.0).verdict("image")
    assert bold is not None and not bold.harms and bold.loss == image.loss
    lines = final_lines(ask(catalogue, parts, "test", FINGERPRINT, near=0.999), None, _simple(), seed=0)
    assert [line.gain for line in lines if line.way == "chosen"] == [Interval(0.0, 0.0, 0.0)] * 2


def _simple():
    return dict.fromkeys(
        ("text->image", "image->text", "image->name"), Candidate("mean", 5, "off", MeanOfNeighbours(1.0, 1.0, 0.05))
    )
