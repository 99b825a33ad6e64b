"""What strangers may see and say: pairs of the memory, names of hosts, keys in any alphabet, lines of the log."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
from service_process import process

from reco_plugin.serve.logs import JsonLines, PlainLines

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing", "/v1/", "/v1/embedding"])
def test_an_unknown_path_is_told_to_all_dialects(reading, path):
    """Engines show a `message` or a `detail` to their users, and else the status alone."""
    answer = reading.post(path, json={}).json()
    assert answer["detail"] == answer["message"] == answer["error"]["message"]
    assert "GET /openapi.json shows what there is" in answer["message"]
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
