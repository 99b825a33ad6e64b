"""Values of a request that no memory can hold or ask for: an answer that names them, never a failure of ours."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slow

JSON = {"content-type": "application/json"}


MANY = json.dumps({"shop": [str(i) for i in range(10_001)]})
KEYS = json.dumps({str(i): 1 for i in range(17)})


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ('{"year": 1e400}', "filter 'year'"),
        ('{"year": {"gte": 1e400}}', "filter 'year': a bound"),
        (json.dumps({"year": 10**30}), "filter 'year'"),
        (json.dumps({"year": [2**63]}), "filter 'year'"),
        (MANY, "10,001 texts, at most"),
        (KEYS, "17 keys, at most 16"),
    ],
    ids=range(6),
)
def test_a_filter_that_cannot_be_asked_is_400_and_names_its_key(client, admin, where, message):
    for path, query in (("/v1/memory/search", '"text": "a"'), ("/v1/explain", '"input": [{"text": "a"}]')):
        answer = client.post(path, content=f'{{{query}, "where": {where}}}', headers=admin | JSON)
        assert answer.status_code == 400, answer.text
        assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("levels", [65, 130, 300, 5_000, 100_000])
def test_a_payload_that_is_too_deep_is_refused_and_the_memory_goes_on(client, admin, levels):
    payload = '{"a":' * levels + "1" + "}" * levels
    deep = f'{{"id": "deep", "image_vector": [1], "text_vector": [1], "payload": {payload}}}'
    answer = client.post("/v1/memory/pairs", content=f'{{"pairs": [{deep}]}}', headers=admin | JSON)
    assert answer.status_code == 400, answer.text
    if levels < 300:  # deeper, it is no JSON that is read
        assert "nested deeper than 64 levels" in answer.json()["error"]["message"]
    assert client.get("/v1/memory", headers=admin).json()["pairs"] == 24
