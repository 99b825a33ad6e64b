"""Zero-shot and retrieval end to end on made-up clusters whose names the encoder does not know, memory and all."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reco_plugin.data import Captioned, Labelled
from reco_plugin.errors import ConfigError, InputError
from reco_plugin.evaluate import retrieval, zero_shot
from reco_plugin.files import digest_records
from reco_plugin.measure.statistics import points
from reco_plugin.refine import Refiner, refiner_for_vectors
from reco_plugin.score import score_both
from reco_plugin.types import Records, Refinement

CLASSES, DIMENSION = 120, 64


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Classes have a place among the images and another among the texts, only weakly related."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.image = unit(self.rng.normal(size=(CLASSES, DIMENSION)))
        self.text = unit(0.25 * self.image + unit(self.rng.normal(size=(CLASSES, DIMENSION))))

    def near(self, centres: np.ndarray, each: int, noise: float) -> np.ndarray:
        return unit(np.repeat(centres, each, 0) + noise * unit(self.rng.normal(size=(len(centres) * each, DIMENSION))))

    def pairs(self, each: int = 5, classes: slice = slice(None)) -> Records:
        image, text = self.near(self.image[classes], each, 0.6), self.near(self.text[classes], each, 0.2)
        return Records([f"m{i}" for i in range(len(image))], image, text, [{}] * len(image))

    def labelled(self, each: int = 3) -> Labelled:
        labels = np.repeat(np.arange(CLASSES), each)
        names = tuple(map(str, range(CLASSES)))
        return Labelled("world", self.near(self.image, each, 0.6), labels, names, (), self.text)


_LEARNED: dict[str, Refiner] = {}


def learned(records: Records) -> Refiner:
    """A refiner of pairs; the same ones are learned from once, which takes seconds."""
    key = digest_records(records)
    if key not in _LEARNED:
        _LEARNED[key] = refiner_for_vectors([records])
    return copy(_LEARNED[key])


def test_refinement_helps_where_the_memory_knows_more_than_the_encoder() -> None:
    world = World()
    refiner = learned(world.pairs())
    result = zero_shot(refiner, world.labelled())
    assert [v.refined for v in result.variants] == ["frozen", "image", "text", "both"]
    frozen, image = result["frozen"], result["image"]
    assert image.top1.mean > frozen.top1.mean + 0.15
    assert image.gain.low > 0  # significant, over classes
    assert image.gain.mean == pytest.approx(image.top1.mean - frozen.top1.mean)
    assert frozen.top1.low < frozen.top1.mean < frozen.top1.high
    assert (frozen.gain.mean, frozen.moved, frozen.moved_prompts) == (0, 0, 0)
    assert image.moved > 0.01
    assert image.moved_prompts == 0
    assert result["text"].moved == 0
    assert result["both"].moved > 0.01


def test_sides_choose_what_is_refined() -> None:
    world = World()
    calls: list[str] = []

    class Counting:
        def refine(self, vectors: np.ndarray, *, modality: str, **options: Any) -> Refinement:
            calls.append(modality)
            return Refinement(vectors, vectors)

    result = zero_shot(Counting(), world.labelled(), sides=["text"])  # type: ignore[arg-type]
    assert (calls, [v.refined for v in result.variants]) == (["text"], ["frozen", "text"])
    assert result["text"].gain.mean == 0
    with pytest.raises(ConfigError, match="unknown side 'images'"):
        zero_shot(Counting(), world.labelled(), sides=["images"])  # type: ignore


def test_what_competes_is_refined_as_candidates_and_queries_in_portions() -> None:
    world = World()
    calls: list[tuple[str, str, int]] = []

    class Noting:
        def refine(self, vectors: np.ndarray, *, modality: str, role: str = "query", **options: Any) -> Refinement:
            calls.append((modality, role, len(vectors)))
            return Refinement(vectors, vectors)

    reco: Any = Noting()
    zero_shot(reco, world.labelled(each=40))
    assert calls == [("image", "query", 4096), ("image", "query", 704), ("text", "candidate", CLASSES)]
    calls.clear()
    retrieval(reco, Captioned("world", world.image, world.text, np.arange(CLASSES)))
    assert sorted(calls) == [(m, r, CLASSES) for m in ("image", "text") for r in ("candidate", "query")]


def test_options_reach_the_refinement_and_the_record() -> None:
    world = World()
    refiner = learned(world.pairs())
    labelled = world.labelled()
    result = zero_shot(refiner, labelled, sides=["image"], k=1, gate=False, fuser=None)
    expected = refiner.refine(labelled.images, modality="image", k=1, gate=False).vectors
    assert result["image"].moved == pytest.approx(np.mean(1 - np.sum(expected * labelled.images, axis=1)), abs=1e-6)
    assert result.options == {"k": 1, "gate": False}
    for wrong, message in [
        ({"k": 0}, "k must be a whole number from 1"),
        ({"caution": "both"}, "caution must be"),
    ]:
        with pytest.raises(InputError, match=message):
            zero_shot(refiner, labelled, **wrong)


def test_a_query_does_not_find_its_own_pair() -> None:
    """With the queries as memory and k=1, every query finds itself unless its id is given."""
    world = World()
    labelled = world.labelled(each=1)
    ids = tuple(f"q{i}" for i in range(CLASSES))
    records = Records(ids, labelled.images, labelled.prompts, [{}] * CLASSES)
    refiner = refiner_for_vectors([records], k=1, gate=False)
    cheating = zero_shot(refiner, labelled, sides=["image"])
    honest = zero_shot(refiner, replace(labelled, query_ids=ids), sides=["image"])
    assert cheating["image"].top1.mean == 1.0
    assert honest["image"].top1.mean < 0.7


def four_classes(groups: np.ndarray | None = None) -> Labelled:
    """Classes 2 and 3 are unseen; the image of class 2 is nearer to the prompt of class 0."""
    prompts = np.eye(4, dtype=np.float32)
    images = prompts.copy()
    images[2] = [0.8, 0, 0.6, 0]
    unseen = np.array([False, False, True, True])
    return Labelled("four", images, np.arange(4), ("a", "b", "c", "d"), (), prompts, groups=groups, unseen=unseen)


class Corrects:
    """Moves an image to the axis on which it lies second; prompts stay."""

    def __init__(self) -> None:
        self.sets: list[tuple[str, int]] = []

    def refine(self, vectors: np.ndarray, *, modality: str, **options: Any) -> Refinement:
        self.sets.append((modality, len(vectors)))
        moved = vectors.copy()
        if modality == "image":
            moved[vectors[:, 0] == np.float32(0.8)] = [0, 0, 1, 0]
        return Refinement(moved, vectors)


def test_seen_and_unseen_classes_among_themselves_and_together_by_hand() -> None:
    reco: Any = Corrects()
    result = zero_shot(reco, four_classes())
    assert reco.sets == [("image", 4), ("text", 4), ("text", 2), ("text", 2)]  # prompts are refined as each set
    frozen, image = result.generalised[:2]
    assert [line.refined for line in result.generalised] == ["frozen", "image", "text", "both"]
    assert (result["frozen"].top1.mean, result["image"].top1.mean) == (0.75, 1.0)
    assert (frozen.seen.mean, frozen.unseen.mean, frozen.harmonic.mean) == (1.0, 0.5, pytest.approx(2 / 3))
    assert (image.seen.mean, image.unseen.mean, image.harmonic.mean) == (1.0, 1.0, 1.0)
    assert (image.gain_seen.mean, image.gain_unseen.mean, image.gain.mean) == (0, 0.5, pytest.approx(1 / 3))
    assert frozen.gain == (0, 0, 0)
    assert (result.unseen["frozen"].top1.mean, result.unseen.images, result.unseen.classes) == (1.0, 2, 2)
    assert (result.seen["frozen"].top1.mean, result.seen.images, result.seen.classes) == (1.0, 2, 2)


def test_seen_and_unseen_render_and_become_json() -> None:
    reco: Any = Corrects()
    result = zero_shot(reco, four_classes())
    stored = json.loads(json.dumps(result.to_dict()))
    assert stored["unseen"]["variants"][0]["top1"]["mean"] == 1.0
    assert stored["generalised"][0]["harmonic"]["mean"] == pytest.approx(2 / 3)
    tables = result.render().split("\n\n")
    assert [text.splitlines()[0] for text in tables] == [
        "zero-shot, four: 4 images, 4 classes",
        "the same, seen and unseen classes apart",
        "unseen classes among themselves: 2 images, 2 classes",
        "seen classes among themselves: 2 images, 2 classes",
    ]
    assert tables[1].splitlines()[3].split() == ["frozen", "100.0", "50.0", "66.7"]
    plain = zero_shot(reco, replace(four_classes(), unseen=None))
    assert plain.variants == result.variants
    whole = {"task", "name", "images", "classes", "options", "variants", "reasons", "own_pictures", "ranks"}
    assert plain.to_dict().keys() == whole
    named, right, wrong = [f"image {row}" for row in range(1, 5)], [1, 1, 1, 1], [1, 1, 2, 1]
    assert stored["ranks"] == {"name": named, "frozen": wrong, "image": right, "text": wrong, "both": right}
    assert plain.render() == tables[0]


def test_what_has_no_images_is_left_out_and_flags_must_fit() -> None:
    reco: Any = Corrects()
    labelled = four_classes()
    only_unseen = zero_shot(reco, replace(labelled, images=labelled.images[2:], labels=labelled.labels[2:]))
    assert (only_unseen.seen, only_unseen.generalised) == (None, ())
    assert only_unseen.unseen["frozen"].top1.mean == 1.0
    assert only_unseen["frozen"].top1.mean == 0.5
    for unseen in (np.array([True]), np.array([0, 0, 1, 1])):
        with pytest.raises(InputError, match="unseen must be 4 flags"):
            zero_shot(reco, replace(labelled, unseen=unseen))


class Encoder:
    """Texts and images are numbers: class number -> its vector; 'a' and 'the' differ by a known step."""

    def __init__(self, world: World) -> None:
        self.world = world

    def images(self, images: Sequence[Any], progress: Any) -> np.ndarray:
        progress(len(images))
        return self.world.image[[int(image) for image in images]]

    def texts(self, texts: Sequence[str], progress: Any) -> np.ndarray:
        progress(len(texts))
        step = np.float32([0.5 if text.startswith("the") else 0.0 for text in texts])[:, None]
        return unit(self.world.text[[int(text.split()[1]) for text in texts]] + step * np.eye(DIMENSION)[0])


def test_raw_images_go_through_the_encoder_and_templates_are_averaged() -> None:
    world = World()
    refiner: Any = learned(world.pairs())
    raw = Labelled(
        "raw",
        [str(i) for i in range(CLASSES)],
        np.arange(CLASSES),
        tuple(map(str, range(CLASSES))),
        ("a {}", "the {c}"),
    )
    with pytest.raises(ConfigError, match="open a model"):
        zero_shot(refiner, raw)
    refiner.encoder = Encoder(world)
    seen: list[int] = []
    result = zero_shot(refiner, raw, progress=seen.append)
    assert sum(seen) == CLASSES * 3
    plain = refiner.encoder.texts([f"a {i}" for i in range(CLASSES)], seen.append)
    stepped = refiner.encoder.texts([f"the {i}" for i in range(CLASSES)], seen.append)
    same = zero_shot(refiner, replace(raw, images=world.image, prompts=unit(plain + stepped)))
    assert result.variants == same.variants


def test_retrieval_both_ways_and_the_index_stays_untouched() -> None:
    world = World()
    refiner = learned(world.pairs())
    captioned = Captioned("world", world.image, world.near(world.text, 2, 0.1), np.repeat(np.arange(CLASSES), 2))
    result = retrieval(refiner, captioned)
    frozen, query = result["text->image", "frozen"], result["text->image", "query"]
    assert query.recall[1] > frozen.recall[1] + 0.15
    assert query.gain.low > 0
    assert query.gain.mean == pytest.approx(query.recall[1] - frozen.recall[1])
    assert result["image->text", "query"].recall[1] > result["image->text", "frozen"].recall[1] + 0.15
    for variant in result.variants:
        assert variant.recall[1] <= variant.recall[5] <= variant.recall[10]
        assert variant.recall[1] / 2 < variant.ndcg10 <= variant.recall[10]  # two texts per image
    moved = refiner.refine(captioned.texts, modality="text").vectors  # by hand: refined texts against frozen images
    hit = (moved @ world.image.T).argmax(1) == captioned.text_of_image
    assert query.recall[1] == pytest.approx(hit.mean())


def test_texts_that_stand_on_several_images_are_counted_and_tie() -> None:
    world = World()
    refiner = learned(world.pairs())
    captioned = Captioned("world", world.image, world.text, np.arange(CLASSES))
    assert "ties: " not in retrieval(refiner, captioned).render()
    texts = world.text.copy()
    texts[1] = texts[2] = texts[0]
    result = retrieval(refiner, replace(captioned, texts=texts))
    assert result.repeated == result.to_dict()["repeated"] == 3
    assert f"\nties: 3 of {CLASSES} texts stand on several images" in result.render()
    twice = replace(captioned, texts=world.text[[0, 0, 1]], text_of_image=np.array([0, 0, 1]))
    assert retrieval(refiner, twice).repeated == 0, "twice on one image is no tie with another"


def test_a_loss_is_called_a_loss_and_no_caution_that_loses_is_proposed() -> None:
    """Every pair of the memory says of its image what another one shows; then a right memory, used too cautiously."""
    world = World()
    right = world.pairs()
    wrong = replace(right, text=np.roll(right.text, len(right) // 2, axis=0))
    captioned = Captioned("world", world.image, world.text, np.arange(CLASSES))
    result = retrieval(learned(wrong), captioned)
    assert result["text->image", "query"].gain.high < 0
    (said,) = [str(reason) for reason in result.reasons if reason.refined == "text->image query"]
    assert said.startswith("why text->image query loses: ")
    assert "leave texts plain" in said and "bold" not in said and "gain" not in said
    assert re.search(r"add pairs of what was lost: 'text \d+', 'text \d+', 'text \d+', \d+ more$", said)
    cautious = retrieval(learned(right), captioned, caution=1.0)
    (told,) = [str(reason) for reason in cautious.reasons if reason.refined == "text->image query"]
    bold = retrieval(learned(right), captioned, caution="bold")["text->image", "query"].gain
    assert bold.low > 0
    assert "with --caution " in told and points(bold)[:4] in told


def test_the_ranks_of_all_queries_are_told_in_both_directions() -> None:
    world = World()
    captioned = Captioned(
        "world", world.image, world.text, np.arange(CLASSES), tuple((f"i{n}",) for n in range(CLASSES))
    )
    result = retrieval(learned(world.pairs()), captioned)
    ranks = json.loads(json.dumps(result.to_dict()))["ranks"]
    assert ranks["text->image"]["name"][:2] == ["text 1", "text 2"]
    assert ranks["image->text"]["name"][:2] == ["i0", "i1"]
    for variant in result.variants:
        found = np.array(ranks[variant.direction][variant.refined])
        assert {k: float((found <= k).mean()) for k in variant.recall} == variant.recall


def test_pictures_of_the_memory_under_other_ids_are_noticed() -> None:
    world = World()
    pairs = world.pairs()
    new = Captioned("world", world.image, world.text, np.arange(CLASSES))
    assert (plain := retrieval(learned(pairs), new)).own_pictures == 0
    assert "pictures of the memory" not in plain.render()
    own = Captioned("world", pairs.image, pairs.text, np.arange(len(pairs)))
    result = retrieval(learned(pairs), own)
    assert result.own_pictures == result.to_dict()["own_pictures"] == len(pairs)
    assert f"\nwarning: {len(pairs):,} of {len(pairs):,} images are pictures of the memory" in result.render()
    known = replace(own, ids=tuple((id_,) for id_ in pairs.ids))
    assert retrieval(learned(pairs), known).own_pictures == 0, "a picture's own pair is hidden from it"
    labelled = Labelled("x", pairs.image[:3], np.array([0, 1, 2]), ("a", "b", "c"), (), world.text[:3])
    shown = zero_shot(learned(pairs), labelled)
    assert shown.own_pictures == 3 and "3 of 3 images are pictures of the memory" in shown.render()


def test_every_side_of_retrieval_is_what_a_search_by_hand_finds() -> None:
    world = World()
    refiner = learned(world.pairs())
    captioned = Captioned("world", world.image, world.text, np.arange(CLASSES))
    vectors = {"image": world.image, "text": world.text}
    result = retrieval(refiner, captioned)
    seen = []
    for direction in ("text->image", "image->text"):
        query, index = direction.split("->")
        asked = refiner.refine(vectors[query], modality=query).vectors
        searched = refiner.refine(vectors[index], modality=index, role="candidate").vectors
        for refined, side, left, right in [
            ("frozen", "frozen", vectors[query], vectors[index]),
            ("query", query, asked, vectors[index]),
            ("index", index, vectors[query], searched),
            ("both", "both", asked, searched),
        ]:
            variant = result[direction, refined]
            place = np.argsort(np.argsort(-left @ right.T, axis=1), axis=1)[np.arange(CLASSES), np.arange(CLASSES)]
            assert variant.side == side
            assert variant.recall == pytest.approx({k: np.mean(place < k) for k in (1, 5, 10)})
            assert variant.ndcg10 == pytest.approx(np.mean((place < 10) / np.log2(place + 2)))  # one true result each
            assert variant.gain.mean == pytest.approx(variant.recall[1] - result[direction, "frozen"].recall[1])
            seen.append((direction, refined))
        seen.append((direction, "exact"))
        exact = result[direction, "exact"]
        assert exact.side == "both"
        scores = score_both(refiner, world.image, world.text, query).scores
        scores = scores if query == "image" else scores.T
        place = (scores > scores.diagonal()[:, None]).sum(axis=1)
        assert exact.recall == pytest.approx({k: np.mean(place < k) for k in (1, 5, 10)})
        assert exact.ndcg10 == pytest.approx(np.mean((place < 10) / np.log2(place + 2)))
        assert exact.recall[1] >= result[direction, "query"].recall[1]
    assert seen == [(variant.direction, variant.refined) for variant in result.variants]
    assert result["image->text", "index"].recall != result["image->text", "frozen"].recall
    assert "text->image  query (text)" in result.render()


def test_retrieval_hides_the_own_pairs_of_an_image_from_it_and_its_texts() -> None:
    world = World()
    ids = tuple((f"m{i}",) for i in range(CLASSES))
    records = Records([own[0] for own in ids], world.image, world.text, [{}] * CLASSES)
    refiner = refiner_for_vectors([records], k=1, gate=False)
    captioned = Captioned("own", world.image, world.text, np.arange(CLASSES))
    cheating, honest = retrieval(refiner, captioned), retrieval(refiner, replace(captioned, ids=ids))
    for direction in ("text->image", "image->text"):
        assert cheating[direction, "query"].recall[1] == 1.0
        assert honest[direction, "query"].recall[1] < 0.7


def test_an_image_without_texts_distracts_but_is_no_query() -> None:
    image, text = np.eye(2, dtype=np.float32), np.float32([[0.6, 0.8]])
    refiner = refiner_for_vectors([Records(["m"], image[:1], text, [{}])], k=1, gate=False)
    found = retrieval(refiner, Captioned("two", image, text, np.array([0])))
    assert found["text->image", "frozen"].recall == {1: 0.0, 5: 1.0, 10: 1.0}
    assert found["image->text", "frozen"].recall == {1: 1.0, 5: 1.0, 10: 1.0}


def test_results_render_and_become_json() -> None:
    world = World()
    refiner = learned(world.pairs())
    shot = zero_shot(refiner, world.labelled(), k=5)
    text = shot.render()
    assert text.startswith("zero-shot, world: 360 images, 120 classes\nrefined  top-1 %")
    assert len({len(line) for line in text.splitlines()[1:]}) == 1  # columns align
    stored = json.loads(json.dumps(shot.to_dict()))
    assert stored["task"] == "zero-shot"
    assert stored["options"] == {"k": 5}
    assert stored["variants"][1]["top1"]["mean"] == shot["image"].top1.mean
    captioned = Captioned("world", world.image, world.text, np.arange(CLASSES))
    found = retrieval(refiner, captioned)
    assert found.render().startswith("retrieval, world: 120 images, 120 texts\ndirection    refined")
    assert json.loads(json.dumps(found.to_dict()))["variants"][0]["recall"].keys() == {"R@1", "R@5", "R@10"}


def test_a_refiner_for_vectors_needs_pairs_of_one_dimension() -> None:
    world = World()
    pairs = world.pairs()
    with pytest.raises(InputError, match="no pairs"):
        refiner_for_vectors([])
    small = Records(["x"], np.float32([[1, 0]]), np.float32([[1, 0]]), [{}])
    with pytest.raises(InputError, match=r"different dimensions: \[2, 64\]"):
        refiner_for_vectors([pairs, small])
    refiner = learned(pairs)
    assert isinstance(refiner, Refiner)
    assert refiner.dimension == DIMENSION
    with pytest.raises(InputError, match="modality must be 'image' or 'text'"):
        refiner.refine(world.image, modality="images")  # type: ignore[arg-type]


def test_refining_in_blocks_is_refining_one_by_one() -> None:
    """More queries than one fusion call takes, with everything explained, against single calls."""
    world = World()
    refiner = learned(world.pairs())
    queries = world.near(world.image, 5, 0.6)  # 600
    whole = refiner.refine(queries, modality="image", explain=True, exclude=[[f"m{i}"] for i in range(600)])
    assert whole.neighbours is not None
    for row in (0, 511, 512, 599):
        alone = refiner.refine(queries[row : row + 1], modality="image", explain=True, exclude=[f"m{row}"])
        np.testing.assert_allclose(whole.vectors[row], alone.vectors[0], atol=1e-6)
        np.testing.assert_allclose(whole.weights[row], alone.weights[0], rtol=1e-5, atol=1e-6)  # cosines round
        assert whole.neighbours.ids[row] == alone.neighbours.ids[0]
        assert f"m{row}" not in whole.neighbours.ids[row]
    with pytest.raises(InputError, match="exclude has 2 collections of ids for 600 vectors"):
        refiner.refine(queries, modality="image", exclude=[["a"], ["b"]])


def test_reco_refines_by_its_policy_unless_settings_or_the_caller_say_otherwise() -> None:
    from types import SimpleNamespace

    from reco_plugin.artifact import FusionInfo, Manifest, Policy
    from reco_plugin.config import Settings
    from reco_plugin.reco import Reco

    world = World()
    refiner = learned(world.pairs())
    memory: Any = SimpleNamespace(
        searches=refiner.memory.searches, calibration=refiner.memory.calibration, encoder=SimpleNamespace(changed=None)
    )
    said = SimpleNamespace(policy=Policy(k=3, gate=False), fusion=FusionInfo(fuser="reco"))
    manifest = SimpleNamespace(defaults=Manifest.defaults.__get__(said), fusers=("reco",))
    artifact: Any = SimpleNamespace(manifest=manifest)

    def refined(settings: Settings, **options: Any) -> np.ndarray:
        return Reco(artifact, settings, memory, {}).refine(world.image, modality="image", **options).vectors

    def expected(**options: Any) -> np.ndarray:
        return refiner.refine(world.image, modality="image", **options).vectors

    np.testing.assert_array_equal(refined(Settings()), expected(k=3, gate=False))
    np.testing.assert_array_equal(refined(Settings(k=7, gate=True)), expected(k=7, gate=True))
    bold = refined(Settings(k=7, gate=True, caution="bold"))
    np.testing.assert_array_equal(bold, expected(k=7, gate=True, caution="bold"))
    np.testing.assert_array_equal(
        refined(Settings(k=7), k=2, caution="bold"), expected(k=2, caution="bold", gate=False)
    )
    assert not np.array_equal(expected(k=3, gate=False), expected(k=3, gate=True))
