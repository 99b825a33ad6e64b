"""Our own routes: refine, explain, models; prefixes, keys, headers, and errors in one shape."""

from __future__ import annotations

import base64
import gzip
import json
import logging

import numpy as np
import pytest

from reco_plugin import Pair
from reco_plugin.client.requests import read_refined
from reco_plugin.errors import (
    MemoryLocked,
    MemoryOverloaded,
    MemoryTimeout,
    MemoryUnavailable,
    SessionError,
    SessionOverloaded,
    SessionTimeout,
    SessionUnavailable,
    UnusableFeatures,
)
from reco_plugin.serve.failures import failure_of
from reco_plugin.serve.logs import JsonLines, request_id

TEXTS = ["a small red circle", "a large blue square"]


def test_refine_takes_vectors_and_gives_them_back_refined(reading, filled):
    frozen = filled.embed_texts(TEXTS, refine=False)
    answer = reading.post("/v1/refine", json={"vectors": frozen.tolist(), "modality": "text", "explain": True})
    assert answer.status_code == 200
    whole = filled.refine(frozen, modality="text", explain=True)
    body = answer.json()
    assert np.allclose([one["embedding"] for one in body["data"]], whole.vectors, atol=1e-6)
    assert np.allclose([one["moved"] for one in body["data"]], whole.moved, atol=1e-6)
    assert [[used["id"] for used in one["used"]] for one in body["data"]] == whole.neighbours.ids
    assert body["data"][0]["used"][0].keys() == {"id", "similarity", "reliability", "weight", "payload"}
    assert body["dimension"] == 128
    assert answer.headers["x-reco-refined"] == "true"
    assert "x-reco-degraded" not in answer.headers
    assert {part.partition(";")[0].strip() for part in answer.headers["server-timing"].split(",")} == {
        *("queue", "prepare", "encode", "refine"),
    }


def test_the_scale_of_scores_is_told_by_item_and_of_one_query_in_a_header(reading, filled):
    frozen = filled.embed_texts(TEXTS, refine=False)
    scale = filled.refine(frozen, modality="text").scale
    assert abs(scale[:, 0] - 1).max() > 0.01
    two = reading.post("/v1/refine", json={"vectors": frozen.tolist(), "modality": "text"})
    assert np.allclose([one["scale"] for one in two.json()["data"]], scale, atol=1e-4)
    assert "x-reco-scale" not in two.headers
    one = reading.post("/v1/embeddings", json={"model": "clip-reco-query", "input": TEXTS[0]})
    assert np.allclose([float(word) for word in one.headers["x-reco-scale"].split()], scale[0], atol=1e-4)
    plain = reading.post("/v1/embeddings", json={"model": "clip", "input": TEXTS[0]})
    assert "x-reco-scale" not in plain.headers
    served = read_refined(two.json())
    assert np.allclose(served.plain_scores([[0.2], [0.3]]), (scale[:, :1] * [[0.2], [0.3]]) + scale[:, 1:], atol=1e-4)


def test_an_answer_says_what_found_it_and_which_pairs_words_found(reading, filled):
    expected = filled.embed(["circle red small", "colours"], modality="text")
    two = reading.post("/v1/explain", json={"input": [{"text": "circle red small"}, {"text": "colours"}]}).json()[
        "data"
    ]
    assert [one["matched_by"] for one in two] == ["words", "neighbours"]
    assert two[0]["word_ids"] == list(expected.word_ids[0]) and "word_ids" not in two[1]
    assert (two[0]["why"]["words"], two[0]["reason"][:19]) == ("small red circle", "Found by its words:")
    one = reading.post("/v1/embeddings", json={"model": "clip-reco-query", "input": "circle red small", "reco": {}})
    assert one.headers["x-reco-matched-by"] == one.json()["data"][0]["matched_by"] == "words"
    assert json.loads(one.headers["x-reco-word-ids"]) == one.json()["data"][0]["word_ids"] == two[0]["word_ids"]
    plain = reading.post("/v1/embeddings", json={"model": "clip", "input": "circle red small"})
    assert "x-reco-matched-by" not in plain.headers


def test_what_the_memory_has_nothing_for_is_not_called_refined(reco, served):
    frozen = reco.embed_texts(TEXTS, refine=False)
    vectors = {"vectors": frozen.tolist(), "modality": "text"}
    embed = {"model": "clip-reco-query", "input": TEXTS}

    def refined_of(client, path, body):
        answer = client.post(path, json=body)
        assert "x-reco-degraded" not in answer.headers  # nothing is down
        return answer.headers["x-reco-refined"], np.array([one["embedding"] for one in answer.json()["data"]])

    with served(reco) as client:
        for path, body in (("/v1/refine", vectors), ("/v1/embeddings", embed), ("/v1/embeddings", embed)):
            word, given = refined_of(client, path, body)
            assert word == "false"
            assert np.allclose(given, frozen, atol=1e-6)
        reco.memory.add([Pair("one", frozen[0], frozen[0], {"shop": "de"})])
        assert refined_of(client, "/v1/refine", vectors)[0] == "false"  # one pair teaches nothing
        assert refined_of(client, "/v1/embeddings", embed)[0] == "false"
        [first, *_] = client.post("/v1/refine", json=vectors).json()["data"]
        assert (first["refined"], first["moved"]) == (False, 0.0)
        assert first["plain"].startswith("the memory is not calibrated")
        metrics = client.get("/metrics").text
        assert 'reco_left_plain_total{modality="text"}' in metrics
        assert 'reco_refined_total{modality="text"} 0.0' in metrics
        assert refined_of(client, "/v1/refine", vectors | {"gate": False})[0] == "partly"  # the pair stays
        assert 'reco_refined_total{modality="text"} 1.0' in client.get("/metrics").text
        assert refined_of(client, "/v1/refine", vectors | {"where": {"shop": "fr"}})[0] == "false"
        nothing = client.post("/v1/refine", json=vectors | {"exclude": ["one"]})
        assert nothing.headers["x-reco-refined"] == "false"
        assert nothing.json()["data"][0]["plain"] == "no pair was found"


def test_explain_takes_texts_and_images(reading, filled, red_square):
    inputs = [{"text": TEXTS[0]}, {"image": red_square}, {"image": "data:image/png;base64," + red_square}]
    text, bare, _ = reading.post("/v1/explain", json={"input": inputs, "k": 3}).json()["data"]
    whole = filled.embed([TEXTS[0]], modality="text", refine=True, k=3)
    assert np.allclose(text["embedding"], whole.vectors[0], atol=1e-6)
    assert np.allclose(text["frozen"], whole.frozen[0], atol=1e-6)
    assert bare["used"] == []  # it is for an index of images, for which no pair is searched
    _, bare, uri = reading.post("/v1/explain", json={"input": inputs, "k": 3, "target": "text"}).json()["data"]
    assert np.allclose(bare["embedding"], uri["embedding"], atol=1e-6)
    assert len(bare["used"]) == 3


def test_a_bad_item_is_named(reading, filled):
    good = filled.embed_texts(TEXTS[:1], refine=False)[0].tolist()
    vectors = json.dumps({"vectors": [good, [float("nan")] * 128], "modality": "text"})
    shape = {"vectors": [good, [1.0]], "modality": "text"}
    cut = {"input": [{"text": "a"}, {"image": base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()}]}
    for path, body, param, message in (
        ("/v1/refine", vectors, "vectors[1]", "a vector holds NaN"),
        ("/v1/refine", json.dumps(shape), "vectors[1]", "a vector must have shape (128,), got (1,)"),
        ("/v1/explain", json.dumps(cut), "input[1]", "an image (8 bytes) cannot be read"),
    ):
        error = reading.post(path, content=body, headers={"content-type": "application/json"}).json()["error"]
        assert error["param"] == param
        assert error["message"].startswith(f"{param}: {message}")
        assert "PIL" not in error["message"].partition(";")[2]


def test_models_say_what_whoever_compares_vectors_must_know(reading, filled):
    plain, refined, query = reading.get("/v1/models").json()["data"]
    manifest = filled.manifest
    assert [one["id"] for one in (plain, refined, query)] == ["clip", "clip-reco", "clip-reco-query"]
    for model in (plain, refined, query):
        assert model["dimension"] == manifest.dimension
        assert model["normalized"] is True
        assert model["context_length"] == manifest.text.context_length
        assert model["fingerprint"] == manifest.digest
        assert model["memory"] == {
            "pairs": 24,
            "kind": "exact",
            "version": filled.memory.version,
            "calibrated": True,
            "plain": "",
        }
        assert (model["coverage"], model["fuser"], model["fusers"]) == (None, "reco", list(manifest.fusers))
    assert plain["refines"] == dict.fromkeys(refined["refines"], False)
    assert refined["refines"] == {
        "query_text": True,
        "query_image": True,
    }
    for path in ("/v1/models", "/models"):
        assert reading.get(f"{path}/clip").json() == reading.get(path).json()["data"][0] == plain
    assert reading.get("/v1/models/gpt").status_code == 404


def test_a_model_whose_name_has_a_slash_is_found(filled, served):
    with served(filled, aliases={"openai/clip": "plain"}) as client:
        for path in ("/v1/models/openai/clip", "/models/openai%2Fclip"):
            assert client.get(path).json()["id"] == "openai/clip"
        azure = client.post("/openai/deployments/openai/clip/embeddings", json={"input": "a red circle"})
        assert (azure.status_code, azure.json()["model"]) == (200, "openai/clip")
        assert 'route="/v1/models/{model}"' in client.get("/metrics").text


def test_a_request_keeps_its_id_and_a_bad_id_is_replaced(reading):
    assert reading.get("/v1/models", headers={"x-request-id": "abc-1.2"}).headers["x-request-id"] == "abc-1.2"
    made = reading.get("/v1/models", headers={"x-request-id": "two words"}).headers["x-request-id"]
    assert len(made) == 32
    assert reading.get("/nowhere").headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code", "message"),
    [
        ("GET", "/nowhere", None, 404, "not_found", "there is no /nowhere here"),
        ("GET", "/v1/refine", None, 405, "method_not_allowed", "/v1/refine takes POST, not GET"),
        ("POST", "/v1/refine", b"{", 400, "invalid_json", "the body is not JSON"),
        ("POST", "/v1/refine", b"", 400, "invalid_json", "the body is not JSON"),
        ("POST", "/v1/refine", b"[]", 400, "invalid_request", "the body: must be an object"),
        ("POST", "/v1/refine", b'{"vectors": 3, "modality": "text"}', 400, "invalid_request", "array, got 3"),
        (
            "POST",
            "/v1/refine",
            b'{"vectors": [[1]], "modality": "text", "presence": 3}',
            400,
            "invalid_request",
            "presence: must be a number from 0 to 1, got 3",
        ),
        ("POST", "/v1/refine", b'{"vectors": [[0.1]]}', 400, "invalid_request", "modality: is missing"),
        ("POST", "/v1/refine", b'{"vectors": [[1, "a"]]}', 400, "invalid_request", "vectors[0][1]: must be"),
        ("POST", "/v1/explain", b'{"input": [{}]}', 400, "invalid_request", "give text or image"),
        ("POST", "/v1/explain", b'{"input": [{"text": "a"}], "k": 101}', 400, "k_too_large", "the limit is 100"),
        ("POST", "/v1/explain", b"[" * 100_000, 400, "invalid_json", "recursion limit"),
        ("POST", "/v1/explain", gzip.compress(b"{}", mtime=0), 400, "invalid_json", "not JSON"),
        ("POST", "/v1/explain", b'{"input": [{"text": "caf\xe9"}]}', 400, "invalid_json", "UTF-8"),
    ],
)
def test_errors_have_one_shape_and_name_what_is_wrong(reading, method, path, content, status, code, message):
    answer = reading.request(method, path, content=content, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert message in error["message"]
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)
    assert error.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (SessionOverloaded("the secret of 10.0.0.7:8001"), 429, "model_server_overloaded"),
        (SessionUnavailable("the secret of 10.0.0.7:8001"), 503, "model_server_unavailable"),
        (SessionTimeout("the secret of 10.0.0.7:8001"), 504, "model_server_timeout"),
        (UnusableFeatures("text", 3), 500, "encoder_failed"),
        (SessionError("the secret of /srv/models"), 500, "encoder_failed"),
        (MemoryOverloaded("the secret of 10.0.0.8:6333"), 503, "memory_overloaded"),
        (MemoryTimeout("the secret of 10.0.0.8:6333"), 504, "memory_timeout"),
        (MemoryUnavailable("the secret of 10.0.0.8:6333"), 503, "memory_unavailable"),
        (MemoryLocked("the secret of /srv/memory"), 503, "memory_unavailable"),
        (ZeroDivisionError("the secret of line 3"), 500, "internal_error"),
    ],
)
def test_each_error_has_its_status(error, status, code):
    failure = failure_of(error)
    assert (failure.status, failure.code) == (status, code)
    assert "secret" not in failure.message


KEYS = {"api_keys": ["first-key", "second-key"]}


def test_the_log_is_json_with_the_requests_id_and_without_keys(filled, served, caplog):
    with served(filled, **KEYS) as client, caplog.at_level(logging.INFO, "reco_plugin.serve"):
        client.post(
            "/v1/explain",
            json={"input": [{"text": "a private question"}]},
            headers={"authorization": "Bearer first-key", "x-request-id": "abc"},
        )
        record = next(record for record in caplog.records if record.getMessage() == "request")
    token = request_id.set("abc")
    line = json.loads(JsonLines().format(record))
    request_id.reset(token)
    assert line["request_id"] == "abc"
    assert (line["method"], line["path"], line["status"], line["items"]) == ("POST", "/v1/explain", 200, 1)
    assert line["refined"] == "false", "nothing in the memory is like it, so it was left plain"
    assert "first-key" not in json.dumps(line)
    assert "private" not in json.dumps(line)


def test_a_defect_is_logged_with_its_trace_and_hidden_from_the_caller(troubled, served, caplog):
    made = troubled()
    with served(made.reco) as client:
        made.seam.trouble = lambda: 1 / 0
        answer = client.post("/v1/explain", json={"input": [{"text": "x"}]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "division" not in answer.text
    assert any(record.exc_info and "division" in str(record.exc_info[1]) for record in caplog.records)
