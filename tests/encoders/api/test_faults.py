"""What an API may do wrong: each is an error that names it and the way out, or is tried again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import numpy as np
import pytest
from api_server import Api, Reply

from reco_plugin.encoders.api_client import ApiClient, describe_change, measure
from reco_plugin.encoders.api_dialects import parse_address
from reco_plugin.errors import (
    ConfigError,
    InputError,
    SessionError,
    SessionOverloaded,
    SessionTimeout,
    SessionUnavailable,
)
from reco_plugin.settings import load_settings

KEY = "hush-4711-0815"


Ask: TypeAlias = Callable[..., ApiClient]
"""Makes a client of the API, with more options in its address, and settings."""


@pytest.fixture
def ask(api: Api) -> Iterator[Ask]:
    with ExitStack() as stack:

        def make(options: str = "", **settings: Any) -> ApiClient:
            said = {"encoder_patience_s": 0.05, "encoder_key": KEY, **settings}
            client = ApiClient(parse_address(f"jina+{api.url}/v1?model=m{options}"), load_settings(**said))
            stack.callback(client.close)
            return client

        yield make


def rows(*vectors: Any) -> Reply:
    return Reply(body={"data": [{"index": row, "embedding": vector} for row, vector in enumerate(vectors)]})


UNIT = [1.0] + [0.0] * 31


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(429, {"error": {"message": "slow down"}}, {"retry-after": "60"}), SessionOverloaded, "slow .*60 s"),
        (Reply(500, {"detail": "boom"}), SessionUnavailable, "answered 500: boom"),
        (Reply(401, {"error": {"message": f"bad key {KEY}"}}), SessionError, "bad key ….*RECO_ENCODER_KEY"),
        (Reply(400, {"error": {"message": "too long"}}), InputError, "too long"),
        (Reply(200, "<html>hello</html>"), SessionError, "without JSON"),
        (rows(UNIT), SessionError, "1 vectors for 2 texts"),
        (rows(UNIT, [float("nan")] * 32), SessionError, "NaN"),
        (rows(UNIT, [2.0] + [0.0] * 31), SessionError, "norm"),
        (rows("AACAPw=", "AACAPw="), SessionError, "did not answer in the dialect"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_a_fault_is_an_error_that_names_it_and_the_way_out(
    ask: Ask, api: Api, reply: Reply, kind: type[Exception], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    api.next = [reply] * 20
    with caplog.at_level(logging.DEBUG), pytest.raises(kind, match=words) as raised:
        ask().embed([b"a", b"b"], "text", 32)
    assert type(raised.value) is kind
    assert KEY not in str(raised.value) + caplog.text
    assert ("127.0.0.1" in str(raised.value)) == (kind is not InputError), "a service shows the latter to its callers"


def test_what_may_pass_is_tried_again_and_counted(ask: Ask, api: Api) -> None:
    again = Reply(429, {}, {"retry-after": "0"})
    api.next = [again, Reply(500, {})]
    client = ask(encoder_patience_s=5)
    assert client.embed([b"a", b"b"], "text").shape == (2, 32)
    counted = [sample for one in (client.calls, client.items) for family in one.collect() for sample in family.samples]
    by_label = {tuple(one.labels.values())[1]: one.value for one in counted if one.name.endswith("_total")}
    assert by_label == {"repeated": 2, "answered": 1, "text": 2}


def test_an_api_that_asks_to_wait_longer_than_patience_is_not_waited_for(ask: Ask, api: Api) -> None:
    api.next = [Reply(429, {}, {"retry-after": "3600"})]
    with pytest.raises(SessionOverloaded, match=r"Its Retry-After is 3600 s, and encoder_patience_s is 30"):
        ask(encoder_patience_s=30).embed([b"a"], "text")
    assert len(api.asked) == 1


def test_a_late_answer_is_a_timeout(ask: Ask, api: Api) -> None:
    api.next = [Reply(delay_s=0.3, body={})]
    with pytest.raises(SessionTimeout, match=r"did not answer within 0\.05 s\. Raise encoder_timeout_s"):
        ask(encoder_timeout_s=0.05, encoder_patience_s=0).embed([b"a"], "text")


def test_the_key_is_sent(ask: Ask, api: Api) -> None:
    ask(encoder_key=f"{KEY}\n").embed([b"a"], "text")
    ask(encoder_key=None).embed([b"a"], "text")
    assert [headers.get("authorization") for headers in api.headers] == [f"Bearer {KEY}", None]


def test_many_items_go_in_parts_of_the_providers_size_in_their_order(ask: Ask, api: Api) -> None:
    items = [f"text {row}".encode() for row in range(7)]
    found = ask("&batch=3&parallel=2").embed(items, "text")
    assert sorted(len(body["input"]) for body in api.asked) == [1, 3, 3]
    assert np.allclose(found, [api.vector(item.decode()) for item in items], atol=1e-6)


def test_another_model_is_noticed_and_rounding_is_not(ask: Ask, api: Api) -> None:
    client = ask()
    expected = measure(client)[0]
    assert describe_change(client, expected) is None

    def rounded(body: Any) -> Reply:
        reply = api.answer(body)
        for row in reply.body["data"]:
            row["embedding"] = np.float16(row["embedding"]).astype(float).tolist()
        return reply

    api.next = [rounded, rounded]
    assert describe_change(client, expected) is None
    api.model = 1
    assert describe_change(client, expected)
    api.dimension = 16
    assert "16" in str(describe_change(client, expected))


def test_a_wrong_model_is_named_at_the_start(ask: Ask, api: Api) -> None:
    api.next = [Reply(400, {"error": {"message": "the model `m` does not exist"}})]
    with pytest.raises(ConfigError, match="does not exist"):
        measure(ask())


def test_rows_are_taken_by_their_index(ask: Ask, api: Api) -> None:
    right = [{"index": row, "embedding": api.vector(text)} for row, text in enumerate(("a fox", "a dog"))]
    api.next = [Reply(body={"data": right[::-1]})]
    np.testing.assert_allclose(
        ask().embed([b"a fox", b"a dog"], "text"), [row["embedding"] for row in right], atol=1e-6
    )
