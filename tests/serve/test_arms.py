"""Refinement switched on by degrees: who is in which arm, by every route, and how that is told and counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from reco_plugin import Reco
from reco_plugin.errors import ConfigError, MemoryUnavailable
from reco_plugin.serve.embedder import Failure, Item, arm_of, content_of
from reco_plugin.serve.settings import load_serve_settings
from reco_plugin.types import Arm

Served = Callable[..., AbstractContextManager[TestClient]]
SHARE = 0.3
TEXT = "a small red circle"
UNITS = {arm: next(str(n) for n in range(99) if arm_of(str(n).encode(), SHARE) == arm) for arm in ("plain", "refined")}
"""A unit of each arm."""
DIALECTS: dict[str, dict[str, Any]] = {
    "/refined/v1/embeddings": {"input": [TEXT]},
    "/v1/embeddings": {"model": "clip-reco-query", "input": [TEXT]},
    "/v1/multimodalembeddings": {
        "inputs": [{"content": [{"type": "text", "text": TEXT}]}],
        "model": "clip-reco",
        "input_type": "query",
    },
    "/v2/embed": {"texts": [TEXT], "model": "clip-reco", "input_type": "search_query"},
    "/refined/vectorize": {"texts": [TEXT]},
    "/titan": {"inputText": TEXT, "input_type": "query"},
    "/refined/embed": {"inputs": TEXT},
}


@pytest.fixture(scope="module")
def shared(model: Any, drawn_records: Any, served: Served) -> Any:
    """A service that refines less than a third of the queries."""
    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.add_records([drawn_records])
        with served(reco, refined_share=SHARE, cache_entries=100) as opened:
            yield opened


def ask(client: TestClient, path: str, unit: str | None = None, **body: Any) -> Any:
    answer = client.post(path, json=body, headers={} if unit is None else {"x-reco-unit": unit})
    assert answer.status_code == 200, answer.text
    return answer


def counted(shown: str) -> dict[tuple[str, ...], float]:
    """Name and labels (arm, answer) -> value, of the metrics of arms."""
    return {
        (one.name, *(one.labels[name] for name in ("arm", "answer", "le") if name in one.labels)): one.value
        for family in text_string_to_metric_families(shown)
        for one in family.samples
        if "_arm_" in one.name or one.name == "reco_refined_share"
    }


def test_the_place_of_a_unit_is_fixed() -> None:
    places = {b"user-4711": 0.25119, b"session-1": 0.91418, b"a red fox": 0.54761}
    for unit, place in places.items():
        assert (arm_of(unit, place - 1e-4), arm_of(unit, place + 1e-4)) == ("plain", "refined"), unit


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
@pytest.mark.slow
def test_other_processes_decide_the_same(seed: str) -> None:
    code = (
        "import json, numpy as np\n"
        "from reco_plugin.serve.embedder import Item, arm_of, content_of\n"
        "items = [Item.text('ein roter Fuchs 🦊'), Item.image(b'png'), Item.vector([1, 0], 'text')]\n"
        "units = [str(n).encode() for n in range(100)] + [content_of([item]) for item in items]\n"
        "print(json.dumps([arm_of(unit, 0.5) for unit in units]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": seed},
    )
    items = [Item.text("ein roter Fuchs 🦊"), Item.image(b"png"), Item.vector([1, 0], "text")]
    units = [str(n).encode() for n in range(100)] + [content_of([item]) for item in items]
    assert json.loads(ran.stdout) == [arm_of(unit, 0.5) for unit in units]


@given(st.binary(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_only_moves_plain_units_to_refined(unit: bytes, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert arm_of(unit, small) == "plain" or arm_of(unit, large) == "refined"
    assert (arm_of(unit, 0.0), arm_of(unit, 1.0)) == ("plain", "refined")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_is_met(share: float) -> None:
    drawn = 20_000
    refined = sum(arm_of(f"user-{n}".encode(), share) == "refined" for n in range(drawn))
    assert abs(refined / drawn - share) < 4 * (share * (1 - share) / drawn) ** 0.5


def test_the_content_of_a_request_is_all_of_it_and_of_its_kinds() -> None:
    one, other = Item.text("a"), Item.text("b")
    same_bytes = [Item.text("ab"), Item.image(b"ab")]
    contents = [[one], [one, other], [other, one], [Item.text("ab")], [Item.image(b"ab")], same_bytes]
    assert len({content_of(items) for items in contents}) == len(contents)
    unread = Failure(400, "image_not_base64", "no")
    assert content_of([unread, one]) == content_of([one])
    half = np.array([0.6, 0.8])
    assert content_of([Item.vector(half, "text")]) == content_of([Item.vector(half.tolist(), "text")])


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("arm", ["plain", "refined"])
def test_a_unit_decides_in_every_dialect(shared: TestClient, path: str, arm: Arm) -> None:
    answer = ask(shared, path, UNITS[arm], **DIALECTS[path])
    assert answer.headers["x-reco-arm"] == arm
    assert answer.headers["x-reco-refined"] == str(arm == "refined").lower()
    assert ("x-reco-target" in answer.headers) is (arm == "refined")


@pytest.mark.parametrize("unit", ["Jürgen 🦊".encode(), "à".encode(), b"x" * 4000])
def test_a_unit_is_the_bytes_of_its_header(shared: TestClient, unit: bytes) -> None:
    body = {"model": "clip-reco-query", "input": [TEXT]}
    for sent in (unit, b" " + unit + b"\t"):
        answer = shared.post("/v1/embeddings", json=body, headers={"x-reco-unit": sent})
        assert answer.headers["x-reco-arm"] == arm_of(unit, SHARE)


@pytest.mark.parametrize("explain", [False, True])
def test_vectors_of_a_plain_unit_come_back_as_they_are(shared: TestClient, filled: Reco, explain: bool) -> None:
    frozen = filled.embed_texts([TEXT, "a large blue square"], refine=False)
    body = {"vectors": frozen.tolist(), "modality": "text", "explain": explain}
    plain = ask(shared, "/v1/refine", UNITS["plain"], **body)
    assert (plain.headers["x-reco-arm"], plain.headers["x-reco-refined"]) == ("plain", "false")
    for row, vector in zip(plain.json()["data"], frozen, strict=True):
        assert np.array_equal(np.float32(row["embedding"]), vector)
        assert (row["refined"], row["moved"]) == (False, 0.0)
        assert row["plain"] == "it is in the plain arm of refined_share"
        assert row.get("used") == ([] if explain else None)
    refined = ask(shared, "/v1/refine", UNITS["refined"], **body)
    assert (refined.headers["x-reco-arm"], refined.headers["x-reco-refined"]) == ("refined", "true")


def test_without_a_unit_the_query_decides_and_all_of_a_request_is_in_one_arm(shared: TestClient) -> None:
    seen = set()
    for number in range(12):
        text = f"a red circle {number}"
        body = {"model": "clip-reco-query", "input": [text]}
        arm = ask(shared, "/v1/embeddings", **body).headers["x-reco-arm"]
        assert arm == arm_of(content_of([Item.text(text)]), SHARE)
        assert ask(shared, "/v1/embeddings", " ", **body).headers["x-reco-arm"] == arm, "blank is no unit"
        assert ask(shared, "/v2/embed", texts=[text], input_type="search_query").headers["x-reco-arm"] == arm
        seen.add(arm)
        batch = ask(shared, "/v1/embeddings", model="clip-reco-query", input=[text, TEXT, "a large blue square"])
        items = [Item.text(one) for one in (text, TEXT, "a large blue square")]
        assert batch.headers["x-reco-arm"] == arm_of(content_of(items), SHARE)
        assert batch.headers["x-reco-refined"] == str(batch.headers["x-reco-arm"] == "refined").lower(), "all or none"
    assert seen == {"plain", "refined"}


def test_a_text_and_an_image_that_become_one_vector_are_in_one_arm(shared: TestClient, red_square: str) -> None:
    for arm in ("plain", "refined"):
        body = {"inputText": TEXT, "inputImage": red_square, "input_type": "query"}
        answer = ask(shared, "/titan", UNITS[arm], **body)
        assert answer.headers["x-reco-arm"] == arm
        assert answer.headers["x-reco-refined"] == ("false" if arm == "plain" else "partly")  # the text


@pytest.mark.parametrize(
    ("path", "body", "refined"),
    [
        ("/v1/embeddings", {"model": "clip", "input": TEXT}, "false"),
        ("/plain/v1/embeddings", {"model": "clip-reco-query", "input": TEXT}, "false"),
        ("/v1/embeddings", {"model": "clip-reco-query", "input": TEXT, "refine": False}, "false"),
        ("/v1/embeddings", {"model": "clip", "input": TEXT, "refine": True}, "true"),
        ("/v1/embeddings", {"model": "clip-reco", "input": TEXT}, "false"),
        ("/v1/embeddings", {"model": "clip-reco", "input": TEXT, "input_type": "document"}, "false"),
        ("/v1/explain", {"input": [{"text": TEXT}]}, "true"),
    ],
)
def test_what_a_caller_forces_is_in_no_arm(shared: TestClient, path: str, body: Any, refined: str) -> None:
    for unit in UNITS.values():
        answer = ask(shared, path, unit, **body)
        assert "x-reco-arm" not in answer.headers
        assert answer.headers["x-reco-refined"] == refined


def test_documents_to_refine_and_sides_that_stay_plain_are_in_no_arm(filled: Reco, served: Served) -> None:
    frozen = filled.embed_texts([TEXT], refine=False).tolist()
    with served(filled, refined_share=0.0, query_text=False) as client:
        documents = ask(client, "/v1/refine", vectors=frozen, modality="text", input_type="document")
        assert "x-reco-arm" not in documents.headers
        assert "x-reco-arm" not in ask(client, "/refined/v1/embeddings", input=TEXT).headers


def test_all_or_nothing(filled: Reco, served: Served) -> None:
    for share, arm in ((0, "plain"), (1, "refined")):
        with served(filled, refined_share=share) as client:
            for unit in (*UNITS.values(), None):
                assert ask(client, "/refined/v1/embeddings", unit, input=TEXT).headers["x-reco-arm"] == arm
    with served(filled) as client:
        assert ask(client, "/refined/v1/embeddings", input=TEXT).headers["x-reco-arm"] == "refined"


def test_many_queries_of_the_plain_arm_are_not_called_refined(shared: TestClient) -> None:
    body = {"model": "clip-reco", "input": [TEXT] * 20, "input_type": "query"}
    assert "x-reco-note" in ask(shared, "/v1/embeddings", UNITS["refined"], **body).headers
    assert "x-reco-note" not in ask(shared, "/v1/embeddings", UNITS["plain"], **body).headers


def test_a_cached_row_does_not_tell_another_requests_arm(shared: TestClient) -> None:
    text = "one that is asked here only"
    for path, unit, arm in (
        ("/refined/v1/embeddings", UNITS["plain"], "plain"),
        ("/refined/v1/embeddings", UNITS["refined"], "refined"),
        ("/plain/v1/embeddings", UNITS["plain"], None),
    ):
        assert ask(shared, path, unit, input=text).headers.get("x-reco-arm") == arm


def test_arms_are_counted_and_logged_and_units_are_not(
    filled: Reco, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with served(filled, refined_share=SHARE) as client:
        for _ in range(3):
            ask(client, "/v1/embeddings", UNITS["plain"], model="clip-reco-query", input=[TEXT, "a large blue square"])
        ask(client, "/v1/embeddings", UNITS["refined"], model="clip-reco-query", input=[TEXT])
        secret = "user-0815-of-shop"
        ask(client, "/v1/embeddings", secret, model="clip", input=[TEXT])
        bad = {"model": "clip-reco-query", "input": [TEXT, "half \ud83d"], "allow_failures": True}
        raw = json.dumps(bad).encode()
        headers = {"x-reco-unit": UNITS["plain"], "content-type": "application/json"}
        assert client.post("/v1/embeddings", content=raw, headers=headers).status_code == 200
        shown = client.get("/metrics").text
    found = counted(shown)
    assert found["reco_refined_share",] == SHARE
    assert found["reco_arm_queries_total", "plain", "plain"] == 7
    assert found["reco_arm_queries_total", "plain", "failed"] == 1
    assert found["reco_arm_queries_total", "refined", "refined"] == 1
    assert found["reco_arm_seconds_count", "plain"] == 4
    assert found["reco_arm_seconds_count", "refined"] == 1
    arms = [vars(record)["arm"] for record in caplog.records if "arm" in vars(record)]
    assert arms == ["plain"] * 3 + ["refined", "plain"]
    assert secret not in shown + caplog.text + repr([vars(record) for record in caplog.records])


@pytest.mark.filterwarnings("ignore::reco_plugin.guard.DegradedWarning")
def test_failures_of_the_memory_are_counted_in_their_arm(troubled: Any, served: Served) -> None:
    for failing, answer in (("degrade", "degraded"), ("fail", "failed")):
        made = troubled(on_memory_failure=failing)
        with served(made.reco, refined_share=SHARE) as client:

            def break_down() -> None:
                raise MemoryUnavailable("gone")

            made.seam.trouble = break_down
            for unit in UNITS.values():
                said = client.post("/refined/v1/embeddings", json={"input": TEXT}, headers={"x-reco-unit": unit})
                fails = failing == "fail" and unit == UNITS["refined"]
                assert said.status_code == (503 if fails else 200)
            found = counted(client.get("/metrics").text)
        assert found["reco_arm_queries_total", "refined", answer] == 1
        assert found["reco_arm_queries_total", "plain", "plain"] == 1


@pytest.mark.parametrize("value", ["-0.1", "1.1", "nan", "10%", "half"])
def test_what_is_no_share(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_SERVE_REFINED_SHARE", value)
    with pytest.raises(ConfigError, match="refined_share"):
        load_serve_settings()
