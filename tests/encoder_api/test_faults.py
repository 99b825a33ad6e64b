"""What an API may do wrong: each is an error that names it and the way out, or is tried again."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import numpy as np
import pytest
from api_server import Api, Reply
from PIL import Image

from reco_plugin.config import load_settings
from reco_plugin.encoder_api import ApiClient, describe_change, measure, parse_address
from reco_plugin.errors import (
    ConfigError,
    InputError,
    SessionError,
    SessionOverloaded,
    SessionTimeout,
    SessionUnavailable,
)

KEY = "hush-4711-0815"


Ask: TypeAlias = Callable[..., ApiClient]
"""Makes a client of the API, with more options in its address, and settings."""


@pytest.fixture
def ask(api: Api) -> Iterator[Ask]:
    with ExitStack() as stack:

        def make(options: str = "", **settings: Any) -> ApiClient:
            said = {"encoder_patience_s": 0.05, "encoder_key": KEY, **settings}
            client = ApiClient(
                parse_address(f"openai+{api.url}/v1?model=m&images=object{options}"), load_settings(**said)
            )
            stack.callback(client.close)
            return client

        yield make


def rows(*vectors: Any) -> Reply:
    return Reply(body={"data": [{"index": row, "embedding": vector} for row, vector in enumerate(vectors)]})


UNIT = [1.0] + [0.0] * 31
FAULTS = {
    "429": (
        Reply(429, {"error": {"message": "slow down"}}, {"retry-after": "60"}),
        SessionOverloaded,
        "slow .*60 s",
    ),
    "500": (Reply(500, {"detail": "boom"}), SessionUnavailable, "answered 500: boom"),
    "503 HTML": (Reply(503, "<html>gateway</html>"), SessionUnavailable, "answered 503: <html>gateway"),
    "401": (
        Reply(401, {"error": {"message": f"bad key {KEY}"}}),
        SessionError,
        "bad key ….*wrong: set RECO_ENC",
    ),
    "404": (Reply(404, {"message": "no model m"}), SessionError, r"no model m\. Check address, dialect \(openai\)"),
    "301": (Reply(301, {}, {"location": "https://x/v1"}), SessionError, "points to https://x/v1: give that"),
    "400": (
        Reply(400, {"error": {"message": "too long"}}),
        InputError,
        r"^the API that encodes refused it \(400\): too long$",
    ),
    "HTML": (
        Reply(200, "<html>hello</html>"),
        SessionError,
        "text/html in place of JSON: '<html>hello.*address of",
    ),
    "no data": (Reply(200, {"result": []}), SessionError, "answered no vectors as openai does.*another dialect"),
    "too few": (rows(UNIT), SessionError, "answered 1 vectors for 2 texts"),
    "ragged": (rows(UNIT, [1.0]), SessionError, "answered no vectors"),
    "another dimension": (rows([1.0, 0.0], [0.0, 1.0]), SessionError, r"shape \(2, 2\), and \(2, 32\) is expected"),
    "NaN": (rows(UNIT, [float("nan")] * 32), SessionError, "NaN or infinity for 1 of 2 texts"),
    "zeros": (rows(UNIT, [0.0] * 32), SessionError, "zeros for 1 of 2 texts"),
    "not unit": (rows(UNIT, [2.0] + [0.0] * 31), SessionError, "norm 2.000.*add normalise=1"),
    "half of base64": (rows("AACAPw=", "AACAPw="), SessionError, "answered no vectors"),
}


@pytest.mark.parametrize(("reply", "kind", "words"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_an_error_that_names_it_and_the_way_out(
    ask: Ask, api: Api, reply: Reply, kind: type[Exception], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    api.next = [reply] * 20
    with caplog.at_level(logging.DEBUG), pytest.raises(kind) as raised:
        ask().embed([b"a", b"b"], "text", 32)
    assert type(raised.value) is kind
    assert re.search(words, str(raised.value))
    assert KEY not in str(raised.value) + caplog.text
    assert ("127.0.0.1" in str(raised.value)) == (kind is not InputError), "a service shows the latter to its callers"


def test_what_may_pass_is_tried_again_and_counted(ask: Ask, api: Api) -> None:
    again = Reply(429, {}, {"retry-after": "0"})
    api.next = [again, Reply(500, {})]
    client = ask(encoder_patience_s=5)
    assert client.embed([b"a", b"b"], "text").shape == (2, 32)
    assert client.counted.to_dict() == {
        "calls": {"repeated": 2, "answered": 1},
        "items": {"text": 2},
        "tokens": {"total_tokens": 7},
    }


def test_what_cannot_pass_is_not_tried_again(ask: Ask, api: Api) -> None:
    api.next = [Reply(401, {})] * 9
    with pytest.raises(SessionError, match="The key is missing: set RECO_ENCODER_KEY"):
        ask(encoder_patience_s=5, encoder_key="").embed([b"a"], "text")
    assert len(api.asked) == 1


def test_an_api_that_asks_to_wait_longer_than_patience_is_not_waited_for(ask: Ask, api: Api) -> None:
    api.next = [Reply(429, {}, {"retry-after": "3600"})]
    with pytest.raises(SessionOverloaded, match=r"It asks to wait 3600 s, and encoder_patience_s is 30"):
        ask(encoder_patience_s=30).embed([b"a"], "text")
    assert len(api.asked) == 1


def test_an_api_that_asks_for_no_pause_is_not_asked_without_one(ask: Ask, api: Api) -> None:
    api.next = [Reply(429, {}, {"retry-after": "0"})] * 1000
    with pytest.raises(SessionOverloaded):
        ask(encoder_patience_s=0.2).embed([b"a"], "text")
    assert len(api.asked) < 100


def test_a_late_answer_is_a_timeout(ask: Ask, api: Api) -> None:
    api.next = [Reply(delay_s=0.3, body={})]
    with pytest.raises(SessionTimeout, match=r"did not answer within 0\.05 s\. Raise encoder_timeout_s"):
        ask(encoder_timeout_s=0.05, encoder_patience_s=0).embed([b"a"], "text")


def test_nobody_at_the_address() -> None:
    client = ApiClient(parse_address("reco+http://127.0.0.1:1"), load_settings(encoder_patience_s=0))
    with pytest.raises(SessionUnavailable, match=r"http://127.0.0.1:1/v1/embeddings cannot be reached"):
        client.embed([b"a"], "text")
    client.close()


def test_the_key_is_sent_and_only_that_of_this_host(ask: Ask, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-openai-only")
    ask().embed([b"a"], "text")
    ask(encoder_key=None).embed([b"a"], "text")
    sent = [headers.get("authorization") for headers in api.headers]
    assert sent == [f"Bearer {KEY}", None]
    assert parse_address("https://api.openai.com/v1?model=m").key_variables == ("OPENAI_API_KEY",)


@pytest.mark.parametrize("around", ["{}\n"])
def test_a_key_with_a_line_break_of_its_file_is_sent_without(ask: Ask, api: Api, around: str) -> None:
    ask(encoder_key=around.format(KEY)).embed([b"a"], "text")
    assert api.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["hush.4711\nmore", "hush.4711…"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(ask: Ask, key: str) -> None:
    with pytest.raises(ConfigError, match="set RECO_ENCODER_KEY again") as raised:
        ask(encoder_key=key)
    assert "hush" not in str(raised.value)


def test_no_part_of_a_key_is_shown_where_what_the_api_says_is_cut(ask: Ask, api: Api) -> None:
    api.next = [Reply(404, "x" * 293 + KEY)]
    with pytest.raises(SessionError) as raised:
        ask().embed([b"a"], "text")
    assert KEY[:4] not in str(raised.value)


def test_keys_are_masked_and_words_that_begin_like_one_are_not(ask: Ask, api: Api) -> None:
    keys = "sk-abcd****wxyz, pa-abcdefghij1, jina_abcdefgh12, hf_abcdefgh12, Bearer abcd.efgh12/+="
    api.next = [Reply(400, f"invalid parameters of jina-embeddings-v3: Bearer authentication by {keys}")]
    with pytest.raises(InputError) as raised:
        ask().embed([b"a"], "text")
    assert str(raised.value).endswith(
        "invalid parameters of jina-embeddings-v3: Bearer authentication by …, …, …, …, …"
    )


def test_many_items_go_in_parts_of_the_providers_size_in_their_order(ask: Ask, api: Api) -> None:
    items = [f"text {row}".encode() for row in range(7)]
    found = ask("&batch=3&parallel=2").embed(items, "text")
    assert sorted(len(body["input"]) for body in api.asked) == [1, 3, 3]
    assert np.allclose(found, [api.vector(item.decode()) for item in items], atol=1e-6)


def test_rows_are_taken_by_their_index(ask: Ask, api: Api) -> None:
    def backwards(body: Any) -> Reply:
        reply = api.answer(body)
        reply.body["data"].reverse()
        return reply

    api.next = [backwards]
    found = ask().embed([b"a", b"b"], "text")
    assert np.allclose(found, [api.vector("a"), api.vector("b")], atol=1e-6)


def test_vectors_that_are_not_unit_are_made_so_where_the_address_says_it(ask: Ask, api: Api) -> None:
    api.next = [rows([3.0, 4.0])]
    assert ask("&normalise=1").embed([b"a"], "text").tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]


def test_another_model_is_noticed_and_rounding_is_not(ask: Ask, api: Api) -> None:
    client = ask()
    expected = measure(client).fingerprint
    assert describe_change(client, expected) is None

    def rounded(body: Any) -> Reply:
        reply = api.answer(body)
        for row in reply.body["data"]:
            row["embedding"] = np.float16(row["embedding"]).astype(float).tolist()
        return reply

    api.next = [rounded, rounded]
    assert describe_change(client, expected) is None
    api.model = 1
    changed = describe_change(client, expected)
    assert changed is not None
    assert re.fullmatch(r"vectors of fixed texts by [\d.]+ and of images by [\d.]+ \(1 - cosine\)", changed)
    api.dimension = 16
    assert describe_change(client, expected) == "its vectors have 16 dimensions, and had 32"


def test_a_wrong_model_is_named_at_the_start(ask: Ask, api: Api) -> None:
    api.next = [Reply(400, {"error": {"message": "the model `m` does not exist"}})]
    with pytest.raises(ConfigError, match=r"does not exist\. Check model and dimensions in RECO_ENCODER"):
        measure(ask())


def test_vllm_takes_each_image_as_a_message(api: Api) -> None:
    def as_vllm(body: Any) -> Reply:
        ((part,),) = [message["content"] for message in body["messages"]]
        return api.answer({"input": [part["image_url"]["url"]]})

    client = ApiClient(parse_address(f"openai+{api.url}/v1?model=m&images=messages"), load_settings())
    api.next = [as_vllm] * 2
    assert client.embed((_file_of("red"), _file_of("blue")), "image").shape == (2, 32)
    client.close()
    assert [list(body) for body in api.asked] == [["messages", "model", "encoding_format"]] * 2


def _file_of(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (9, 9), colour).save(out, "PNG")
    return out.getvalue()
