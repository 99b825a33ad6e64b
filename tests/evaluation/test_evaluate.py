"""``reco eval`` on made-up shops of which the truth is known: what is hidden, gains, is tuned and written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shop_worlds import FINGERPRINT, made, word

from reco_plugin.encoders.model_folder import Artifact
from reco_plugin.evaluation.evaluate import QuerySplit, evaluate, hold_out, make_refiner, query_memory
from reco_plugin.evaluation.labelled_set import LabelledSet
from reco_plugin.evaluation.memories import draw_queries, ram_memory
from reco_plugin.evaluation.ranking import hits_at, rank_task, refine_task
from reco_plugin.evaluation.tune import tune, write_model
from reco_plugin.types import Records


def labelled_set(records: Records, kind: Any = "captions") -> LabelledSet:
    names = [str(payload["caption"]) for payload in records.payloads]
    return LabelledSet(kind, "shop", records, names, names)


@pytest.fixture(scope="module")
def shop() -> QuerySplit:
    return hold_out(labelled_set(made()), FINGERPRINT)


@pytest.fixture(scope="module")
def labelled() -> QuerySplit:
    return hold_out(labelled_set(made(), "classes"), FINGERPRINT)


def test_half_of_the_things_ask_and_no_pair_that_asks_is_in_the_memory(shop: QuerySplit) -> None:
    assert shop.memory is not None
    queries = {shop.source.pairs.ids[row] for row in shop.rows}
    assert not queries & set(shop.memory.pairs.ids)
    labels = {shop.source.labels[row] for row in shop.rows}
    assert 0.35 < len(labels) / 150 < 0.65
    tested = {shop.source.labels[row] for row, test in zip(shop.rows, shop.test, strict=True) if test}
    chosen = {shop.source.labels[row] for row, test in zip(shop.rows, shop.test, strict=True) if not test}
    assert not tested & chosen
    assert min(len(tested), len(chosen)) > 20
    for row, same in zip(shop.rows, shop.same_label, strict=True):
        thing = shop.source.labels[row]
        held = {
            id_
            for id_, pair in zip(shop.memory.pairs.ids, shop.memory.pairs.payloads, strict=True)
            if pair["caption"] == thing
        }
        assert held <= set(same)


def test_of_very_many_whole_things_ask_and_a_growing_catalogue_keeps_its_draw() -> None:
    names = [word(n // 4) for n in range(2000)]
    ids = [f"p{n}" for n in range(2000)]
    is_query, test = draw_queries(ids, names, 100)
    assert 60 < is_query.sum() <= 110
    assert 0.3 < test[is_query].mean() < 0.7
    more, _ = draw_queries([*ids, "new"], [*names, "new thing"], 5000)
    np.testing.assert_array_equal(more[:-1], draw_queries(ids, names, 5000)[0])


@pytest.mark.parametrize("kind", ["captions", "classes"])
def test_what_the_encoder_cannot_name_gains_and_only_labels_say_switch(kind: str) -> None:
    split = hold_out(labelled_set(made(), kind), FINGERPRINT)
    found = evaluate(split, make_refiner(split, 5))
    gains = {line.name: line.change for line in found.lines if line.change}
    assert gains["pictures search texts, pictures refined"].effect == "gains"
    assert len(found.lines) == 5
    assert all(line.unknown is not None for line in found.lines)
    text, image, _ = found.verdicts
    assert text.decision == image.decision == ("refine" if kind == "classes" else "refine if the titles are right")
    assert image.basis == ("labels" if kind == "classes" else "titles")
    assert len(found.examples) in range(1, 11)
    assert found.examples[0].gain == 1.0
    assert any("pairs are queries; the other pairs are the memory" in note for note in found.notes)


def test_texts_are_found_by_their_words_as_a_service_finds_them() -> None:
    """Here with vectors that are those of other texts, so that words alone can find their thing."""
    split = hold_out(labelled_set(made()), FINGERPRINT)
    task = split.tasks()["text->image"]
    turned = replace(task, queries=replace(task.queries, vectors=task.queries.vectors[::-1].copy()))
    named, unnamed = (
        hits_at(rank_task(refine_task(make_refiner(split, 5), turned, words=words)), 1).mean()
        for words in (True, False)
    )
    assert named > unnamed + 0.3


def test_shuffled_pairs_gain_nothing() -> None:
    split = hold_out(labelled_set(made(shuffled=True), "classes"), FINGERPRINT)
    found = evaluate(split, make_refiner(split, 5))
    assert {verdict.decision for verdict in found.verdicts} <= {"leave", "not known"}


def test_a_memory_of_its_own_hides_pairs_of_the_same_id_and_copies_of_pictures() -> None:
    records = made()
    memory = ram_memory(records, FINGERPRINT)
    copy = Records(["copy"], records.image[:1], records.text[:1], [{}])
    memory.store.upsert(copy)
    split = query_memory(labelled_set(records), memory.store)
    assert set(split.excluded[0]) >= {"p0", "copy"}
    assert "p1" in split.excluded[1]
    assert not split.same_label


def test_the_policy_that_ships_is_the_one_that_was_tested(labelled: QuerySplit, model: Path, tmp_path: Path) -> None:
    found = tune(labelled, max_loss=0.1)
    assert found.shipped, found.verdicts(None)
    assert all(0.02 < one.loss.high <= 0.1 for one in found.tests.values() if one.ships), "no loss of some forty things"
    base = Artifact.load(model)
    write_model(base, found.policy(), tmp_path / "model", "reco eval shop")
    written = Artifact.load(tmp_path / "model")
    assert (written.manifest.policy.k, written.manifest.policy.coverage) == (found.k, found.coverage)
    assert written.manifest.policy == found.policy()
    assert written.manifest.fingerprint == base.manifest.fingerprint
    record = found.add_to(evaluate(labelled, make_refiner(labelled, 5)), tmp_path / "model")
    assert {(one.decision, one.basis) for one in record.verdicts} >= {("refine", "labels")}
    assert record.verdicts[0].settings["k"] == found.k
    assert [line.name for line in record.lines[-len(found.tests) :]] == [one.line.name for one in found.tests.values()]


def test_each_direction_is_tested_by_itself(labelled: QuerySplit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of the part that tests show something else: what searches by them does not ship, and pictures do."""
    found = tune(labelled, max_loss=0.1)
    (image,) = (one for direction, one in found.tests.items() if direction == "image->text")
    lost = replace(found, tests={**found.tests, "text->image": replace(image, ships=False)})
    assert image.ships
    assert list(lost.shipped) == ["image->text"]
    assert [one.decision for one in lost.verdicts(Path("m"))] == ["not known", "refine"]


def test_the_choice_sees_nothing_of_the_part_that_tests(labelled: QuerySplit, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[np.ndarray] = []
    tasks = QuerySplit.tasks

    def watch(self: QuerySplit, chosen: Any = None, *, known: bool = True) -> Any:
        parts.append(chosen)
        return tasks(self, chosen, known=known)

    monkeypatch.setattr(QuerySplit, "tasks", watch)
    tune(labelled)
    *choose, test, again = parts
    assert not any((one & test).any() for one in choose)
    assert (test == again).all(), "once with and once without answers"


def test_what_gains_nothing_ships_nothing(labelled: QuerySplit) -> None:
    nothing = tune(hold_out(labelled_set(made(shuffled=True), "classes"), FINGERPRINT))
    assert not nothing.shipped
    record = nothing.add_to(evaluate(labelled, make_refiner(labelled, 5)), None)
    assert all((one.decision, one.settings) == ("leave", {}) for one in record.verdicts)
