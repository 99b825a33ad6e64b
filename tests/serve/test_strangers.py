"""What strangers may see and say: pairs of the memory, names of hosts, keys in any alphabet, lines of the log."""

from __future__ import annotations

import json
import logging

import httpx
import pytest

from reco_plugin.serve.failures import Refused
from reco_plugin.serve.logs import JsonLines, PlainLines
from reco_plugin.serve.routes import KeyCheck
from reco_plugin.serve.settings import ServeSettings

from .conftest import ADMIN
from .test_core_run import process

TEXT = "a small red circle"


def shows(client, vector, headers):
    """The statuses of everything that shows pairs without /v1/memory, of which there must be one only."""
    asked = {
        "/v1/explain": {"input": [{"text": TEXT}]},
        "/v1/refine": {"vectors": [vector], "modality": "text", "explain": True},
        "/plain/v1/explain": {"input": [{"text": TEXT}]},
        "/page/compare": {"input": {"text": TEXT}},
    }
    answers = [client.post(path, json=body, headers=headers) for path, body in asked.items()]
    answers.append(client.get("/page/examples", headers=headers))
    (status,) = {answer.status_code for answer in answers}
    assert all(("small-red-circle" in answer.text) == (status == 200) for answer in answers[:4])
    return status


@pytest.mark.parametrize(
    ("settings", "stranger", "caller", "owner"),
    [
        ({"admin_key": None}, 200, 200, 200),  # nobody's secrets
        ({"admin_key": ADMIN}, 401, 401, 200),
        ({"admin_key": ADMIN, "api_keys": ["caller"]}, 401, 200, 200),
        ({"admin_key": None, "api_keys": ["caller"]}, 401, 200, 401),
        ({"admin_key": ADMIN, "show_pairs": True}, 200, 200, 200),
        ({"admin_key": ADMIN, "api_keys": ["caller"], "show_pairs": False}, 401, 401, 200),
        ({"admin_key": None, "show_pairs": False}, 403, 403, 403),
    ],
)
def test_who_sees_pairs(filled, served, settings, stranger, caller, owner):
    vector = filled.embed_texts([TEXT], refine=False)[0].tolist()
    with served(filled, **{"page": True, "show_pairs": None, **settings}) as client:
        found = [
            shows(client, vector, {"authorization": f"Bearer {key}"} if key else {}) for key in (None, "caller", ADMIN)
        ]
        assert found == [stranger, caller, owner]
        key = {"authorization": f"Bearer {settings.get('api_keys', ['none'])[0]}"}
        plain = client.post("/v1/refine", json={"vectors": [vector], "modality": "text"}, headers=key)
        assert plain.status_code == 200  # refined all the same
        assert "used" not in plain.json()["data"][0]


@pytest.mark.parametrize("key", ["schlüssel", "clé-à", "鍵", "ascii"])
def test_a_key_may_be_written_in_any_alphabet(filled, live, key):
    with live(filled, api_keys=[key], admin_key="ключ") as (url, _):

        def status(path: str, sent: bytes) -> int:
            return httpx.get(f"{url}{path}", headers=[(b"authorization", b"Bearer " + sent)]).status_code

        assert status("/v1/models", key.encode()) == 200
        assert status("/v1/models", key.encode()[:-1]) == 401
        assert status("/v1/memory", "ключ".encode()) == 200
        assert status("/v1/memory", key.encode()) == 401
        if key == "schlüssel":
            assert status("/v1/models", key.encode("latin-1")) == 200  # as browsers send it


def test_only_a_bearer_key_is_looked_at():
    guard = KeyCheck(ServeSettings(admin_key="k"))
    guard.check_pairs("Bearer k")
    for header in ("Basic: k", "1234567k", "Bearer", "", None):
        with pytest.raises(Refused):
            guard.check_pairs(header)


@pytest.mark.parametrize(
    ("method", "path", "status", "key"),
    [
        ("GET", "/v1/embeddings", 405, "error"),
        ("PUT", "/v1/multimodalembeddings", 405, "detail"),
        ("GET", "/v2/embed", 405, "message"),
        ("GET", "/plain/v2/embed", 405, "message"),
        ("GET", "/vectorize", 405, "error"),
        ("GET", "/titan", 405, "message"),
        ("GET", "/model/clip/invoke", 405, "message"),
        ("GET", "/v2//embed/", 405, "message"),
        ("POST", "/refined/v2/embed/rerank", 404, "message"),
        ("POST", "/v2/rerank", 404, "message"),
        ("POST", "/v1/multimodalembeddings/rerank", 404, "detail"),
        ("POST", "/model/clip/invoke-with-response-stream", 404, "message"),
        ("POST", "/v1/nothing", 404, "error"),
        ("GET", "/nothing", 404, "error"),
    ],
)
def test_where_no_route_answers_the_nearest_dialect_does(reading, method, path, status, key):
    answer = reading.request(method, path, json={}, follow_redirects=False)
    assert answer.status_code == status
    assert key in answer.json()
    assert key == "error" or "error" not in answer.json()
    if path.endswith("/vectorize"):
        assert isinstance(answer.json()["error"], str)
    assert status != 405 or answer.headers["allow"]
    assert path in answer.text  # as it was sent, with its prefix


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing", "/v1/", "/v1/embedding"])
def test_an_unknown_path_is_told_to_all_dialects(reading, path):
    """Engines show a `message` or a `detail` to their users, and else the status alone."""
    answer = reading.post(path, json={}).json()
    assert answer["detail"] == answer["message"] == answer["error"]["message"]
    assert "GET /docs shows what there is" in answer["message"]
    assert ("did you mean '/v1/embeddings'" in answer["message"]) is path.startswith("/v1/embedding")


def test_on_this_machine_only_names_of_this_machine_are_answered(tmp_path, model):
    with process(tmp_path, model, "--memory", ":memory:") as (_, url):
        port = url.rpartition(":")[2]

        def status(host: str, path: str = "/v1/models") -> int:
            return httpx.get(f"{url}{path}", headers={"host": host}, timeout=60).status_code

        for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}", "LOCALHOST", "reco.localhost"):
            assert status(host) == 200, host
        for host in (f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "10.0.0.1"):
            assert status(host) == 403, host
        assert "message" in httpx.post(f"{url}/v2/embed", headers={"host": "evil.example"}, timeout=60).json()
    with process(tmp_path, model, "--memory", ":memory:", "--allowed-hosts", "shop.example") as (_, url):
        assert (status("shop.example"), status("SHOP.example:80"), status("evil.example")) == (200, 200, 403)


@pytest.mark.parametrize("form", [JsonLines(), PlainLines("%(levelname)s %(message)s")])
def test_what_a_client_sends_cannot_write_lines_of_the_log(form):
    sent = 'x\n{"level": "info"}\r\x1b[2J\x7f\x9b\u2028\u202e\ud800 é'
    record = logging.makeLogRecord({"levelname": "INFO", "msg": "asked for %s", "args": (sent,), "path": sent})
    line = form.format(record)
    assert line.isprintable()
    assert "é" in line
    line.encode()
    if isinstance(form, JsonLines):
        assert json.loads(line)["path"] == sent


def test_a_trace_in_the_log_cannot_write_lines_either():
    try:
        raise ValueError("\x1b[2J\nINFO all is well")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": (ValueError, error, error.__traceback__)})
    lines = PlainLines("%(message)s").format(record).split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])
