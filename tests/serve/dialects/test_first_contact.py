"""What clients send by themselves, with nothing set: their headers, their batches, their paths."""

from __future__ import annotations

import json

import httpx
import openai
import pytest
from starlette.testclient import TestClient

from reco_plugin import Reco

TEXT = "a small red circle"
BODIES = {
    "/v1/embeddings": {"input": [TEXT]},
    "/v1/multimodalembeddings": {"inputs": [{"content": [{"type": "text", "text": TEXT}]}]},
    "/v2/embed": {"texts": [TEXT]},
    "/vectorize": {"texts": [TEXT]},
    "/titan": {"inputText": TEXT},
    "/model/clip/invoke": {"inputText": TEXT},
    "/v1/explain": {"input": [{"text": TEXT}]},
}
OTHERS = {"/embed": {"inputs": [TEXT]}}
CURL = "application/x-www-form-urlencoded"  # what `curl -d` says


@pytest.mark.parametrize(
    "content_type", [None, CURL, "text/plain", "application/octet-stream", "application/vnd.api+json"]
)
@pytest.mark.parametrize("path", BODIES)
def test_json_is_json_whatever_the_header_says(client: TestClient, path: str, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = client.post(path, content=json.dumps(BODIES[path]).encode(), headers=headers)
    assert answer.status_code == 200, answer.text
    as_ever = client.post(path, json=BODIES[path])
    assert as_ever.json() | {"id": None} == answer.json() | {"id": None}  # Cohere's answers have one each


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u2003"])
@pytest.mark.parametrize("path", [path for path in [*BODIES, *OTHERS] if path != "/vectorize"])
def test_a_text_of_blanks_is_none(client: TestClient, path: str, blank: str) -> None:
    body = json.loads(json.dumps((BODIES | OTHERS)[path]).replace(TEXT, json.dumps(blank)[1:-1]))
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert "a text is empty: leave it out" in answer.text or "there is nothing to embed" in answer.text


@pytest.mark.parametrize("path", BODIES)
def test_slashes_too_many_change_nothing(client: TestClient, path: str) -> None:
    expected = client.post(path, json=BODIES[path]).json() | {"id": None}
    for spelt in (f"/{path}", f"{path}/", f"/plain/{path}//", path.replace("/", "//")):
        answer = client.post(f"{client.base_url}{spelt}", json=BODIES[path])
        assert answer.status_code == 200, (spelt, answer.text)
        assert answer.json() | {"id": None} == expected


def test_an_offer_of_http_2_is_passed_over_in_silence(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """As of Java's client, with every request."""
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAEAAEAAAAIAAAAA"}
    assert httpx.post(
        f"{url}/v1/embeddings", json=BODIES["/v1/embeddings"], headers={**offer, "api-key": "any"}
    ).is_success
    assert [one.message for one in caplog.records if one.levelname == "WARNING"] == []


def test_head_is_answered_as_get_without_a_body(url: str) -> None:
    key = {"authorization": "Bearer any"}
    for path in (
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/v1/models",
        "/refined/v1/models",
        "/v1/embeddings",
        "/nothing",
    ):
        head, get = (httpx.request(method, f"{url}{path}", headers=key) for method in ("HEAD", "GET"))
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
    assert httpx.head(f"{url}/v1/models").status_code == 401


def test_a_page_of_somebody_else_cannot_send_it_without_asking(client: TestClient) -> None:
    body = json.dumps(BODIES["/v1/embeddings"]).encode()
    page = {"origin": "https://evil.example", "content-type": "text/plain"}
    assert client.post("/v1/embeddings", content=body, headers=page).status_code == 400
    assert client.post("/v1/embeddings", content=body, headers=page | {"content-type": "application/json"}).is_success


def test_a_batch_of_openais_size(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as sdk:
        answer = sdk.embeddings.create(model="clip", input=[f"number {n}" for n in range(2048)])
        assert len(answer.data) == 2048
        with pytest.raises(openai.APIStatusError, match=r"2,049 in one request, the limit is 2,048 \(max_items\)"):
            sdk.embeddings.create(model="clip", input=["a"] * 2049)


def test_azures_client(url: str, filled: Reco) -> None:
    expected = filled.embed_texts([TEXT], refine=False)[0].tolist()
    with openai.AzureOpenAI(azure_endpoint=url, api_key="any", api_version="2024-10-21", max_retries=0) as sdk:
        plain, refined = (sdk.embeddings.create(model=name, input=TEXT) for name in ("clip", "clip-reco-query"))
    assert plain.data[0].embedding == pytest.approx(expected, abs=1e-6)
    assert refined.data[0].embedding != pytest.approx(expected, abs=1e-3)
    wrong = openai.AzureOpenAI(azure_endpoint=url, api_key="wrong", api_version="2024-10-21", max_retries=0)
    with wrong as sdk, pytest.raises(openai.AuthenticationError):
        sdk.embeddings.create(model="clip", input=TEXT)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": "any"}, 200),
        ({"api-key": "any"}, 200),
        ({"x-api-key": "other"}, 401),
        ({"authorization": "AWS4-HMAC-SHA256 Credential=x", "x-api-key": "any"}, 200),
        ({"authorization": "Bearer other", "x-api-key": "any"}, 401),
    ],
)
def test_keys_of_other_gateways(url: str, headers: dict[str, str], status: int) -> None:
    for path in ("/v1/models", "/models"):
        assert httpx.get(f"{url}{path}", headers=headers).status_code == status
    for path in ("/v1/embeddings", "/embeddings", "/openai/v1/embeddings"):
        assert httpx.post(f"{url}{path}", json={"input": TEXT}, headers=headers).status_code == status


@pytest.mark.parametrize("path", ["/health", "/ping", "/v1/health/ready", "/v1/health/live", "/livez", "/readyz"])
def test_probes_of_other_servers_need_no_key(url: str, path: str) -> None:
    assert httpx.get(f"{url}{path}").status_code == 200
