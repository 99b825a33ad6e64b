"""No query finds its own pair or a near-duplicate: not in training, not in evaluation, not in the quickstart.

These tests stand at the ends: a whole run, a file that is read; the quickstart's own, as it is measured, is in
tests/quickstart/test_benchmark.py. What each part does by itself is in tests/train/test_data.py, tests/test_refine.py
and tests/quickstart/test_data.py.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reco_plugin import Pair, Reco
from reco_plugin.data import Captioned, Labelled, read_labelled, read_pairs, read_retrieval, write_pairs
from reco_plugin.defaults import SAME_IMAGE
from reco_plugin.evaluate import retrieval, zero_shot
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.memory.exact import ExactMemory
from reco_plugin.train import run as train_run
from reco_plugin.train.data import FusionData
from reco_plugin.train.recipe import Recipe
from reco_plugin.types import MODALITIES, Records, Search

THINGS, D = 40, 16
CLIP = SimpleNamespace(name="mini", digest="ab" * 32, dimension=D)  # of a run whose pairs are vectors already


# --- training ----------------------------------------------------------------------------------------------------


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def turned(vectors: np.ndarray, cosine: float) -> np.ndarray:
    """Vectors that have this cosine with the given ones."""
    aside = np.random.default_rng(7).normal(size=vectors.shape)
    aside = unit(aside - (aside * vectors).sum(1, keepdims=True) * vectors)
    return unit(cosine * vectors + np.sqrt(1 - cosine**2) * aside)


def catalogue() -> Records:
    """Each thing thrice, under one caption: its picture, the picture again (near-duplicate), and another picture."""
    rng = np.random.default_rng(0)
    image, text = unit(rng.normal(size=(THINGS, D))), unit(rng.normal(size=(THINGS, D)))
    ids = [f"{name}{n}" for name in ("shot", "again", "other") for n in range(THINGS)]
    images = np.concatenate([image, turned(image, SAME_IMAGE + 0.01), turned(image, 0.9)])
    return Records(ids, images, np.tile(text, (3, 1)), [{}] * len(ids))


@pytest.mark.parametrize("memory", ["of the pairs", "of another shop"])
def test_no_training_query_finds_its_picture_or_the_caption_of_it(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole ``reco train`` up to the optimiser. The other shop has the same pictures under other ids."""
    pairs, held = catalogue(), catalogue()
    write_pairs(tmp_path / "pairs.npz", [pairs])
    location = None
    if memory == "of another shop":
        held = replace(pairs, ids=[f"shop-{id_}" for id_ in pairs.ids])
        location = str(tmp_path / "memory")
        with closing(open_memory(location, Fingerprint(CLIP.name, CLIP.digest, D))) as store:
            store.upsert(held)
    trained: list[FusionData] = []
    monkeypatch.setattr("reco_plugin.train.encoder.load_frozen", lambda *args, **options: CLIP)
    monkeypatch.setattr(train_run, "train_fusions", lambda data, *args, **options: trained.append(data))
    train_run.train(
        Recipe.of(source=f"{tmp_path / 'pairs.npz'}?check=0", model="mini", memory=location), tmp_path / "run"
    )

    cosine = pairs.image @ held.image.T
    for name, neighbours in trained[0].neighbours.items():
        for row, found in enumerate(neighbours.ids):
            shown = {held.ids[column] for column in np.flatnonzero(cosine[row] >= SAME_IMAGE)}
            assert len(shown) >= 1 and found and not shown & set(found), (name, pairs.ids[row])
    # another picture of the thing is no leak: it is what retrieval is for
    assert trained[0].neighbours["text"].ids[0][0].removeprefix("shop-") == "other0"


# --- evaluation --------------------------------------------------------------------------------------------------


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What every query of a modality found, in the order asked; under ``coverage`` captions near candidates, and under
    ``copies`` pictures like those that are asked."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    search = ExactMemory.search

    def noting(self: ExactMemory, asked: Search) -> Any:
        neighbours = search(self, asked)
        within = {"text": "coverage", "image": "copies"}
        found[asked.by if asked.read != asked.by else within[asked.by]] += neighbours.ids
        return neighbours

    monkeypatch.setattr(ExactMemory, "search", noting)
    return found


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(params=["folder", "shards"])
def source(request: pytest.FixtureRequest, drawings: list[Pair], tmp_path: Path) -> Path:
    """The drawings, with captions and classes, in one place that fills the memory and is evaluated."""
    colours = sorted({pair.payload["colour"] for pair in drawings})
    if request.param == "folder":
        for pair in drawings:
            path = tmp_path / "photos" / pair.payload["colour"] / f"{pair.id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(pair.image))  # type: ignore[arg-type]
            path.with_suffix(".txt").write_text(str(pair.text))
        return tmp_path / "photos"
    (tmp_path / "classnames.txt").write_text("\n".join(colours))
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for pair in drawings:
            label = str(colours.index(pair.payload["colour"]))
            for suffix, content in (
                ("png", png(pair.image)),
                ("txt", str(pair.text).encode()),
                ("cls", label.encode()),
            ):  # type: ignore[arg-type]
                member = tarfile.TarInfo(f"{pair.id}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return tmp_path / "0.tar"


def own_found(own: Sequence[Collection[str]], found: Sequence[Sequence[str]]) -> list[bool]:
    """For each query whether it found what is its own; queries may have been asked several times over."""
    assert len(found) and len(found) % len(own) == 0
    return [bool(set(own[row % len(own)]) & set(ids)) for row, ids in enumerate(found)]


def test_a_classified_image_does_not_find_the_pair_that_was_read_from_the_same_place(
    source: Path, reco: Reco, searched: dict[str, list[list[str]]]
) -> None:
    reco.memory.add(read_pairs(source))
    labelled: Labelled = read_labelled(source)
    own = [(id_,) for id_ in labelled.query_ids or ()]
    zero_shot(reco, labelled)
    assert not any(own_found(own, searched["image"]))
    searched.clear()
    zero_shot(reco, replace(labelled, query_ids=None))
    assert all(own_found(own, searched["image"]))  # without the ids the test would see it


def test_retrieval_finds_no_pair_that_was_read_from_the_same_place(
    source: Path, reco: Reco, searched: dict[str, list[list[str]]]
) -> None:
    reco.memory.add(read_pairs(source))
    check_retrieval(reco, read_retrieval(source), searched)


def test_an_image_and_its_texts_find_none_of_its_pairs(
    drawings: list[Pair], reco: Reco, searched: dict[str, list[list[str]]], tmp_path: Path
) -> None:
    """The same picture twice, under two ids with a caption each: a near-duplicate whose caption is another query's."""
    rows = []
    for pair in drawings:
        (tmp_path / f"{pair.id}.png").write_bytes(png(pair.image))  # type: ignore[arg-type]
        for number, text in enumerate((pair.text, f"drawing of {pair.text}")):
            rows.append(json.dumps({"id": f"{pair.id}/{number}", "image": f"{pair.id}.png", "text": text}))
    (tmp_path / "captions.jsonl").write_text("\n".join(rows))
    reco.memory.add(read_pairs(tmp_path / "captions.jsonl"))
    captioned = read_retrieval(tmp_path / "captions.jsonl")
    assert {len(own) for own in captioned.ids or ()} == {2}
    check_retrieval(reco, captioned, searched)


def check_retrieval(reco: Reco, captioned: Captioned, searched: dict[str, list[list[str]]]) -> None:
    assert captioned.ids is not None
    own = {"image": captioned.ids, "text": [captioned.ids[row] for row in captioned.text_of_image]}
    retrieval(reco, captioned)
    # As queries and as candidates, and as queries again with each other caution, since these gain little; images once
    # more, by the texts that the memory knows.
    times = {"image": 5, "text": 4}
    for side in MODALITIES:
        assert len(searched[side]) == times[side] * len(own[side]), side
        assert not any(own_found(own[side], searched[side])), side
    assert not any(own_found(own["text"], searched["coverage"]))
    assert len(searched["copies"]) == len(own["image"]) and not any(own_found(own["image"], searched["copies"]))
    searched.clear()
    retrieval(reco, replace(captioned, ids=None))
    for side in MODALITIES:
        assert all(own_found(own[side], searched[side])), side
