"""The memory as applications see it: what add stores, what an error leaves behind, and when it is calibrated."""

from __future__ import annotations

import copy
import json
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from reco_plugin import Pair, Reco
from reco_plugin.calibration import learner, lesson
from reco_plugin.calibration.learn import witness
from reco_plugin.data import read_pairs, write_pairs
from reco_plugin.encode import encode_pairs
from reco_plugin.errors import ConfigError, ImageError, InputError, MemoryStoreError, MemoryUnavailable, VectorError
from reco_plugin.memory.header import HEADER_NAME
from reco_plugin.serve.app import create_app
from reco_plugin.serve.settings import ServeSettings
from reco_plugin.types import Records


def made(reco: Reco, rows: int, prefix: str = "v", seed: int = 0, *, fits: bool = False) -> list[Pair]:
    """Pairs that are vectors already; quick to add. The sides of each are near, or have nothing in common."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 2, reco.manifest.dimension))
    x += 2.0 * rng.normal(size=(rows, 1, reco.manifest.dimension)) * fits
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    return [Pair(f"{prefix}{row}", *sides.astype(np.float32)) for row, sides in enumerate(x)]


def all_ids(reco: Reco) -> list[str]:
    return [name for batch in reco.memory.store.scroll() for name in batch.ids]


def test_raw_pairs_are_encoded_and_come_back_with_their_payload_and_caption(filled, drawings):
    assert len(filled.memory) == len(drawings)
    stored = filled.memory.get([pair.id for pair in drawings])
    assert list(stored.ids) == [pair.id for pair in drawings]
    assert [dict(payload) for payload in stored.payloads] == [
        {"caption": pair.text, **pair.payload} for pair in drawings
    ]
    assert np.allclose(stored.image, filled.encoder.images([pair.image for pair in drawings]), atol=1e-5)
    assert np.allclose(stored.text, filled.encoder.texts([pair.text for pair in drawings]), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"text": " \n"}, "the pair 'bad': its caption is empty"),
        ({"payload": {"reco_source": "shop.csv"}}, "has the key 'reco_source', by which .*: leave it out"),
    ],
)
def test_a_pair_is_refused_for_what_a_source_would_be(reco, drawings, change, why):
    good = drawings[0]
    with pytest.raises(InputError, match=why):
        reco.memory.add([good, replace(drawings[1], id="bad", **change)])
    assert len(reco.memory) == 0


def test_pairs_that_were_read_from_an_export_of_a_memory_can_be_added(reco, tmp_path):
    vectors = np.eye(2, reco.manifest.dimension, dtype=np.float32)
    payloads = [{"caption": f"thing {n}", "reco_row": "0" * 16, "reco_source": "shop.csv"} for n in range(2)]
    write_pairs(tmp_path / "pairs.npz", [Records(["a", "b"], vectors, vectors, payloads)])
    assert reco.memory.add(read_pairs(tmp_path / "pairs.npz")) == 2
    assert [dict(one) for one in reco.memory.get(["a", "b"]).payloads] == [
        {"caption": "thing 0"},
        {"caption": "thing 1"},
    ]


def test_each_side_of_each_pair_may_be_raw_or_a_vector(reco, drawings):
    first, second, third = drawings[:3]
    image = reco.encoder.images([pair.image for pair in drawings[:4]])
    text = reco.encoder.texts([pair.text for pair in drawings[:4]])
    added = reco.memory.add(
        [
            Pair("raw", first.image, first.text),
            Pair("image", image[1], second.text),
            Pair("text", third.image, text[2].astype(np.float64)),
            Pair("both", image[3], text[3].astype(np.float16)),
        ]
    )
    assert added == 4
    stored = reco.memory.get(["raw", "image", "text", "both"])
    assert np.allclose(stored.image, image, atol=1e-5)
    assert np.allclose(stored.text, text, atol=1e-3)
    assert stored.image[1].tobytes() == image[1].tobytes()


def test_tuples_are_pairs_too(reco, drawings):
    pair = drawings[0]
    assert reco.memory.add([("a", pair.image, pair.text), ("b", pair.image, pair.text, {"n": 1})]) == 2
    assert list(reco.memory.get(["a", "b"]).payloads) == [{"caption": pair.text}, {"caption": pair.text, "n": 1}]


def test_an_own_caption_stays_and_a_vector_has_none(reco, drawings):
    pair, text = drawings[0], made(reco, 1)[0].text
    reco.memory.add([Pair("own", pair.image, "a photo of a fox", {"caption": "fox"}), Pair("vector", pair.image, text)])
    assert list(reco.memory.get(["own", "vector"]).payloads) == [{"caption": "fox"}, {}]
    assert Pair("own", b"", "x", {"n": 1}).payload == {"n": 1}  # what the caller gave is left alone


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image": "none.png"}, r"the pair 'bad': its image \('none.png'\) does not exist"),
        ({"image": b"<html>"}, r"the pair 'bad': its image \(6 bytes\) cannot be read"),
        ({"image": np.ones(3)}, r"the pair 'bad': its image vector must have shape \(\d+,\), got \(3,\)"),
        (
            {"text": [0.6, 0.8]},
            r"the pair 'bad': its text must be a str, or a vector as a NumPy array, got \[0.6, 0.8\]",
        ),
        ({"text": "\ud83d"}, r"the pair 'bad': its caption holds half of a surrogate pair"),
    ],
)
def test_a_pair_that_cannot_be_encoded_is_named(reco, drawings, change, why):
    vectors = made(reco, 80)  # what the encoder does not get, so that places among its items are others
    bad = replace(drawings[1], id="bad", **change)
    with pytest.raises(InputError, match=why):
        reco.memory.add([*vectors, *drawings[:1], bad])
    assert len(reco.memory) == 0


@pytest.mark.parametrize("size", [0, True])
def test_a_batch_has_a_size(size, reco, drawings):
    with pytest.raises(InputError, match="batch_size: expected a whole number of at least 1"):
        reco.memory.add(drawings[:2], batch_size=size)


def test_what_is_no_list_of_pairs(reco, drawings):
    for given in (None, 5):
        with pytest.raises(InputError, match=f"pairs must be a list of pairs, got {given}"):
            reco.memory.add(given)
    with pytest.raises(InputError, match="got the single pair 'a': put it in a list"):
        reco.memory.add(("a", drawings[0].image, "a red circle"))


def test_an_opened_reco_is_not_sent_to_another_process(filled):
    for thing in (filled, filled.memory):
        for send in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=r"cannot be pickled or copied: open it in each process"):
                send(thing)


@pytest.mark.parametrize("memory", ["", 5])
def test_a_memory_has_a_place(memory, model):
    with pytest.raises(ConfigError, match=f"memory must be a folder, .* got {memory!r}"):
        Reco.open(model, memory=memory)


def test_no_ids_are_not_all_opinions(filled, drawings):
    said = filled.memory.reject("a red circle", drawings[0].id)
    for ids in (None, said.id):
        with pytest.raises(InputError, match="ids must be a list of ids of opinions"):
            filled.memory.withdraw(ids)
    assert filled.memory.opinions == (said,)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"right": "no"}, "right must be True or False, got 'no'"),
        ({"pair": ["p1"]}, r"pair must be the id of one pair, got \['p1'\]"),
        ({"by": 5}, "by must be a text of at most 200 characters, got 5"),
    ],
)
def test_an_opinion_that_is_none_is_refused(filled, drawings, said, why):
    with pytest.raises(InputError, match=why):
        filled.memory.reject("a red circle", **{"pair": drawings[0].id, **said})
    assert filled.memory.opinions == ()


def test_records_of_one_batch_are_no_batches(filled, drawings):
    with pytest.raises(InputError, match="those of one batch: put it in a list"):
        filled.memory.add_records(filled.memory.get([drawings[0].id]))


def test_which_side_asks_and_what_is_matched_is_checked(filled, drawings):
    for side in ("images", None, ["image"]):
        with pytest.raises(InputError, match="queries must be 'image' or 'text'"):
            filled.scores([drawings[0].image], ["a red circle"], queries=side)
    with pytest.raises(InputError, match="queries must be what embed or refine returned"):
        filled.match(["a red circle"], [[0.3]], modality="text")
    with pytest.raises(InputError, match="scores must be a list of rankings, one per query, got None"):
        filled.match(filled.embed(["a red circle"], modality="text"), None, modality="text")
    with pytest.raises(InputError, match="answered must be a share from 0 to 1, got 'x'"):
        filled.embed_texts(["a red circle"], answered="x")


def test_one_id_or_none_instead_of_a_list(filled, drawings):
    for call in (filled.memory.get, filled.memory.remove):
        with pytest.raises(InputError, match="put it in a list"):
            call(drawings[0].id)
    with pytest.raises(InputError, match="ids must be a list of ids, got None"):
        filled.memory.get(None)
    assert len(filled.memory) == len(drawings)


def test_search_by_text_image_and_vector(filled, drawings):
    pair = drawings[5]
    by_text = filled.memory.search(pair.text, k=3)
    by_image = filled.memory.search(pair.image, modality="image", k=3)
    by_vector = filled.memory.search(filled.encoder.images([pair.image])[0], modality="image", k=3)
    for found in (by_text, by_image, by_vector):
        assert found.ids[0][0] == pair.id
        assert found.payloads[0][0] == {"caption": pair.text, **pair.payload}
        assert found.similarity.shape == (1, 3)
    assert by_image.ids == by_vector.ids
    stored = filled.memory.get([pair.id])
    assert np.allclose(by_text.vectors[0, 0], stored.text[0], atol=1e-6)
    assert np.allclose(by_image.vectors[0, 0], stored.image[0], atol=1e-6)
    across = filled.memory.search(pair.text, by="image", k=len(drawings))
    images = filled.memory.get(across.ids[0]).image
    assert np.allclose(across.similarity[0], images @ filled.encoder.texts([pair.text])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        ("a fox", {"modality": "audio"}, "modality must be 'image' or 'text', got 'audio'"),
        ("a fox", {"by": "audio"}, "audio"),
        ("a fox", {"k": 0}, "k must be a whole number"),
        ("missing.png", {"modality": "image"}, "missing.png"),
        (np.ones(3, np.float32), {}, r"query must have shape"),
        (["a fox", "a hen"], {}, "text"),
    ],
)
def test_unusable_searches(query, options, message, filled):
    with pytest.raises(InputError, match=message):
        filled.memory.search(query, **options)


@pytest.mark.parametrize("batch_size", [2, 100])
def test_an_id_that_comes_twice_is_refused_within_and_across_batches(batch_size, reco):
    pairs = made(reco, 5)
    pairs[4] = Pair("v0", pairs[4].image, pairs[4].text)
    with pytest.raises(InputError, match="'v0' comes twice"):
        reco.memory.add(pairs, batch_size=batch_size)
    assert all_ids(reco) == (["v0", "v1", "v2", "v3"] if batch_size == 2 else [])


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda p: Pair("", p.image, p.text), InputError, "non-empty text"),
        (lambda p: (p.id, p.image), InputError, "a pair is Pair"),
        (lambda p: Pair(p.id, p.image[:-1], p.text), VectorError, r"'v4': its image vector must have shape"),
        (lambda p: Pair(p.id, p.image, np.where(np.arange(len(p.text)) == 1, np.inf, p.text)), VectorError, "infinity"),
        (lambda p: Pair(p.id, b"no image", p.text), ImageError, "8 bytes"),
        (lambda p: Pair(p.id, p.image, p.text, {"when": {1, 2}}), InputError, "JSON"),
    ],
)
def test_a_pair_that_cannot_be_used_stores_nothing_of_its_batch(spoil, error, message, reco):
    pairs = made(reco, 6)
    pairs[4] = spoil(pairs[4])
    with pytest.raises(error, match=message):
        reco.memory.add(pairs, batch_size=3)
    assert all_ids(reco) == ["v0", "v1", "v2"]


def test_a_source_that_fails_keeps_the_batches_before_and_calibrates_them(reco):
    def source() -> Iterator[Pair]:
        yield from made(reco, 25)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="the disk went away"):
        reco.memory.add(source(), batch_size=10)
    assert sorted(all_ids(reco)) == sorted(f"v{row}" for row in range(20))
    assert reco.memory.store.header.calibration
    assert np.isfinite(reco.memory.store.witnesses(all_ids(reco))).all()


def test_adding_nothing_changes_nothing(reco):
    assert reco.memory.add([]) == 0
    assert reco.memory.add_records([]) == 0
    assert reco.memory.calibration is None
    assert reco.memory.calibrate() is None


def test_records_are_stored_as_they_are(reco):
    pairs = made(reco, 30)
    image, text = (np.stack([getattr(pair, side) for pair in pairs]) for side in ("image", "text"))
    names = [pair.id for pair in pairs]
    halves = [Records(names[s], image[s], text[s], [{}] * 15) for s in (slice(15), slice(15, 30))]
    assert reco.memory.add_records(iter(halves)) == 30
    assert all_ids(reco) == names
    assert reco.memory.calibration is not None
    assert np.allclose(reco.memory.get(names).text, text, atol=1e-6)


@pytest.mark.parametrize("counted", [True, False])
def test_the_bar_takes_its_total_from_a_list(counted, reco, capsys, monkeypatch):
    monkeypatch.setattr("reco_plugin.progress.FIRST_S", 0.0)  # a line at once, not after ten seconds
    pairs = made(reco, 5)
    assert reco.memory.add(pairs if counted else iter(pairs), progress=True) == 5
    shown = capsys.readouterr().err
    assert "fill memory" in shown
    assert ("5/5" in shown) == counted


def test_trust_comes_with_the_first_pairs_and_survives(model, tmp_path, drawings):
    pytest.importorskip("qdrant_edge")
    with Reco.open(model, memory=tmp_path / "m") as reco:
        assert reco.memory.calibration is None
        reco.memory.add(drawings)
        calibration = reco.memory.store.header.calibration
        assert reco.memory.calibration is not None
        vectors = reco.encoder.texts([pair.text for pair in drawings])
        refined = reco.refine(vectors, modality="text", gate=True, explain=True)
        assert refined.moved.any()
    with Reco.open(model, memory=tmp_path / "m") as reco:
        assert reco.memory.store.header.calibration == calibration
        again = reco.refine(vectors, modality="text", gate=True, explain=True)
        assert np.allclose(again.reliability, refined.reliability, atol=1e-5)
        assert np.allclose(again.vectors, refined.vectors, atol=1e-5)


def pairs_known(reco: Reco) -> int:
    calibration = reco.memory.calibration
    return 0 if calibration is None else calibration.pairs


def test_trust_is_learned_anew_when_the_memory_has_doubled_or_halved(reco):
    reco.memory.add(made(reco, 40))
    first = reco.memory.calibration
    assert pairs_known(reco) == 40
    for row in range(0, 39, 13):
        reco.memory.add(made(reco, 39, "few", seed=1)[row : row + 13])
    assert (pairs_known(reco), reco.memory.calibration) == (40, first)
    reco.memory.add(made(reco, 1, "enough", seed=2))
    assert pairs_known(reco) == 80
    reco.memory.remove([f"v{row}" for row in range(40)])
    reco.memory.add(made(reco, 1, "last", seed=3))
    assert pairs_known(reco) == 80
    reco.memory.remove(["few0", "few1"])
    reco.memory.add(made(reco, 1, "last", seed=3))
    assert pairs_known(reco) == 39
    reco.memory.remove(all_ids(reco)[:30])
    assert reco.memory.calibrate() is None  # too few are left: no old state stays
    assert (reco.memory.calibration, reco.memory.store.header.calibration) == (None, {})


def test_new_pairs_get_the_witnesses_that_a_fit_would_give_them(reco):
    reco.memory.add(made(reco, 40, fits=True))
    reco.memory.add(made(reco, 5, "new", seed=1, fits=True))
    names = [f"new{row}" for row in range(5)]
    alone = reco.memory.store.witnesses(names)
    assert np.isfinite(alone).all()
    witness(reco.memory.store, reco.memory.calibration, names, reco.manifest.policy.k, around=True)
    assert np.allclose(reco.memory.store.witnesses(names), alone, atol=1e-4)


def test_new_pairs_that_fit_as_badly_as_all_settle(reco):
    """Those that came with them counted as average then, which matters where hardly a pair is reliable."""
    reco.memory.add(made(reco, 40))
    reco.memory.add(made(reco, 5, "new", seed=1))
    names, rounds = [f"new{row}" for row in range(5)], []
    for _ in range(12):
        rounds.append(reco.memory.store.witnesses(names))
        witness(reco.memory.store, reco.memory.calibration, names, reco.manifest.policy.k, around=True)
    moved = [np.abs(before - after).max() for before, after in pairwise(rounds)]
    assert moved[-1] < 0.1 < moved[0], moved


def test_pairs_that_are_added_again_change_nothing(reco):
    pairs = made(reco, 60)
    reco.memory.add(pairs)
    vectors = np.stack([pair.image for pair in pairs])
    before, known = reco.refine(vectors, modality="image").vectors, reco.memory.store.witnesses(all_ids(reco))
    first = reco.memory.calibration
    reco.memory.add([replace(pair, payload={"price": 3}) for pair in pairs])
    assert reco.memory.calibration is first
    np.testing.assert_array_equal(reco.memory.store.witnesses(all_ids(reco)), known)
    np.testing.assert_array_equal(reco.refine(vectors, modality="image").vectors, before)


def test_trust_is_learned_anew_when_a_quarter_of_the_pairs_are_others(reco):
    reco.memory.add(made(reco, 60))
    first = reco.memory.calibration
    reco.memory.add(made(reco, 15, seed=1))  # they replace some
    assert reco.memory.calibration is first
    reco.memory.add(made(reco, 16, seed=2))
    assert (reco.memory.calibration is not first, pairs_known(reco)) == (True, 60)
    assert np.isfinite(reco.memory.store.witnesses(all_ids(reco))).all()


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_service_learns_behind_its_writes(reco):
    reco.memory.learns_behind = True
    reco.memory.add(made(reco, 320))
    until(lambda: pairs_known(reco) == 320)
    until(lambda: not threads())
    version = reco.memory.version
    reco.memory.add(made(reco, 3, "new", seed=1))
    until(lambda: not threads())
    assert np.isfinite(reco.memory.store.witnesses(["new0", "new1", "new2"])).all()
    assert (pairs_known(reco), reco.memory.version > version + 1) == (320, True)


def test_a_service_learns_anew_once_a_quarter_of_the_pairs_is_removed(reco):
    reco.memory.add(made(reco, 420))
    reco.memory.learns_behind = True
    reco.memory.remove([f"v{row}" for row in range(100)])
    until(lambda: not threads())
    assert pairs_known(reco) == 420
    reco.memory.remove([f"v{row}" for row in range(100, 110)])
    until(lambda: not threads())
    assert pairs_known(reco) == 310


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "reco-calibration"]


def test_a_fit_that_fails_behind_a_write_is_a_warning_and_the_next_write_tries_again(reco, monkeypatch):
    reco.memory.learns_behind = True
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="the latest pairs, which are stored: no room"):
        patch.setattr(reco.memory.store, "set_calibration", raising)
        assert reco.memory.add(made(reco, 320)) == 320
        until(lambda: not threads())
    assert (len(reco.memory), reco.memory.calibration) == (320, None)
    reco.memory.add(made(reco, 1))
    until(lambda: pairs_known(reco) == 320)


def raising(*_: Any) -> None:
    raise MemoryStoreError("no room")


def judged(reco: Reco) -> bool:
    return reco.memory.store.count_unjudged() == 0 and bool(
        np.isfinite(reco.memory.store.witnesses(all_ids(reco))).all()
    )


def failing(*_: Any, **__: Any) -> None:
    raise MemoryStoreError("no search")


@pytest.mark.parametrize("behind", [False, True])
def test_a_search_that_fails_leaves_its_pairs_to_the_next_write(behind, reco, monkeypatch):
    reco.memory.add(made(reco, 320))
    reco.memory.learns_behind = behind
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="no search"):
        patch.setattr(reco.memory.store, "search", failing)
        reco.memory.add(made(reco, 70, "lost", seed=1))
        until(lambda: not threads())
    assert reco.memory.store.count_unjudged() == 70
    reco.memory.add(made(reco, 1, "next", seed=2))
    until(lambda: not threads())
    assert (judged(reco), pairs_known(reco)) == (True, 320)


def test_a_server_that_was_away_is_asked_again_without_another_write(reco, monkeypatch):
    reco.memory.add(made(reco, 320))
    reco.memory.learns_behind = True
    monkeypatch.setattr(learner, "_AGAIN_S", 0.05)
    search, left = reco.memory.store.search, [3]

    def away(asked: Any) -> Any:
        left[0] -= 1
        if left[0] > 0:
            raise MemoryUnavailable("away")
        return search(asked)

    monkeypatch.setattr(reco.memory.store, "search", away)
    with pytest.warns(UserWarning, match=r"not all are judged; again in 0 s: away"):
        reco.memory.add(made(reco, 5, "new", seed=1))
        until(lambda: not threads())
    assert judged(reco)


def test_pairs_that_a_stopped_process_did_not_judge_are_judged_by_the_next(model, tmp_path, monkeypatch):
    with Reco.open(model, memory=tmp_path / "m") as reco:
        reco.memory.add(made(reco, 320))
    for go_on in (lambda reco: reco.memory.add(made(reco, 1, "next", seed=2)), lambda reco: reco.memory.resume()):
        with Reco.open(model, memory=tmp_path / "m") as reco, monkeypatch.context() as patch:
            reco.memory.learns_behind = True
            patch.setattr(learner.Learner, "_judge_behind", lambda _: None)  # stopped before
            reco.memory.add(made(reco, 5, "new", seed=int(time.monotonic_ns() % 1000)))
            until(lambda: not threads())
            assert not judged(reco)
        with Reco.open(model, memory=tmp_path / "m") as reco:
            go_on(reco)
            until(lambda: not threads())
            assert (judged(reco), pairs_known(reco)) == (True, 320)


def test_pairs_that_come_while_trust_is_learned_are_judged_after_it(reco, monkeypatch):
    """The first learning has read its pairs already, and there is no calibration yet."""
    reco.memory.learns_behind = True
    read, late = threading.Event(), threading.Event()
    calibrate = lesson.calibrate

    def slow(*given: Any, **options: Any) -> Any:
        read.set()
        assert late.wait(60)
        return calibrate(*given, **options)

    monkeypatch.setattr(lesson, "calibrate", slow)
    reco.memory.add(made(reco, 320))
    assert read.wait(60)
    reco.memory.add(made(reco, 70, "late", seed=1))
    late.set()
    until(lambda: not threads())
    assert (judged(reco), pairs_known(reco), len(reco.memory)) == (True, 320, 390)


KILLED = """
import os, signal, sys, time
import numpy as np
from reco_plugin import Pair, Reco
from reco_plugin.calibration import lesson
lesson.calibrate = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where RAM runs out
with Reco.open(sys.argv[1], memory=sys.argv[2]) as reco:
    reco.memory.learns_behind = True
    x = np.random.default_rng(0).normal(size=(320, 2, reco.manifest.dimension))
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    reco.memory.add([Pair(f"v{row}", *sides.astype(np.float32)) for row, sides in enumerate(x)])
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_learning_that_was_killed_is_not_begun_again_by_the_next_pair(model, tmp_path, caplog, monkeypatch):
    folder = tmp_path / "m"
    Reco.open(model, memory=folder).close()
    run = subprocess.run([sys.executable, "-c", KILLED, model, folder], capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    begun = list[int]()
    calibrate = lesson.calibrate
    monkeypatch.setattr(lesson, "calibrate", lambda *x, **how: begun.append(len(x[0])) or calibrate(*x, **how))
    with Reco.open(model, memory=folder) as reco, TestClient(create_app(ServeSettings(), reco)) as client:
        for row in range(2):
            reco.memory.add(made(reco, 1, f"next{row} ", seed=row))
            until(lambda: not threads())
        assert (begun, pairs_known(reco), len(reco.memory)) == ([], 0, 322)
        [told] = [record.getMessage() for record in caplog.records if "calibration from" in record.getMessage()]
        assert re.search(r"calibration from 320 pairs began on .* and has not ended\. .*--relearn`", told)
        metrics = client.get("/metrics").text
        assert "reco_learning_unfinished 1.0" in metrics
        assert "reco_learning 0.0" in metrics
        assert "reco memory build --relearn" in client.get("/v1/models").json()["data"][0]["memory"]["plain"]
        reco.memory.calibrate()  # as by hand
        assert (begun, pairs_known(reco)) == ([322], 322)
        assert "reco_learning_unfinished 0.0" in client.get("/metrics").text
        reco.memory.add(made(reco, 330, "more", seed=9))  # doubles it
        until(lambda: pairs_known(reco) == 652)


def test_many_unjudged_pairs_are_left_to_a_calibration(reco, caplog):
    reco.memory.add(made(reco, 320))
    reco.memory.store.upsert(encode_pairs(reco.encoder, made(reco, 150, "other", seed=1)))  # by another tool
    for _ in range(3):
        reco.memory.resume()
        until(lambda: not threads())
    said = "150 pairs are not judged yet and count as average: run `reco memory build --relearn`"
    assert caplog.text.count(said) == 1, "not with each write"
    reco.memory.add(made(reco, 1, "next", seed=2))
    assert (judged(reco), pairs_known(reco)) == (True, 471)


def test_a_service_learns_from_many_pairs_in_a_process_of_its_own(reco, monkeypatch):
    begun = list[int]()
    learn = learner.learn

    def note(store: Any, k: int, *, apart: bool, **how: Any) -> Any:
        return begun.append(store.count()) if apart else learn(store, k, **how)

    monkeypatch.setattr(learner, "learn", note)
    monkeypatch.setattr(learner, "APART", 310)
    for behind, rows, apart in ((True, 300, []), (True, 310, [310]), (False, 311, [310])):
        reco.memory.learns_behind = behind
        reco.memory.add(made(reco, rows, f"{rows} "))
        until(lambda: not threads())
        assert begun == apart
        reco.memory.learns_behind = False
        reco.memory.remove(all_ids(reco))


def test_closing_ends_a_fit(model):
    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.learns_behind = True
        reco.memory.add(made(reco, 1500))
    assert not threads()


def test_trust_of_another_version_is_learned_anew_with_the_next_pairs(model, tmp_path):
    with Reco.open(model, memory=tmp_path / "m") as reco:
        reco.memory.add(made(reco, 40))
        learned = reco.memory.store.header.calibration
    header = json.loads((tmp_path / "m" / HEADER_NAME).read_text())
    (tmp_path / "m" / HEADER_NAME).write_text(json.dumps(header | {"calibration": {"format": 9}}))
    with pytest.warns(UserWarning, match=r"run `reco memory build --relearn`") as warned:
        opened = Reco.open(model, memory=tmp_path / "m")
    assert warned[0].filename == __file__
    with opened as reco:
        assert reco.memory.calibration is None
        vectors = np.stack([pair.image for pair in made(reco, 3)])
        assert np.array_equal(reco.refine(vectors, modality="image", gate=True).vectors, vectors)
        reco.memory.add(made(reco, 1))  # replaces a pair by itself
        assert reco.memory.store.header.calibration == learned
