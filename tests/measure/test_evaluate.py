"""``reco eval`` on made-up shops of which the truth is known: what is hidden, gains, is tuned and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shop_worlds import FINGERPRINT, made, word

from reco_plugin.artifact import Artifact
from reco_plugin.measure.evaluate import Askers, ask_itself, ask_memory, evaluate, refiner
from reco_plugin.measure.memories import draw_asking, ram_memory
from reco_plugin.measure.source import Things
from reco_plugin.measure.tune import add_to, tune, write_model
from reco_plugin.types import Records


def things(records: Records, kind: Any = "captions") -> Things:
    names = [str(payload["caption"]) for payload in records.payloads]
    return Things(kind, "shop", records, names, names)


@pytest.fixture(scope="module")
def shop() -> Askers:
    return ask_itself(things(made()), FINGERPRINT)


@pytest.fixture(scope="module")
def labelled() -> Askers:
    return ask_itself(things(made(), "classes"), FINGERPRINT)


def test_half_of_the_things_ask_and_no_pair_that_asks_is_in_the_memory(shop: Askers) -> None:
    assert shop.memory is not None
    asks = {shop.things.pairs.ids[row] for row in shop.rows}
    assert not asks & set(shop.memory.pairs.ids)
    asked = {shop.things.things[row] for row in shop.rows}
    assert 0.35 < len(asked) / 150 < 0.65
    tested = {shop.things.things[row] for row, test in zip(shop.rows, shop.test, strict=True) if test}
    chosen = {shop.things.things[row] for row, test in zip(shop.rows, shop.test, strict=True) if not test}
    assert not tested & chosen
    assert min(len(tested), len(chosen)) > 20
    for row, same in zip(shop.rows, shop.same, strict=True):
        thing = shop.things.things[row]
        held = {
            id_
            for id_, pair in zip(shop.memory.pairs.ids, shop.memory.pairs.payloads, strict=True)
            if pair["caption"] == thing
        }
        assert held <= set(same)


def test_of_very_many_whole_things_ask_and_a_growing_catalogue_keeps_its_draw() -> None:
    names = [word(n // 4) for n in range(2000)]
    ids = [f"p{n}" for n in range(2000)]
    asks, test = draw_asking(ids, names, 100)
    assert 60 < asks.sum() <= 110
    assert 0.3 < test[asks].mean() < 0.7
    more, _ = draw_asking([*ids, "new"], [*names, "new thing"], 5000)
    np.testing.assert_array_equal(more[:-1], draw_asking(ids, names, 5000)[0])


@pytest.mark.parametrize("kind", ["captions", "classes"])
def test_what_the_encoder_cannot_name_gains_and_only_labels_say_switch(kind: str) -> None:
    asking = ask_itself(things(made(), kind), FINGERPRINT)
    found = evaluate(asking, refiner(asking, 5))
    gains = {line.name: line.change for line in found.lines if line.change}
    assert gains["pictures search texts, pictures refined"].effect == "gains"
    assert len(found.lines) == 6
    assert all(line.unknown is not None for line in found.lines if line.change)
    assert found.verdict.decision == ("switch" if kind == "classes" else "not known")
    assert found.verdict.basis == ("labels" if kind == "classes" else "titles")
    assert len(found.examples) in range(1, 11)
    assert found.examples[0].gain == 1.0
    assert any("pairs are queries; the other pairs are the memory" in note for note in found.notes)


def test_shuffled_pairs_gain_nothing() -> None:
    asking = ask_itself(things(made(shuffled=True), "classes"), FINGERPRINT)
    found = evaluate(asking, refiner(asking, 5))
    assert found.verdict.decision in ("leave", "not known")


def test_a_memory_of_its_own_hides_pairs_of_the_same_id_and_copies_of_pictures() -> None:
    records = made()
    memory = ram_memory(records, FINGERPRINT)
    copy = Records(["copy"], records.image[:1], records.text[:1], [{}])
    memory.store.upsert(copy)
    asking = ask_memory(things(records), memory.store)
    assert set(asking.hidden[0]) >= {"p0", "copy"}
    assert "p1" in asking.hidden[1]
    assert not asking.same


def test_the_policy_that_ships_is_the_one_that_was_tested(labelled: Askers, model: Path, tmp_path: Path) -> None:
    found = tune(labelled, max_loss=0.1)
    assert found.ships, found.sentence
    assert 0.02 < found.loss.high <= 0.1, "some forty things that lose nothing do not show that none loses"
    base = Artifact.load(model)
    write_model(base, found.policy.to_policy(), tmp_path / "model", "reco eval shop")
    written = Artifact.load(tmp_path / "model")
    assert (written.manifest.policy.k, written.manifest.policy.coverage) == (found.policy.k, found.policy.coverage)
    assert written.manifest.policy == found.policy.to_policy()
    assert written.manifest.fingerprint == base.manifest.fingerprint
    record = add_to(evaluate(labelled, refiner(labelled, 5)), found, tmp_path / "model")
    assert (record.verdict.decision, record.verdict.basis) == ("switch", "labels")
    assert record.verdict.settings["k"] == found.policy.k
    assert record.lines[-1].change == found.change


def test_the_choice_sees_nothing_of_the_part_that_tests(labelled: Askers, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[np.ndarray] = []
    tasks = Askers.tasks

    def watch(self: Askers, chosen: Any = None, *, known: bool = True) -> Any:
        parts.append(chosen)
        return tasks(self, chosen, known=known)

    monkeypatch.setattr(Askers, "tasks", watch)
    tune(labelled)
    choose, *_, test = parts
    assert not (choose & test).any()
    assert len(parts) == 4, "each part once with and once without answers"


def test_what_gains_nothing_ships_nothing(labelled: Askers) -> None:
    nothing = tune(ask_itself(things(made(shuffled=True), "classes"), FINGERPRINT))
    assert not nothing.ships
    record = add_to(evaluate(labelled, refiner(labelled, 5)), nothing, None)
    assert (record.verdict.decision, record.verdict.settings) == ("leave", {})
