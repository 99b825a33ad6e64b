"""What the client sends, how it reads answers and errors, and when it asks again; the service is a function here."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys

import httpx
import numpy as np
import pytest
from PIL import Image

from reco_plugin import Pair
from reco_plugin.client import Client
from reco_plugin.errors import (
    ConfigError,
    ImageError,
    InputError,
    MemoryUnavailable,
    SessionError,
    SessionOverloaded,
    SessionTimeout,
    SessionUnavailable,
    VectorError,
)
from reco_plugin.retrieval.guard import DegradedWarning

ROWS = np.float32([[1, 0], [0, 1], [0.6, 0.8]])


class Service:
    """Answers with what it was given, in turn, and keeps what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self, request):
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def bodies(self):
        return [json.loads(request.content) for request in self.asked]

    def client(self, kind=Client, **options):
        return kind("http://reco", transport=httpx.MockTransport(self), **options)


def embedded(rows, *, encode=True, **headers):
    values = [base64.b64encode(row.astype("<f4").tobytes()).decode() if encode else row.tolist() for row in rows]
    data = [{"index": index, "embedding": value} for index, value in enumerate(values)]
    return httpx.Response(200, json={"data": data[::-1]}, headers=headers)


def failed(status, code="some_code", message="some words", **headers):
    return httpx.Response(status, json={"error": {"code": code, "message": message}}, headers=headers)


@pytest.mark.parametrize("encode", [True, False])
def test_vectors_come_back_in_order_as_base64_or_numbers(encode):
    service = Service(embedded(ROWS, encode=encode))
    vectors = service.client(api_key="k").embed_texts(["a", "b", "c"], refine=True)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, ROWS)
    assert service.bodies == [
        {
            "input": [{"text": "a"}, {"text": "b"}, {"text": "c"}],
            "input_type": "query",
            "encoding_format": "base64",
            "reco": {},
            "refine": True,
        }
    ]
    assert service.asked[0].headers["authorization"] == "Bearer k"


def test_many_queries_go_in_parts_and_candidates_as_one_set():
    service = Service(embedded(ROWS[:2]), embedded(ROWS[2:]), embedded(ROWS), embedded(ROWS[:2]), embedded(ROWS[2:]))
    client = service.client(batch_size=2)
    assert np.array_equal(client.embed_texts(["a", "b", "c"]), ROWS)
    assert np.array_equal(client.embed_texts(["a", "b", "c"], role="candidate"), ROWS)
    assert np.array_equal(client.embed_texts(["a", "b", "c"], role="candidate", refine=False), ROWS)
    assert [len(body["input"]) for body in service.bodies] == [2, 1, 3, 2, 1]
    assert [body["input_type"] for body in service.bodies] == ["query"] * 2 + ["document"] * 3


def test_an_item_that_is_refused_is_named_by_its_place_among_all():
    service = Service(embedded(ROWS[:2]), failed(400, "empty_text", "input[0]: a text is empty"))
    with pytest.raises(InputError, match=r"input\[0\]: a text is empty \(in the batch that starts at position 2\)$"):
        service.client(batch_size=2).embed_texts(["a", "b", ""])
    with pytest.raises(InputError, match=r"a text is empty$"):
        Service(failed(400, "empty_text", "a text is empty")).client().embed_texts([""])


def test_images_go_without_loss(tmp_path):
    drawing = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    drawing.save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    service = Service(embedded(ROWS))
    service.client().embed_images([tmp_path / "a.jpg", data, drawing])
    sent = [base64.b64decode(item["image"]) for item in service.bodies[0]["input"]]
    assert sent[:2] == [data, data]
    assert np.array_equal(Image.open(io.BytesIO(sent[2])), drawing)


@pytest.mark.parametrize("mode", ["I;16", "RGBA"])
def test_a_pil_image_of_any_mode_arrives_as_it_was(mode):
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16)
    image = grey.convert("RGB").convert(mode) if mode != "I;16" else grey.convert(mode)
    service = Service(embedded(ROWS[:1]))
    service.client().embed_images([image])
    sent = Image.open(io.BytesIO(base64.b64decode(service.bodies[0]["input"][0]["image"])))
    assert sent.mode == mode
    assert np.array_equal(np.asarray(sent), np.asarray(image))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda client: client.embed_texts([1]), InputError, "got int"),
        (lambda client: client.embed_images(["none.png"]), ImageError, r"none\.png"),
        (lambda client: client.refine([[np.nan, 0]], modality="text"), VectorError, "NaN"),
        (lambda client: client.remove_pairs("a"), InputError, "put it in a list"),
        (lambda client: client.add_pairs([("a", b"x", "a", {"n": np.int64(1)})]), InputError, "JSON: .*int64"),
    ],
)
def test_what_cannot_be_sent_is_said_before(call, kind, message):
    with pytest.raises(kind, match=message):
        call(Service().client())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8080"}, "url must be the address of a service, as in http://"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"api_key": "schl\u00fcssel"}, "^api_key holds a line break, or what is not ASCII: it cannot be sent$"),
    ],
)
def test_options_that_no_client_can_have(options, message):
    with pytest.raises(ConfigError, match=message):
        Client(**{"url": "http://reco", **options})


def test_a_key_of_a_file_ends_with_its_line():
    service = Service(embedded(ROWS))
    service.client(api_key="secret\n").embed_texts(["a", "b", "c"])
    assert service.asked[0].headers["authorization"] == "Bearer secret"


def test_a_set_of_ids_is_removed():
    service = Service(httpx.Response(200, json={"removed": 2}))
    assert service.client(admin_key="k").remove_pairs({"a", "b"}) == 2
    assert sorted(service.asked[0].url.params.get_list("id")) == ["a", "b"]


def test_a_client_that_is_closed_says_so_and_no_outage():
    client = Service().client()
    client.close()
    for call in (
        lambda: client.refine(ROWS, modality="text"),  # would fall back to these vectors
        lambda: client.embed_texts(["a"], refine=False),
    ):
        with pytest.raises(SessionError, match="this client of http://reco is closed: make another one"):
            call()
    assert client.circuit.failures == 0


def test_it_is_not_asked_for_ever():
    service = Service(*[failed(429, "queue_full", **{"retry-after": "0"})] * 3)
    with pytest.raises(SessionOverloaded, match=r"http://reco/v1/embeddings answered 429 \(queue_full\): some words"):
        service.client().embed_texts(["a"])
    assert service.answers == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda: failed(400), InputError),
        (lambda: failed(401), ConfigError),
        (lambda: failed(504), SessionTimeout),
        (lambda: failed(503, "memory_unavailable"), MemoryUnavailable),
        (lambda: httpx.Response(502, text="<html>"), SessionUnavailable),  # a proxy's
        (lambda: httpx.Response(200, text="<html>"), SessionError),
        (lambda: httpx.ConnectError("refused"), SessionUnavailable),
        (lambda: httpx.ReadTimeout("late"), SessionTimeout),
    ],
)
def test_errors_are_those_of_this_package(answer, kind):
    client = Service(answer()).client(retries=0)
    with pytest.raises(kind, match="http://reco") as raised:
        client.embed_texts(["a"])
    assert type(raised.value) is kind


def test_a_connection_that_cannot_be_made_says_the_way_out():
    with pytest.raises(SessionUnavailable, match="Is `reco serve` running there"):
        Service(httpx.ConnectError("[Errno 111] Connection refused")).client().embed_texts(["a"])


def test_frozen_vectors_in_place_of_refined_ones_are_warned_of():
    service = Service(embedded(ROWS, **{"x-reco-degraded": "memory_timeout"}))
    with pytest.warns(DegradedWarning, match="http://reco answers with frozen CLIP vectors .memory_timeout."):
        service.client().embed_texts(["a", "b", "c"])


def test_refinements_in_parts_are_joined():
    rows = [
        {"index": 0, "embedding": row.tolist(), "moved": moved, "frozen": [0.0, 1.0], "used": []}
        for row, moved in zip(ROWS, (0.1, 0.2, 0.3), strict=True)
    ]
    rows[1]["plain"] = "the memory is not calibrated"
    parts = [{"data": [rows[0]]}, {"data": [rows[1]], "degraded": "fusion_error"}, {"data": [rows[2]]}]
    service = Service(*[httpx.Response(200, json=part) for part in parts])
    result = service.client(batch_size=1).refine(ROWS, modality="text", explain=True)
    assert np.array_equal(result.vectors, ROWS)
    assert result.moved.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert result.frozen.tolist() == [[0, 1]] * 3
    assert (result.degraded, result.used) == ("fusion_error", ((), (), ()))
    assert result.plain == ("", "the memory is not calibrated", "")
    sets = Service(httpx.Response(200, json={"data": [{**row, "index": n} for n, row in enumerate(rows)]}))
    assert len(sets.client(batch_size=1).refine(ROWS, modality="text", role="candidate").vectors) == 3
    assert [len(body["vectors"]) for body in service.bodies + sets.bodies] == [1, 1, 1, 3]


def test_pairs_are_read_in_parts_and_need_the_admin_key():
    answers = [httpx.Response(200, json={"stored": count}) for count in (2, 1)]
    service = Service(*answers, httpx.Response(200, json={"removed": 1}))
    client = service.client(api_key="k", admin_key="admin", batch_size=2)
    pairs = [Pair("1", np.float32([1, 0]), "a", {"n": 1}), ("2", b"png", "b"), ("3", b"png", np.float32([0, 1]))]
    assert client.add_pairs(iter(pairs)) == 3
    assert client.remove_pairs(["1", "?&"]) == 1
    assert client.remove_pairs([]) == client.add_pairs([]) == 0
    first, second = (body["pairs"] for body in map(json.loads, [request.content for request in service.asked[:2]]))
    assert first == [
        {"id": "1", "image_vector": [1.0, 0.0], "text": "a", "payload": {"n": 1}},
        {"id": "2", "image": "cG5n", "text": "b", "payload": {}},
    ]
    assert second[0]["text_vector"] == [0.0, 1.0]
    assert {request.headers["authorization"] for request in service.asked} == {"Bearer admin"}
    assert service.asked[2].url.params.get_list("id") == ["1", "?&"]


def test_a_set_of_excluded_ids_goes_as_a_list():
    service = Service(embedded(ROWS))
    service.client().refine(ROWS, modality="text", k=3, exclude={"b", "a"}, where=None)
    (body,) = service.bodies
    assert (body["exclude"], body["k"], "where" in body) == (["a", "b"], 3, False)


def test_without_httpx_the_install_line_is_shown():
    code = "import sys; sys.modules['httpx'] = None; from reco_plugin.client import Client; Client('http://reco')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtra: the client needs httpx" in ended.stderr
    assert "pip install 'reco-plugin[client]'" in ended.stderr
