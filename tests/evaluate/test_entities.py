"""The entity task by hand, against everything at once, and over names in a file that is filled, resumed and reread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin.data import EntitySet, Labelled, read_entities
from reco_plugin.errors import ConfigError
from reco_plugin.evaluate import encoding, entities, ranks, zero_shot
from reco_plugin.evaluate.encoding import CachedEncoder, Prompts
from reco_plugin.refine import refiner_for_vectors
from reco_plugin.types import Fingerprint, Records, Refinement

WORDS, D = 90, 48
FINGERPRINT = Fingerprint("made up", "ab" * 32, D)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Names are numbers, each with a place; images are files that hold a number, and lie near its place."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.text = unit(rng.normal(size=(WORDS, D)))
        self.image = unit(self.text + 3 * unit(rng.normal(size=(WORDS, D))))
        self.encoded: list[str] = []
        self.fails_at: str | None = None

    def images(self, images: Sequence[Any], progress: Any) -> np.ndarray:
        progress(len(images))
        return self.image[[int(Path(image).read_text()) for image in images]]

    def texts(self, texts: Sequence[str], progress: Any) -> np.ndarray:
        if self.fails_at in texts:
            raise KeyboardInterrupt
        self.encoded.extend(texts)
        progress(len(texts))
        return self.text[[int(text.split()[-1]) for text in texts]]

    def entity_set(self, folder: Path) -> EntitySet:
        """Every third word is asked for, and every second one is unseen."""
        lines = [{"id": f"e{row}", "name": str(row), "split": "unseen" if row % 2 else "seen"} for row in range(WORDS)]
        asked = [{"image": f"{row}.jpg", "entity": f"e{row}"} for row in range(0, WORDS, 3)]
        for name, rows in (("entities.jsonl", lines), ("queries.jsonl", asked)):
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for row in range(0, WORDS, 3):
            (folder / f"{row}.jpg").write_text(str(row))
        return read_entities(folder)


class Refines:
    """Moves images half way to the name that they show (of every second entity asked for), names not at all."""

    def __init__(self, world: World, encoder: Any) -> None:
        self.world, self.encoder = world, encoder
        self.calls: list[tuple[str, str, int]] = []

    def refine(self, vectors: np.ndarray, *, modality: str, role: str = "query", **options: Any) -> Refinement:
        self.calls.append((modality, role, len(vectors)))
        if modality == "text":
            return Refinement(vectors, vectors)
        target = self.world.text[::3].copy()
        target[1::2] = vectors[1::2]
        return Refinement(unit(vectors + target), vectors)


@pytest.fixture
def world() -> World:
    return World()


def four_entities(path: Path) -> EntitySet:
    """Entities 2 and 3 are unseen; the image of 2 is nearer to the name of 0, and refining it cures that."""
    images = np.eye(4, dtype=np.float32)
    images[2] = [0.8, 0, 0.6, 0]
    unseen = np.array([False, False, True, True])
    np.savez(path, image=images, label=np.arange(4), entities=np.eye(4, dtype=np.float32), unseen=unseen)
    return read_entities(path)


class Cures:
    def refine(self, vectors: np.ndarray, **options: Any) -> Refinement:
        moved = vectors.copy()
        moved[vectors[:, 0] == np.float32(0.8)] = [0, 0, 1, 0]
        return Refinement(moved, vectors)


def test_seen_unseen_and_harmonic_mean_by_hand(tmp_path: Path) -> None:
    reco: Any = Cures()
    result = entities(reco, four_entities(tmp_path / "four.npz"), k=3)
    frozen, image = result.generalised
    assert (result["frozen"].top1.mean, result["image"].top1.mean, result["image"].gain.mean) == (0.75, 1.0, 0.25)
    assert (frozen.seen.mean, frozen.unseen.mean, frozen.harmonic.mean) == (1.0, 0.5, pytest.approx(2 / 3))
    assert (image.harmonic.mean, image.gain.mean) == (1.0, pytest.approx(1 / 3))
    assert [line.harmonic.mean for line in result.generalised5] == [1.0, 1.0]
    assert result["image"].moved == pytest.approx(0.4 / 4)
    stored_result = json.loads(json.dumps(result.to_dict()))
    assert (stored_result["task"], stored_result["entities"], stored_result["options"]) == ("entities", 4, {"k": 3})
    assert stored_result["generalised"]["top1"][1]["unseen"]["mean"] == 1.0
    lines = result.render().splitlines()
    assert lines[0] == "entities, four.npz: 4 queries, 4 entities"
    assert "top-5, seen and unseen entities apart" in lines
    plain = entities(reco, replace(four_entities(tmp_path / "four.npz"), unseen=None))
    assert (plain.generalised, plain.variants) == ((), result.variants)
    assert "generalised" not in plain.to_dict()


def test_names_in_a_file_give_the_ranks_of_all_at_once(world: World, tmp_path: Path) -> None:
    reco: Any = Refines(world, world)
    told: list[int] = []
    result = entities(reco, world.entity_set(tmp_path), template="a {}", candidates=True, progress=told.append)
    images, labels = world.image[::3], np.arange(0, WORDS, 3)
    moved = reco.refine(images, modality="image").vectors
    for refined, queries in (("frozen", images), ("text", images), ("image", moved), ("both", moved)):
        expected = ranks(queries, world.text, labels)
        assert result[refined].top1.mean == np.mean(expected < 1)
        assert result[refined].top5 == np.mean(expected < 5)
        line = next(line for line in result.generalised if line.refined == refined)
        assert line.unseen.mean == np.mean(expected[labels % 2 == 1] < 1)
    assert 0 < result["frozen"].top1.mean < result["image"].top1.mean < 1
    assert sum(told) == 30 + WORDS
    assert world.encoded == [f"a {row}" for row in range(WORDS)]
    assert reco.calls[:2] == [("image", "query", 30), ("text", "candidate", WORDS)]
    assert result.prompts == Prompts(("a {}",), "caller")


def test_both_sides_are_compared_by_exact_scores(world: World, tmp_path: Path) -> None:
    """As zero-shot of the same names does, in whatever blocks they come."""
    labels = np.repeat(np.arange(WORDS), 3)
    near = unit(world.image[labels] + 0.5 * unit(np.random.default_rng(1).normal(size=(len(labels), D))))
    refiner: Any = refiner_for_vectors(
        [Records([f"p{r}" for r in range(len(labels))], near, world.text[labels], [{}] * len(labels))]
    )
    names = tuple(map(str, range(WORDS)))
    np.savez(tmp_path / "v.npz", image=world.image, label=np.arange(WORDS), entities=world.text)
    found = entities(refiner, read_entities(tmp_path / "v.npz"), candidates=True)
    expected = zero_shot(refiner, Labelled("same", world.image, np.arange(WORDS), names, (), world.text))
    assert found.variants == expected.variants
    assert found["both"].gain.low > 0


def test_an_interrupted_run_goes_on_where_it_was(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_ROWS", 16)
    entity_set, cache = world.entity_set(tmp_path), tmp_path / "cache"
    reco: Any = Refines(world, CachedEncoder(world, FINGERPRINT, cache))
    world.fails_at = "40"
    with pytest.raises(KeyboardInterrupt):
        entities(reco, entity_set)
    assert world.encoded == [str(row) for row in range(32)]
    world.fails_at, told = None, []
    first = entities(reco, entity_set, progress=told.append)
    assert world.encoded == [str(row) for row in range(WORDS)]  # each once
    assert sum(told) == 30 + WORDS
    again = entities(reco, entity_set)
    assert len(world.encoded) == WORDS
    assert again == first
    [names] = cache.rglob("names-*")
    assert np.load(names, mmap_mode="r").dtype == np.float16
    np.testing.assert_allclose(np.load(names), world.text, atol=1e-3)
    assert sorted(path.name.partition("-")[0] for path in cache.rglob("*.npy")) == ["image", "names"]


def test_other_names_another_template_or_another_encoder_are_encoded_anew(world: World, tmp_path: Path) -> None:
    entity_set, cache = world.entity_set(tmp_path), tmp_path / "cache"
    for fingerprint, template in (
        (FINGERPRINT, "{}"),
        (FINGERPRINT, "a {}"),
        (replace(FINGERPRINT, digest="cd" * 32), "{}"),
    ):
        entities(Refines(world, CachedEncoder(world, fingerprint, cache)), entity_set, template=template)  # type: ignore
    (tmp_path / "entities.jsonl").write_text(
        (tmp_path / "entities.jsonl").read_text().replace('"name": "5"', '"name": "x 5"')
    )
    entities(Refines(world, CachedEncoder(world, FINGERPRINT, cache)), entity_set)  # type: ignore
    assert len(world.encoded) == 4 * WORDS


def test_what_cannot_be_done_is_refused(world: World, tmp_path: Path) -> None:
    reco: Any = Refines(world, None)
    with pytest.raises(ConfigError, match="holds images, not vectors"):
        entities(reco, world.entity_set(tmp_path))
    with pytest.raises(ConfigError, match="holds names, not vectors"):
        entities(reco, replace(world.entity_set(tmp_path), images=world.image[::3]))
    with pytest.raises(ConfigError, match=r"template 'a' has no \{\}"):
        entities(Refines(world, world), world.entity_set(tmp_path), template="a")  # type: ignore
    with pytest.raises(ConfigError, match="holds vectors of its names"):
        entities(reco, four_entities(tmp_path / "four.npz"), template="a {}")
    many = np.tile(np.float32([[0.6, 0.8]]), (50_001, 1))
    np.savez(tmp_path / "many.npz", image=many[:1], label=np.zeros(1, int), entities=many)
    with pytest.raises(ConfigError, match=r"50,001 names are too many to be refined as a set \(at most 50,000\)"):
        entities(reco, read_entities(tmp_path / "many.npz"), candidates=True)
