"""What people say is wrong, through the memory: stored at once, taken back, and what cannot be meant."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_stand_in import serving

from reco_plugin import Pair, Reco
from reco_plugin.errors import ConfigError, InputError
from reco_plugin.fusion.refiner import used_pairs
from reco_plugin.memory import Memory, open_memory
from reco_plugin.memory.base import copy
from reco_plugin.memory.header import SaidRecord
from reco_plugin.signals.opinions import Judgment, Opinion, Opinions, add_opinions
from tests.support.shapes import COLOURS, SHAPES, draw


@pytest.fixture
def known(model: Path, tmp_path: Path) -> Reco:
    """A memory in a folder by which queries move."""
    reco = Reco.open(model, memory=tmp_path / "memory")
    reco.memory.add(
        Pair(f"{shape}-{colour}-{size}", draw(colour, shape, size), f"a {colour} {shape}")
        for shape in SHAPES
        for colour in COLOURS
        for size in (18, 26)
    )
    return reco


def test_a_rejected_pair_moves_the_query_no_more_and_a_word_that_it_is_right_lets_it(known: Reco, model: Path) -> None:
    text = ["a red circle"]
    before = known.embed(text, modality="text", explain=True)
    assert before.refined.all()
    names = [one.id for one in used_pairs(before, 0)]
    for name in names:
        known.memory.reject(text[0], name, by="ann")
    held = known.embed(text, modality="text")
    assert held.moved[0] < 1e-4 < before.moved[0]
    known.close()
    known = Reco.open(model, memory=known.memory.location)
    assert known.embed(text, modality="text").moved[0] < 1e-4
    assert [one.pair for one in known.memory.opinions] == names
    assert {one.by for one in known.memory.opinions} == {"ann"}
    said = [Judgment(text[0], "text", name, right=True) for name in names]
    assert [one.right for one in known.memory.judge(said)] == [True] * len(names)
    assert len(known.memory.opinions) == len(names)  # the newest counts
    assert known.embed(text, modality="text").moved[0] == pytest.approx(before.moved[0], rel=0.01)


def test_two_that_use_one_server_agree_on_what_is_said_and_learned(known: Reco, model: Path) -> None:
    with serving() as server:
        url = server.url("grpc")
        with closing(open_memory(url, known.manifest.fingerprint)) as target:
            copy(known.memory.store, target)
        options = {"refresh_s": 1e-9}
        one, other = (Reco.open(model, memory=url, memory_options=options) for _ in range(2))
        text = ["a red circle"]
        before = one.embed(text, modality="text", explain=True)
        assert before.refined.all()
        said = [one.memory.reject(text[0], pair.id) for pair in used_pairs(before, 0)]
        held = one.embed(text, modality="text")
        assert np.array_equal(other.embed(text, modality="text").vectors, held.vectors)
        assert held.moved[0] < 1e-4 < before.moved[0]
        assert other.memory.opinions == tuple(said)
        assert other.memory.withdraw([opinion.id for opinion in said]) == len(said)
        assert np.array_equal(one.embed(text, modality="text").vectors, before.vectors)
        one.memory.store.set_calibration({})
        assert np.array_equal(other.embed(text, modality="text").vectors, other.encoder.texts(text))
        for each in (one, other):
            each.close()


def test_it_is_forgotten_by_its_id(known: Reco) -> None:
    before = known.embed_texts(["a red circle"])
    used = used_pairs(known.embed(["a red circle"], modality="text", explain=True), 0)
    one = known.memory.reject("a red circle", used[0].id)
    version = known.memory.version
    assert not np.array_equal(known.embed_texts(["a red circle"]), before)
    assert known.memory.withdraw([one.id, "no such id"]) == 1
    assert known.memory.version > version
    assert known.memory.withdraw([one.id]) == 0
    assert len(known.memory.opinions) == 0
    assert np.array_equal(known.embed_texts(["a red circle"]), before)


def test_an_answer_may_be_given_in_place_of_a_pair_and_an_image_may_ask(known: Reco) -> None:
    image = draw("red", "circle", 22)
    moved = known.embed([image], modality="image", target="text").moved[0]
    one = known.memory.reject(image, modality="image", answer="a red circle")
    assert (one.pair, one.modality, one.right) == (None, "image", False)
    assert known.embed([image], modality="image", target="text").moved[0] <= moved
    vector = known.encoder.texts(["a red circle"])[0]
    known.memory.reject(known.encoder.images([image])[0], modality="image", answer=vector)
    assert len(known.memory.opinions) == 1  # the same query and answer, as vectors


def test_an_uncalibrated_memory_keeps_what_is_said(reco: Reco) -> None:
    reco.memory.add([Pair("fox", draw("red", "circle", 20), "a fox")])
    assert reco.memory.calibration is None
    reco.memory.reject("a wolf", "fox")
    assert reco.memory.opinions[0].pair == "fox"
    assert reco.embed(["a wolf"], modality="text").moved[0] == 0


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Judgment("a fox", "text", "gone"), "holds no pair 'gone': it may be gone"),
        (Judgment("a fox", "text"), "say which answer is meant"),
        (Judgment("a fox", "text", "fox", answer="x"), "say which answer is meant"),
        (Judgment("a fox", "sound", "fox"), "modality"),  # type: ignore[arg-type]
        (Judgment("a fox", "text", "fox", by="x" * 201), "by must be a text of at most 200 characters"),
        (Judgment(Path("fox.jpg"), "text", "fox"), "the query must be a text, got PosixPath"),
    ],
)
def test_what_cannot_be_meant_stores_nothing(reco: Reco, said: Judgment, why: str) -> None:
    reco.memory.add([Pair("fox", draw("red", "circle", 20), "a fox")])
    with pytest.raises(InputError, match=why):
        reco.memory.judge([Judgment("a wolf", "text", "fox"), said])
    assert len(reco.memory.opinions) == 0
    assert reco.memory.judge([]) == ()


def test_a_memory_keeps_a_bounded_number(reco: Reco, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reco_plugin.signals.opinions.MOST", 2)
    reco.memory.add([Pair("fox", draw("red", "circle", 20), "a fox")])
    reco.memory.judge([Judgment(text, "text", "fox") for text in ("a wolf", "a dog")])
    reco.memory.reject("a dog", "fox", right=True)  # replaces one
    with pytest.raises(InputError, match="a memory keeps 2 opinions, and these would be 3"):
        reco.memory.reject("a cat", "fox")
    assert len(reco.memory.opinions) == 2


def test_an_opinion_that_is_given_while_another_version_is_put_to_use_is_kept(
    known: Reco, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, answer = open_memory(":memory:", known.manifest.fingerprint), known.embed_texts(["a blue circle"])[0]
    late = threading.Thread(target=lambda: known.memory.reject("a red circle", answer=answer))

    def meanwhile(store: Memory, records: Iterable[SaidRecord]) -> None:
        add_opinions(store, records)
        if store is fresh and late.ident is None:
            late.start()
            late.join(0.5)  # it waits for the move, or is stored in the version before

    monkeypatch.setattr("reco_plugin.pairs.add_opinions", meanwhile)
    known.memory.move_to(fresh)
    late.join()
    assert len(known.memory.opinions) == 1


def test_what_is_damaged_is_a_warning_and_goes_when_it_is_withdrawn(known: Reco, model: Path) -> None:
    moved = known.embed_texts(["a red circle"])
    known.memory.store.change_said([{"id": "x"}], ())
    known.close()
    with pytest.warns(UserWarning, match="without feedback: the opinion 'x' is damaged"):
        again = Reco.open(model, memory=known.memory.location)
    assert np.array_equal(again.embed_texts(["a red circle"]), moved)
    with pytest.raises(ConfigError, match="--withdraw x"):
        again.memory.reject("a red circle", f"{SHAPES[0]}-{COLOURS[0]}-18")
    assert again.memory.withdraw(["x"]) == 1
    assert again.memory.opinions == ()


def some(number: int) -> Opinions:
    words = tuple(Opinion(str(row), "image", None, False, "ann", "now") for row in range(number))
    x = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0].astype(np.float32)
    return Opinions(words, x[:number], x[number : 2 * number])


def test_it_comes_back_as_it_was_stored() -> None:
    kept = some(3)
    again = Opinions.read(kept.to_records(), 8)
    assert again.words == kept.words
    assert np.abs(again.queries - kept.queries).max() < 1e-3
    assert np.allclose(np.linalg.norm(again.answers, axis=1), 1.0, atol=1e-6)
    assert len(Opinions.read([], 8)) == 0


NAN = base64.b64encode(np.full(8, np.nan, "<f2").tobytes()).decode()


@pytest.mark.parametrize("harm", [{"query": "AAAA"}, {"answer": "?"}, {"query": 1}, {"answer": NAN}, {"at": ...}])
def test_what_cannot_be_read_says_so(harm: dict[str, Any]) -> None:
    harmed = dict(some(1).to_records()[0]) | harm
    with pytest.raises(ConfigError, match="the opinion '0' is damaged"):
        Opinions.read([{name: value for name, value in harmed.items() if value is not ...}], 8)
