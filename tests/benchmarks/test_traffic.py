"""Callers that check against a live service: they find right answers right, and would find wrong ones."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.service import ADMIN_KEY, Service, started
from benchmarks.torture.inputs import Known, Request, draw, prepare
from benchmarks.torture.traffic import Traffic, judge, run
from reco_plugin import Pair, Reco

MODEL = Path(__file__).resolve().parents[2] / "triton_models"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("load")


@pytest.fixture(scope="module")
def known(folder: Path, drawings: list[Pair]) -> Known:
    texts = [str(pair.text) for pair in drawings]
    # so many that what comes and goes is too little for the gate to be calibrated anew, which changes answers
    pairs = [replace(pair, id=f"{pair.id}-{copy}") for copy in range(10) for pair in drawings]
    return prepare(MODEL, folder / "memory", pairs, texts, [pair.image for pair in drawings])


@pytest.fixture(scope="module")
def service(folder: Path, known: Known) -> Iterator[Service]:
    with started(MODEL, folder / "memory", folder / "log") as running:
        yield running


def load(service: Service, known: Known) -> Traffic:
    return asyncio.run(run(service.url, known, admin_key=ADMIN_KEY, callers=3, seconds=2.5))


def test_all_answers_are_right_while_the_memory_is_written(service: Service, known: Known) -> None:
    seen = load(service, known)
    assert Counter(one.verdict for one in seen.outcomes) == {"right": len(seen.outcomes)}
    assert len({one.kind for one in seen.outcomes}) >= 4
    assert seen.pairs_added > 0
    assert seen.write_failures == []


def test_wrong_answers_are_found(service: Service, known: Known) -> None:
    turned = replace(known, text=replace(known.text, refined=np.roll(known.text.refined, 1, axis=0)))
    seen = load(service, turned)
    by_kind = {kind: {o.verdict for o in seen.outcomes if o.kind == kind} for kind in ("1 text", "1 text, plain")}
    assert by_kind == {"1 text": {"wrong"}, "1 text, plain": {"right"}}


def test_what_comes_and_goes_is_found_by_no_query(known: Known) -> None:
    with Reco.open(MODEL, memory=":memory:") as reco:
        reco.memory.add(known.pairs)
        reco.memory.add(known.far_pairs("far", 4))
        assert np.allclose(reco.refine(known.text.plain, modality="text").vectors, known.text.refined, atol=1e-5)
        assert np.allclose(reco.refine(known.image.plain, modality="image").vectors, known.image.refined, atol=1e-5)


# --- the judgement, on vectors that one can draw -------------------------------------------------------------------

EAST, NORTH = np.float32([[1, 0]]), np.float32([[0, 1]])
ASKED = Request("kind", "/path", {}, expected=NORTH, plain=EAST)


def answer(vectors: np.ndarray, status: int = 200, **headers: str) -> httpx.Response:
    rows = [{"index": row, "embedding": one.tolist()} for row, one in enumerate(vectors)]
    return httpx.Response(status, json={"data": rows}, headers=headers)


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (answer(NORTH), "right"),
        (answer(EAST), "wrong"),
        (answer(np.float32([[0.02, 0.9998]])), "wrong"),  # 0.0002 away
        (answer(np.vstack([NORTH, NORTH])), "wrong"),
        (answer(EAST, **{"x-reco-degraded": "memory_timeout"}), "degraded"),
        (answer(NORTH, **{"x-reco-degraded": "memory_timeout"}), "wrong"),  # said to be plain, and is not
        (answer(NORTH, 429), "refused"),
        (answer(NORTH, 503), "failed"),
    ],
)
def test_an_answer_is_judged(response: httpx.Response, verdict: str) -> None:
    assert judge(ASKED, response)[0] == verdict


def test_requests_ask_what_they_expect(known: Known) -> None:
    rng = random.Random(0)
    drawn = {request.kind: request for request in (draw(known, rng) for _ in range(200))}
    assert len(drawn) == 6
    plain, refined = drawn["1 text, plain"], drawn["1 text"]
    assert np.array_equal(plain.expected, plain.plain)
    assert (plain.body["refine"], refined.body["refine"]) == (False, True)
    assert len(drawn["8 texts and images"].body["input"]) == len(drawn["8 texts and images"].expected) == 8
