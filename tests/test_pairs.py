"""The memory as applications see it: what add stores, what an error leaves behind, and when it is calibrated."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from live_service import wait_until

from reco_plugin import Pair, Reco
from reco_plugin.errors import InputError, VectorError
from reco_plugin.learning import learn
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
        (
            {"text": [0.6, 0.8]},
            r"the pair 'bad': its text must be a str, or a vector as a NumPy array, got \[0.6, 0.8\]",
        ),
    ],
)
def test_a_pair_that_cannot_be_encoded_is_named(reco, drawings, change, why):
    vectors = made(reco, 80)  # what the encoder does not get, so that places among its items are others
    bad = replace(drawings[1], id="bad", **change)
    with pytest.raises(InputError, match=why):
        reco.memory.add([*vectors, *drawings[:1], bad])
    assert len(reco.memory) == 0


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
        (lambda p: Pair(p.id, p.image, p.text, {"when": {1, 2}}), InputError, "JSON"),
    ],
)
def test_a_pair_that_cannot_be_used_stores_nothing_of_its_batch(spoil, error, message, reco):
    pairs = made(reco, 6)
    pairs[4] = spoil(pairs[4])
    with pytest.raises(error, match=message):
        reco.memory.add(pairs, batch_size=3)
    assert all_ids(reco) == ["v0", "v1", "v2"]


def test_records_are_stored_as_they_are(reco):
    pairs = made(reco, 30)
    image, text = (np.stack([getattr(pair, side) for pair in pairs]) for side in ("image", "text"))
    names = [pair.id for pair in pairs]
    halves = [Records(names[s], image[s], text[s], [{}] * 15) for s in (slice(15), slice(15, 30))]
    assert reco.memory.add_records(iter(halves)) == 30
    assert all_ids(reco) == names
    assert reco.memory.calibration is not None
    assert np.allclose(reco.memory.get(names).text, text, atol=1e-6)


def pairs_known(reco: Reco) -> int:
    calibration = reco.memory.calibration
    return 0 if calibration is None else calibration.pairs


def test_a_memory_learns_anew_when_a_quarter_of_its_pairs_have_come_or_gone(reco):
    reco.memory.add(made(reco, 40))
    first = reco.memory.calibration
    assert pairs_known(reco) == 40
    for row in range(0, 9, 3):
        reco.memory.add(made(reco, 9, "few", seed=1)[row : row + 3])
    assert (pairs_known(reco), reco.memory.calibration) == (40, first)
    reco.memory.add(made(reco, 1, "enough", seed=2))
    assert pairs_known(reco) == 50
    reco.memory.remove([f"v{row}" for row in range(12)])
    reco.memory.add(made(reco, 1, "enough", seed=3))
    assert pairs_known(reco) == 50
    reco.memory.remove(["few0"])
    reco.memory.add(made(reco, 20, "other", seed=3))
    assert pairs_known(reco) == 57, "also where as many came"
    reco.memory.remove(all_ids(reco)[:40])
    assert reco.memory.calibrate() is None  # too few are left: no old state stays
    assert (reco.memory.calibration, reco.memory.store.header.calibration) == (None, {})


def test_a_service_learns_behind_its_writes(reco):
    reco.memory.learner.behind = True
    reco.memory.add(made(reco, 320))
    wait_until(lambda: pairs_known(reco) == 320)
    wait_until(lambda: not threads())
    version = reco.memory.version
    reco.memory.add(made(reco, 3, "new", seed=1))
    wait_until(lambda: not threads())
    assert (pairs_known(reco), reco.memory.version) == (320, version + 1)
    reco.memory.add(made(reco, 100, "more", seed=2))
    wait_until(lambda: not threads())
    assert pairs_known(reco) == 423, "a third more"


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "reco-calibration"]


def test_pairs_that_come_while_a_memory_learns_are_learned_after_it(reco, monkeypatch):
    """The first learning has read its pairs already, and there is no calibration yet."""
    reco.memory.learner.behind = True
    read, late = threading.Event(), threading.Event()
    calibrate = learn.calibrate

    def slow(*given: Any, **options: Any) -> Any:
        read.set()
        assert late.wait(60)
        return calibrate(*given, **options)

    monkeypatch.setattr(learn, "calibrate", slow)
    reco.memory.add(made(reco, 320))
    assert read.wait(60)
    reco.memory.add(made(reco, 90, "late", seed=1))
    late.set()
    wait_until(lambda: not threads())
    assert (pairs_known(reco), len(reco.memory)) == (410, 410)


def test_closing_ends_a_fit(model):
    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.learner.behind = True
        reco.memory.add(made(reco, 1500))
    assert not threads()
