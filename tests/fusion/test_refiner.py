"""Refinement of vectors on a made-up memory: no model, every property in numbers."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from refiners import refiner_for_vectors

from reco_plugin.errors import InputError, VectorError
from reco_plugin.fusion.exact_scores import score_both
from reco_plugin.fusion.refiner import Refiner, VectorMemory
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.types import MODALITIES, Coverage, Neighbours, Records, other

D, GROUPS, EACH, K = 32, 120, 3, 5
BLOCK = 128  # rows per fusion call


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


one_side = pytest.mark.parametrize("modality", ["image"], indirect=True)  # the code is the same for both


class World:
    """Groups of pairs around a meaning in each modality; images and captions lie apart."""

    def __init__(self) -> None:
        image, text = np.random.default_rng(0).normal(size=(2, GROUPS, D))
        self.meaning = {"image": image, "text": 0.4 * image + text}  # the encoder hardly knows what belongs together
        self.group = np.repeat(np.arange(GROUPS), EACH)
        image, text = self.queries("image", self.group), self.queries("text", self.group, noise=0.05)
        payloads = [{"group": int(group), "half": int(group) % 2} for group in self.group]
        self.records = Records([f"p{i}" for i in range(len(image))], image, text, payloads)

    def queries(self, modality: str, groups: np.ndarray, noise: float = 0.4, draw: int = 0) -> np.ndarray:
        """Drawn from what is asked alone: the tests that ran before in this process change nothing."""
        side = MODALITIES.index(modality)
        drawn = np.random.default_rng([side, len(groups), round(noise * 1000), draw]).normal(size=(len(groups), D))
        return unit(self.meaning[modality][groups] + 3.0 * np.eye(2, D)[side] + noise * drawn)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def refiner(world) -> Refiner:
    return refiner_for_vectors(world.records, k=K)


@pytest.fixture(scope="module", params=MODALITIES)
def modality(request) -> Any:
    return request.param


@pytest.fixture(scope="module")
def queries(world, modality) -> np.ndarray:
    return world.queries(modality, np.arange(GROUPS))


def test_refined_vectors_are_unit_float32_and_moved(refiner, queries, modality):
    result = refiner.refine(queries, modality=modality)
    assert (result.vectors.dtype, result.vectors.shape) == (np.float32, queries.shape)
    assert np.allclose(np.linalg.norm(result.vectors, axis=1), 1, atol=1e-6)
    assert result.frozen.tobytes() == queries.tobytes()
    assert np.allclose(result.moved, 1 - np.sum(result.vectors * queries, axis=1), atol=1e-6)
    assert result.moved.max() > 1e-3
    assert (result.neighbours, result.reliability, result.weights) == (None, None, None)


def test_a_query_for_its_own_modality_moves_by_no_pair_that_was_found(refiner, queries, modality):
    result = refiner.refine(queries, modality=modality, target=modality)
    assert result.refined.all()
    assert (result.coverage.found, result.coverage.strength > result.moved.mean()) == (0, True)


def test_scores_come_back_to_the_mean_and_the_spread_of_plain_ones(refiner, world, queries, modality):
    result = refiner.refine(queries, modality=modality)
    others = world.records.side(other(modality))
    plain, refined = queries @ others.T, result.vectors @ others.T
    back = result.plain_scores(refined)
    ordered = np.take_along_axis(back, np.argsort(refined, axis=1), axis=1)
    assert (np.diff(ordered, axis=1) > -1e-6).all(), "the order stays, but for rounding"
    assert abs(refined.mean(axis=1) - plain.mean(axis=1)).max() > 0.02, "there is something to bring back"
    np.testing.assert_allclose(back.mean(axis=1), plain.mean(axis=1), atol=2e-3)  # each caption counts once
    np.testing.assert_allclose(back.std(axis=1), plain.std(axis=1), rtol=0.1)  # a low-rank covariance tells it
    np.testing.assert_allclose(result.plain_scores(refined[:, 0]), back[:, 0])


def test_a_plain_cut_off_becomes_each_query_s_own(refiner, world, queries, modality):
    result = refiner.refine(queries, modality=modality)
    scores = result.vectors @ world.records.side(other(modality)).T
    least = result.refined_scores(0.3)
    assert least.shape == (GROUPS,)
    assert np.ptp(least) > 0.01
    clear = abs(result.plain_scores(scores) - 0.3) > 1e-5
    assert np.array_equal((scores >= least[:, None])[clear], (result.plain_scores(scores) >= 0.3)[clear])
    np.testing.assert_allclose(result.refined_scores(result.plain_scores(scores)), scores, atol=1e-5)
    plain = refiner.refine(queries, modality=modality, role="candidate")
    assert plain.refined_scores(0.3).tolist() == [np.float32(0.3)] * GROUPS


@one_side
def test_other_numbers_of_rankings_are_refused(refiner, queries, modality):
    result = refiner.refine(queries[:3], modality="image")
    for scores in ([[0.5, 0.25]], [[0.5, 0.25]] * 2):
        for method in (result.plain_scores, result.refined_scores):
            with pytest.raises(InputError, match=rf"scores has {len(scores)} rankings? for 3 queries"):
                method(scores)
    with pytest.raises(InputError, match="as many for each query"):
        result.plain_scores([[0.5, 0.25], [0.5], []])
    one = refiner.refine(queries[:1], modality="image")
    np.testing.assert_array_equal(one.plain_scores([0.5, 0.25]), one.plain_scores([[0.5, 0.25]])[0])


@one_side
def test_a_query_that_stays_has_the_scale_of_plain_scores(refiner, world, queries, modality):
    stayed = refiner.refine(queries, modality=modality, where={"group": GROUPS + 1})
    assert stayed.scale is None or np.allclose(stayed.scale, [1.0, 0.0], atol=1e-5)
    scores = queries @ world.records.side(other(modality)).T
    np.testing.assert_allclose(stayed.plain_scores(scores), scores, atol=1e-5)
    candidates = refiner.refine(queries, modality=modality, role="candidate")
    assert candidates.scale is None


@one_side
def test_neither_the_queries_nor_what_was_frozen_is_changed_through_the_result(refiner, queries, modality):
    before = queries.copy()
    refiner.refine(queries, modality=modality).vectors[:] = 0
    nothing = refiner.refine(queries, modality=modality, where={"group": -1})
    nothing.vectors[:] = 0
    assert np.array_equal(queries, before)
    assert np.array_equal(nothing.frozen, before)


@one_side
@pytest.mark.parametrize("role", ["query", "candidate"])
def test_an_empty_memory_returns_the_frozen_vectors_bit_by_bit(queries, modality, role):
    store = open_memory(":memory:", Fingerprint("none", "0" * 64, D))
    empty = Refiner(VectorMemory(store, None), None, k=K, gate=True)
    result = empty.refine(queries, modality=modality, role=role, explain=True)
    assert result.vectors.tobytes() == queries.tobytes()
    assert result.retrieved.tolist() == [False] * GROUPS
    assert not result.neighbours.found.any()
    assert result.neighbours.ids == result.neighbours.payloads == [[]] * GROUPS
    assert not result.weights.any()
    assert not result.reliability.any()


@one_side
def test_what_an_empty_memory_and_no_gate_cover_is_told(refiner, queries, modality):
    store = open_memory(":memory:", Fingerprint("none", "0" * 64, D))
    empty = Refiner(VectorMemory(store, None), None, k=K, gate=True)
    assert empty.refine(queries, modality=modality).coverage == Coverage(asked=GROUPS, found=0)
    assert refiner.refine(queries, modality=modality, gate=False).coverage == Coverage(GROUPS, GROUPS)
    assert refiner.refine(queries, modality=modality, where={"group": -1}).coverage.found == 0


def test_text_candidates_of_which_too_few_are_covered_stay_and_it_says_which(refiner, world):
    texts = world.queries("text", np.arange(GROUPS), noise=0.01)
    for where, share in ((None, 1.0), ({"group": {"lt": 30}}, 0.25)):
        result = refiner.refine(texts, modality="text", role="candidate", where=where)
        coverage = result.coverage
        assert (coverage.asked, coverage.found, coverage.needed) == (GROUPS, GROUPS, 0.9)
        assert coverage.answered == np.mean(coverage.covered) == pytest.approx(share, abs=0.1)
        assert coverage.held == (share < 0.9) == np.array_equal(result.vectors, texts) == (coverage.strength == 0.0)
        assert coverage.held == (
            refiner.refine(texts, modality="text", role="candidate", where=where, explain=True).why is None
        )
        if where:
            assert not any(coverage.covered[30:]), "those whose group is not searched"
        asked = refiner.refine(texts, modality="text", where=where).coverage
        assert (asked.needed, asked.held, asked.answered, asked.covered) == (0.0, False, None, ()), "a query by itself"


@pytest.mark.parametrize("role", ["query", "candidate"])
def test_coverage_is_of_the_whole_batch(role, refiner, queries, modality):
    one = refiner.refine(queries, modality=modality, role=role).coverage
    times = 2 * BLOCK // GROUPS + 1
    many = refiner.refine(np.tile(queries, (times, 1)), modality=modality, role=role).coverage
    assert (many.asked, many.found) == (times * GROUPS, times * GROUPS)
    assert many.needed == one.needed
    if (role, modality) != ("candidate", "text"):  # equal candidates are rivals
        assert many.strength == pytest.approx(one.strength, rel=0.1)


@pytest.mark.parametrize("rows", [1, 2 * BLOCK + 7])
def test_a_batch_of_any_length_is_its_rows_one_by_one(rows, refiner, queries, modality):
    many = np.resize(queries, (rows, D))
    hidden = [[f"p{EACH * (row % GROUPS)}"] for row in range(rows)]
    batch = refiner.refine(many, modality=modality, exclude=hidden, explain=True)
    assert batch.vectors.shape == batch.frozen.shape == (rows, D)
    assert batch.reliability.shape == batch.weights.shape == batch.neighbours.found.shape == (rows, K)
    assert len(batch.neighbours.ids) == len(batch.neighbours.payloads) == rows
    for row in {0, rows // 2, min(BLOCK - 1, rows - 1), min(BLOCK, rows - 1), rows - 1}:
        one = refiner.refine(many[row : row + 1], modality=modality, exclude=hidden[row], explain=True)
        assert one.neighbours.ids[0] == batch.neighbours.ids[row]
        for name in ("vectors", "frozen", "reliability", "weights"):
            assert np.allclose(getattr(one, name)[0], getattr(batch, name)[row], atol=2e-5), name
        assert np.allclose(one.neighbours.vectors[0], batch.neighbours.vectors[row], atol=1e-6)


class Counting:
    """A store that counts how many blocks of neighbours are alive when it is asked for the next one."""

    def __init__(self, store: Any) -> None:
        self._store, self._found, self.alive = store, [], 0

    def search(self, *args: Any, **options: Any) -> Neighbours:
        self.alive = max(self.alive, sum(found() is not None for found in self._found))
        found = self._store.search(*args, **options)
        self._found.append(weakref.ref(found.vectors))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("role", ["query", "candidate"])
def test_one_block_of_neighbours_is_held_at_a_time(role, world, refiner):
    store = Counting(refiner.memory.store)
    counted = Refiner(VectorMemory(store, refiner.memory.calibration), None, k=K, gate=True)
    counted.refine(np.resize(world.records.image, (4 * BLOCK, D)), modality="image", role=role)
    assert store.alive == 0


@pytest.mark.parametrize(("role", "modality"), [("query", "image"), ("candidate", "image"), ("candidate", "text")])
def test_all_blocks_are_refined_alike_where_the_memory_is_calibrated_meanwhile(role, modality, world, refiner):
    learned = refiner.memory

    class Late:
        """Learned at its second look."""

        store, searches, looks = learned.store, learned.searches, 0

        @property
        def calibration(self) -> Any:
            self.looks += 1
            return learned.calibration if self.looks > 1 else None

    late = Refiner(Late(), None, k=K)
    queries = np.resize(world.records.side(modality), (2 * BLOCK, D))
    result = late.refine(queries, modality=modality, role=role)
    assert not result.refined.any() and result.moves is None and len(result.vectors) == 2 * BLOCK
    assert late.refine(queries, modality=modality, role=role).moves is not None


def test_explained_parts_belong_together(refiner, world, queries, modality):
    result = refiner.refine(queries, modality=modality, explain=True)
    own, read = world.records.side(modality), world.records.side("text" if modality == "image" else "image")
    rows = np.array([[int(name[1:]) for name in ids] for ids in result.neighbours.ids])
    assert np.array_equal(rows, np.argsort(-(queries @ own.T), axis=1, kind="stable")[:, :K])
    assert np.allclose(result.neighbours.similarity, np.sum(queries[:, None] * own[rows], axis=2), atol=1e-6)
    assert np.allclose(result.neighbours.vectors, read[rows], atol=1e-6)
    assert result.neighbours.payloads == [[world.records.payloads[i] for i in ids] for ids in rows]
    assert np.allclose(result.neighbours.cosine, np.sum(own[rows] * read[rows], axis=2), atol=1e-6)
    for row, why in enumerate(result.why):
        heaviest = float((result.weights[row] / result.weights[row].sum()).max())
        assert why.heaviest == pytest.approx(heaviest, abs=1e-4)
        assert ("one pair has" in str(why)) == (why.heaviest >= 0.5) or "hardly moves" in str(why)
    share = result.weights.sum(axis=1)
    assert ((share > 0) & (share < 1)).all()
    added = result.moves.added
    far = np.linalg.norm(added, axis=1)
    assert np.allclose(share, far / (1 + far), atol=1e-5)
    assert np.allclose(result.vectors, unit(queries + added), atol=1e-6)
    assert np.array_equal(refiner.refine(queries, modality=modality).vectors, result.vectors)


@one_side
def test_padding_has_neither_trust_nor_weight(refiner, queries, modality):
    hidden = [[f"p{i}" for i in range(row * EACH)] for row in range(GROUPS)]
    result = refiner.refine(queries, modality=modality, exclude=hidden, gate=False, explain=True)
    counts = result.neighbours.found.sum(axis=1)
    assert counts.tolist() == [min(K, EACH * (GROUPS - row)) for row in range(GROUPS)]
    assert [len(ids) for ids in result.neighbours.ids] == counts.tolist()
    padded = ~result.neighbours.found
    assert padded.any()
    for part in (result.reliability, result.weights, result.neighbours.similarity, result.neighbours.vectors):
        assert not part[padded].any()


@one_side
def test_it_says_which_vectors_the_memory_had_something_for(refiner, queries, modality):
    everything = [id_ for records in refiner.memory.store.scroll() for id_ in records.ids]
    rows = BLOCK + 2  # more than one block
    hidden = [everything if row in (1, BLOCK) else [] for row in range(rows)]
    result = refiner.refine(np.resize(queries, (rows, D)), modality=modality, exclude=hidden)
    assert np.flatnonzero(~result.retrieved).tolist() == [1, BLOCK]


def test_without_the_gate_no_pair_is_weighed(refiner, queries, modality):
    on, off = (refiner.refine(queries, modality=modality, gate=gate, explain=True) for gate in (True, False))
    assert (off.reliability == 1).all()
    assert on.reliability.min() < 1
    assert not np.allclose(on.vectors, off.vectors, atol=1e-3)


@one_side
def test_the_refiners_own_k_and_gate_hold_when_the_call_does_not_say(refiner, queries, modality):
    own = Refiner(refiner.memory, None, k=3, gate=False)
    said = refiner.refine(queries, modality=modality, k=3, gate=False).vectors
    assert np.array_equal(own.refine(queries, modality=modality).vectors, said)


@pytest.mark.parametrize("modality", MODALITIES)
def test_candidates_keep_the_mean_and_the_spread_of_their_plain_scores(modality, refiner, world):
    """Else one would win every query, right or wrong."""
    candidates = world.queries(modality, np.arange(GROUPS), noise=0.05)
    result = refiner.refine(candidates, modality=modality, role="candidate")
    assert np.allclose(np.linalg.norm(result.vectors, axis=1), 1, atol=1e-5)
    assert (result.moved > 1e-4).all()
    asking = world.records.side("text" if modality == "image" else "image")
    before, after = asking @ candidates.T, asking @ result.vectors.T
    scale = after.std(axis=0).mean() / before.std(axis=0).mean()
    assert (after.std(axis=0) / before.std(axis=0)).std() < 0.1 * scale
    assert after.mean(axis=0).std() < 0.5 * after.std(axis=0).mean()


@pytest.mark.parametrize("strangers", [0, BLOCK // 2, BLOCK * 3 // 4])
def test_text_candidates_all_move_or_none_does_across_blocks(strangers, refiner, world):
    """The first block alone would move: it is the strangers in the last one that hold all of them back."""
    known = world.queries("text", np.arange(GROUPS), noise=0.01)
    far = unit(np.random.default_rng(5).normal(size=(strangers, D)) - 3.0 * np.eye(2, D)[1])
    texts = np.concatenate([known, far])
    assert (refiner.refine(known, modality="text", role="candidate").moved > 1e-4).all()
    result = refiner.refine(texts, modality="text", role="candidate")
    assert (result.vectors.tobytes() == texts.tobytes()) == (strangers > GROUPS // 9)
    assert (refiner.refine(known, modality="text").moved > 1e-4).all()


def test_exact_scores_of_both_sides_find_more_than_either_and_take_nothing_from_what_is_unknown(refiner, world):
    texts, rows = world.queries("text", np.arange(GROUPS), noise=0.05), np.arange(GROUPS)
    images = world.queries("image", rows, noise=0.8)
    found = score_both(refiner, images, texts)
    assert found.scores.shape == found.frozen.shape == (GROUPS, GROUPS)
    right, before = ((one.argmax(axis=1) == rows).mean() for one in (found.scores, found.frozen))
    assert right > before + 0.1
    part = score_both(refiner, images, texts, where={"half": 1})
    odd = rows % 2 == 1
    assert not np.array(part.coverage.covered)[~odd].any()
    even = (part.scores.argmax(axis=1) == rows)[~odd].mean() - (part.frozen.argmax(axis=1) == rows)[~odd].mean()
    assert even > -0.1
    with pytest.raises(InputError, match="has no exact scores"):
        score_both(refiner, images, texts, fuser="paper")


def test_exact_scores_rank_images_for_texts_too(refiner, world):
    rows, right, before, by_cosine = np.arange(GROUPS), [], [], []
    for draw in range(8):
        images = world.queries("image", rows, noise=0.8, draw=draw)
        texts = world.queries("text", rows, noise=0.05, draw=draw)
        found = score_both(refiner, images, texts, "text")
        assert not np.allclose(found.scores, score_both(refiner, images, texts).scores, atol=1e-3)
        cosine = refiner.refine(images, modality="image", role="candidate").vectors
        cosine = cosine @ refiner.refine(texts, modality="text").vectors.T
        for rates, scores in ((right, found.scores), (before, found.frozen), (by_cosine, cosine)):
            rates.append((scores.argmax(axis=0) == rows).mean())
    assert np.mean(right) > np.mean(before) + 0.1
    assert np.mean(right) > np.mean(by_cosine), "one cosine of both is no better"


def test_a_query_of_another_domain_stays(refiner, world):
    """It finds neighbours, too, but is less like them than the memory's pairs are like one another."""
    far = unit(np.random.default_rng(5).normal(size=(GROUPS, D)) - 3.0 * np.eye(2, D)[0])
    assert refiner.refine(far, modality="image").moved.max() < 1e-3
    assert refiner.refine(world.queries("image", np.arange(GROUPS)), modality="image").moved.mean() > 1e-2


def test_less_coverage_moves_less(refiner, queries, modality):
    far = [refiner.refine(queries, modality=modality, coverage=share).moved.mean() for share in (1.0, 0.9, 0.25, 0.0)]
    assert far[0] >= far[1] >= far[2] >= far[3]
    assert far[0] > far[3], "even what is never held is not impossible"
    default = Refiner(refiner.memory, None, k=K, coverage=0.25)  # as by RECO_COVERAGE
    assert default.refine(queries, modality=modality).moved.mean() == far[2]


def test_the_measured_coverage_of_text_candidates_wins(refiner, world):
    queries = world.queries("text", np.arange(GROUPS))

    def refined(**how: Any) -> Any:
        return refiner.refine(queries, modality="text", role="candidate", **how)

    default = refined()
    assert default.coverage.answered > 0.5
    np.testing.assert_array_equal(refined(coverage=0.25).vectors, default.vectors)


def test_coverage_counts_for_exact_scores_unless_it_is_measured(refiner, world):
    images, texts = (world.queries(m, np.arange(GROUPS)) for m in ("image", "text"))

    def changed(reco: Refiner, among: str, **how: Any) -> float:
        found = score_both(reco, images, texts, "text" if among == "image" else "image", **how)
        return float(np.abs(found.scores - found.frozen).mean())

    whole, most, quarter = (changed(refiner, "image", coverage=share) for share in (1.0, 0.9, 0.25))
    assert whole >= most >= quarter > 0
    default = Refiner(refiner.memory, None, k=K, coverage=0.25)  # as by RECO_COVERAGE
    assert changed(default, "image") == pytest.approx(quarter)
    assert changed(default, "text") == pytest.approx(changed(refiner, "text")), "it is that of the texts"


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda v: v[:0], InputError, "empty"),
        (lambda v: v[:, :-1], VectorError, rf"\(B, {D}\), got \({GROUPS}, {D - 1}\)"),
        (lambda v: np.where(np.arange(D) == 3, np.nan, v), VectorError, r"vectors\[0\] holds NaN"),
        (lambda v: v * 1.1, VectorError, "norm 1.1"),
        (lambda v: "a text", VectorError, "not an array"),
    ],
)
def test_unusable_vectors(spoil, error, message, refiner, world):
    with pytest.raises(error, match=message):
        refiner.refine(spoil(world.queries("image", np.arange(GROUPS))), modality="image")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "audio"}, "modality must be 'image' or 'text', got 'audio'"),
        ({"role": "rival"}, "role must be 'query' or 'candidate', got 'rival'"),
        ({"coverage": "bold"}, "coverage must be a share from 0 to 1, got 'bold'"),
        ({"coverage": 90}, "coverage must be a share from 0 to 1, got 90"),
        ({"coverage": -0.1}, "coverage must be a share from 0 to 1, got -0.1"),
        ({"coverage": float("nan")}, "coverage must be a share from 0 to 1, got nan"),
        ({"coverage": True}, "coverage must be a share from 0 to 1, got True"),
        ({"fuser": "free"}, "fuser must be 'reco' or 'paper', got 'free'"),
        ({"fuser": "paper"}, "the model has no fusion 'paper', only: reco"),
        ({"exclude": [["p1"]]}, f"1 collections of ids for {GROUPS} vectors"),
        ({"exclude": "p1"}, "single id 'p1': put it in a list"),
        ({"where": {"group": {"near": 3}}}, "near"),
    ],
)
def test_unusable_options(options, message, refiner, world):
    with pytest.raises(InputError, match=message):
        refiner.refine(world.queries("image", np.arange(GROUPS)), **{"modality": "image"} | options)


@one_side
def test_many_queries_with_many_exclusions_are_searched_in_parts(refiner, queries, modality):
    """2.5 million ids to keep out, as one request of the service may ask for."""
    many = np.tile(queries, (256 // len(queries) + 1, 1))[:256]
    hidden = [f"none-{i}" for i in range(10_000)]
    plain, found = (refiner.refine(many, modality="image", exclude=each, explain=True) for each in (None, hidden))
    assert found.neighbours.ids == plain.neighbours.ids


def test_captions_that_stand_in_for_some_texts_stay_with_their_texts_across_blocks(world):
    """Their scores come back to the scale of the text that asks, on which cut-offs are set."""
    numbered = [{"caption": f"part QX-{1000 + int(group)}-A"} for group in world.group]
    refiner = refiner_for_vectors(replace(world.records, payloads=numbered), k=K)
    texts = ["?"] * BLOCK + ["QX-1007-A", "?"]
    queries = world.queries("text", np.arange(len(texts)) % GROUPS)
    fuser, asked = refiner.ask(queries, "text", "query", {"explain": True}, texts)
    refined = fuser.refine(asked)
    assert refined.words == [*[""] * BLOCK, "QX-1007-A", ""]
    assert refined.neighbours is not None
    assert refined.neighbours.asked is not None
    assert (refined.neighbours.asked != queries).any(axis=1).tolist() == [bool(word) for word in refined.words]
    images, row = world.records.image, BLOCK
    assert refined.moved[row] > 0.01
    scores = refined.plain_scores(refined.vectors @ images.T)[row]
    plain = queries[row] @ images.T
    assert scores.mean() == pytest.approx(plain.mean(), abs=1e-3)
    assert scores.std() == pytest.approx(plain.std(), rel=1e-2)


def test_a_large_batch_pauses_between_its_blocks(refiner, world):
    pauses = []
    queries = world.queries("image", np.arange(3 * BLOCK) % GROUPS)
    fuser, asked = refiner.ask(queries, "image", "query", {}, None, lambda: pauses.append(1))
    assert len(fuser.refine(asked).vectors) == 3 * BLOCK
    assert len(pauses) == 2
